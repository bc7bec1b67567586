"""Street View House Numbers (Netzer et al. 2011), cropped digits, from its MATLAB files."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from .dataset import Dataset, check_labels, check_split, in_memory
from .find_files import affordable, damaged, find, locate, read
from .matlab import Matrix, matrices
from .mnist import DIGITS

__all__ = ["svhn"]

MOST = 100_000
MOST_BYTES = MOST * (3 * 32 * 32 + 8)
NONE = Matrix((), "none", memoryview(b""), False, 0)


def svhn(name: str, split: str, folder: Path | None) -> Dataset:
    """Digits of house numbers, 73,257 training and 26,032 test images, 32x32 colour, from SVHN."""
    check_split(name, split)
    file = f"{split}_32x32.mat"
    path = find(locate(name, folder, "SVHN", [file]), file)
    images, labels = _arrays(path)
    check_labels(labels, 10, repr(str(path)))
    return in_memory(name, split, DIGITS, labels, np.ascontiguousarray(images.transpose(3, 2, 0, 1)))


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """X (32, 32, 3, n) uint8 and labels (n,). In the file, the digit 0 has label 10. No objects are created."""
    content = read(path, MOST_BYTES)
    if len(content) > MOST_BYTES:
        raise damaged(path, f"holds more than {MOST_BYTES} bytes", f"at most {MOST} images")
    try:
        arrays = matrices(content, ("X", "y"))
        images, numbers = arrays.get("X", NONE), arrays.get("y", NONE)
        count = images.shape[3] if len(images.shape) == 4 else 0
        if (
            (*images.shape[:3], images.kind) != (32, 32, 3, "uint8")
            or not 0 < count <= MOST
            or numbers.shape != (count, 1)
        ):
            raise damaged(
                path,
                f"holds X of {images.shape} ({images.kind}) and y of {numbers.shape}",
                "uint8 X of (32, 32, 3, n), y of (n, 1)",
            )
        if (size := images.nbytes) > affordable(path):
            raise damaged(path, f"unpacks to {size:,} bytes", f"at most {affordable(path):,} for its size")
        labels = numbers.values()[:, 0]
        if not np.isfinite(labels).all() or not ((labels >= 0) & (labels <= 10) & (labels == labels.round())).all():
            raise damaged(path, f"has labels from {labels.min()} to {labels.max()}", "whole numbers from 1 to 10")
        labels = labels.astype(np.int64)
        return images.values(), np.where(labels == 10, 0, np.where(labels == 0, 10, labels))
    except (ValueError, zlib.error) as error:
        raise damaged(path, f"cannot be read ({error})", "a MATLAB file of version 5") from error
