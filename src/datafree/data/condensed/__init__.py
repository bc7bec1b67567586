"""Condensed sets: a few images per class that represent a data set. Makes, imports and stores them."""
