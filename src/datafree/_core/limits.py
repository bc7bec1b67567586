"""Limits that several packages share. Free of torch."""

from __future__ import annotations

__all__ = ["EPOCHS"]


EPOCHS = 100_000
"""The most epochs that a run may have: what its history may take in run.json."""
