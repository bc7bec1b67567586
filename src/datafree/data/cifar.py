"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), binary: records of label bytes and 3,072 bytes of R, G and B planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._core.errors import unknown
from .cifar_names import CIFAR10, COARSE, FINE
from .dataset import Dataset, check_labels, check_split, in_memory
from .find_files import damaged, find, find_first, locate, read

__all__ = ["cifar10", "cifar100"]

PIXELS = 3 * 32 * 32
BATCHES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))


def cifar10(name: str, split: str, folder: Path | None) -> Dataset:
    """10 classes, 32x32 colour, from cifar-10-batches-bin. "train" has those of the five batches that exist."""
    check_split(name, split)
    files = BATCHES if split == "train" else ("test_batch.bin",)
    place = locate(name, folder, "cifar-10-batches-bin", files)
    paths = [path for path in (find_first(place, file) for file in files) if path]
    batches = [_records(path, label_bytes=1, limit=10_000) for path in paths]
    for path, (labels, _) in zip(paths, batches):
        check_labels(labels[:, 0], 10, repr(str(path)))
    labels = np.concatenate([labels[:, 0] for labels, _ in batches])
    return in_memory(name, split, CIFAR10, labels, np.concatenate([images for _, images in batches]))


def cifar100(name: str, split: str, folder: Path | None, *, labels: str = "fine") -> Dataset:
    """100 classes ("fine") or their 20 superclasses ("coarse"), 32x32 colour, from cifar-100-binary."""
    check_split(name, split)
    if labels not in ("fine", "coarse"):
        raise unknown("labels", labels, ("fine", "coarse"), where=f"data set {name!r}")
    file = f"{split}.bin"
    path = find(locate(name, folder, "cifar-100-binary", [file]), file)
    label_pairs, images = _records(path, label_bytes=2, limit=50_000)  # coarse, fine
    column, classes = (1, FINE) if labels == "fine" else (0, COARSE)
    check_labels(label_pairs[:, column], len(classes), repr(str(path)))
    return in_memory(name, split, classes, label_pairs[:, column], images)


def _records(path: Path, *, label_bytes: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n, label_bytes) and images (n, 3, 32, 32) of a file without header, with at most `limit` records."""
    length = label_bytes + PIXELS
    content = read(path, limit * length)
    if len(content) > limit * length:
        raise damaged(path, f"holds more than {limit * length} bytes", f"at most {limit} records of {length}")
    if len(content) % length or not content:
        raise damaged(path, f"holds {len(content)} bytes", f"complete records of {length}")
    records = np.frombuffer(content, np.uint8).reshape(-1, length)
    return records[:, :label_bytes], np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, 3, 32, 32)
