"""The 8x8 digits of scikit-learn: 1,797 images, 500 of them for testing. Needs no files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Dataset, check_split, in_memory
from .stratified import split_rows

__all__ = ["digits"]


def digits(name: str, split: str, _folder: Path | None) -> Dataset:
    """1,297 training and 500 test images, stratified by class. Values are scaled from 0-16 to 0-255."""
    check_split(name, split)
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    rows = split_rows(bunch.target, split, test=500)
    images = np.rint(bunch.images[rows] * (255 / 16)).astype(np.uint8)[:, None]  # (N, 1, 8, 8)
    return in_memory(name, split, [str(digit) for digit in range(10)], bunch.target[rows], images)
