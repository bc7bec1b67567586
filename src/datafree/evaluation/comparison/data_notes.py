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
        training_digests = set(_digests(train))
        shared = sum(digest in training_digests for digest in _digests(test))
        if shared:
            notes.append(
                f"{shared:,} of {len(test):,} test images are training images too: `real` is measured too high"
            )
    return notes


def _digests(data: Dataset) -> Iterator[bytes]:
    """A hash of each image as it is stored."""
    for start in range(0, len(data), BATCH):
        images = data.read(np.arange(start, min(start + BATCH, len(data))))
        yield from (blake2b(image.tobytes(), digest_size=16).digest() for image in images)
