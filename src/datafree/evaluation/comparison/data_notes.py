"""What is wrong with the data of a comparison: classes without test images, and test images that were trained on."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from ...data.dataset import Dataset

__all__ = ["data_notes"]

BATCH = 512


def data_notes(test: Dataset, train: Dataset | None) -> list[str]:
    """One sentence for each. `train` is None if no student learns from it."""
    notes = []
    counts = test.labels.bincount(minlength=len(test.classes)).tolist()
    missing = [name for name, count in zip(test.classes, counts, strict=True) if not count]
    if missing:
        names = ", ".join(missing[:5]) + (" and others" if len(missing) > 5 else "")
        notes.append(f"no test images of {len(missing)} of {len(counts)} classes ({names}): accuracy is of the others")
    if train is not None:
        size = (test.shape[1], test.shape[2])
        known = set(_digests(train, size))
        seen = sum(digest in known for digest in _digests(test, size))
        if seen:
            notes.append(f"{seen:,} of {len(test):,} test images are training images too: `real` is measured too high")
    return notes


def _digests(data: Dataset, size: tuple[int, int]) -> Iterator[bytes]:
    """A hash of each image, at this height and width."""
    for start in range(0, len(data), BATCH):
        pixels = data.pixels(np.arange(start, min(start + BATCH, len(data))), size).numpy()
        yield from (blake2b(image.tobytes(), digest_size=16).digest() for image in pixels)
