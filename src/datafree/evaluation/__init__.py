"""Evaluation: accuracy, agreement, similarity of data, stability of training curves, and the report."""
