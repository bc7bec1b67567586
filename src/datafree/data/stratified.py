"""Stratified selection of labelled images, identical on every machine."""

from __future__ import annotations

import numpy as np

__all__ = ["ALL", "choose", "split_note", "split_rows"]

ALL = "all"
"""The split with all images, for data without splits."""


def choose(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """`count` row numbers, ascending; each class gets its share (count * n_class / n), rounded down or up."""
    # RandomState, because numpy guarantees only its stream across versions (NEP 19).
    order = np.random.RandomState(seed % 2**32).permutation(len(labels))
    shares = _shares(np.bincount(labels), count)
    chosen = [order[labels[order] == label][:share] for label, share in enumerate(shares) if share]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen])).astype(np.int64)


def split_rows(labels: np.ndarray, split: str, test: int | None = None) -> np.ndarray:
    """Rows of "train", "test" or "all" for data without splits; `test` rows are for testing, by default a fifth."""
    if split == ALL:
        return np.arange(len(labels))
    if len(labels) == 0:
        return np.zeros(0, np.int64)
    held_out = choose(labels, max(1, round(len(labels) / 5)) if test is None else test)
    return held_out if split == "test" else np.setdiff1d(np.arange(len(labels)), held_out)


def split_note(place: object, lacking: str, labels: np.ndarray) -> str:
    """A note on data without splits: how much of it is used for testing."""
    count = len(split_rows(labels, "test"))
    return (
        f"{place} has no {lacking}: a fixed fifth of each class, {count:,} of {len(labels):,} images, "
        "is the test split, and the rest the training split; the split 'all' has every image"
    )


def _shares(sizes: np.ndarray, count: int) -> np.ndarray:
    """Largest remainder method in integers; ties go to the lower class."""
    total = int(sizes.sum())
    shares, remainders = np.divmod(sizes.astype(np.int64) * count, total)
    largest = np.argsort(-remainders, kind="stable")[: count - int(shares.sum())]
    shares[largest] += 1
    return shares
