"""Limits that several packages share. Does not import torch."""

from __future__ import annotations

__all__ = ["EPOCHS"]


EPOCHS = 100_000
"""The largest number of epochs in a run, limited by the size of its history in run.json."""
