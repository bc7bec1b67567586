"""Condensed sets: a few images per class that stand for a data set. Makes, imports and stores them."""
