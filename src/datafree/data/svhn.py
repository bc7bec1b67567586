"""Street View House Numbers (Netzer et al. 2011), cropped digits, from its MATLAB files."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from datafree.data.dataset import Dataset, check_labels, check_split, in_memory
from datafree.data.files import affordable, damaged, find, locate, read
from datafree.data.mnist import DIGITS

__all__ = ["svhn"]

MOST = 100_000
MOST_BYTES = MOST * (3 * 32 * 32 + 8)
BROKEN = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, EOFError, zlib.error)
"""What scipy's reader raises for bytes that are no MATLAB file, or a part of one."""


def svhn(name: str, split: str, folder: Path | None) -> Dataset:
    """Digits of house numbers, 73,257 to train and 26,032 to test, 32x32 colour, from SVHN."""
    check_split(name, split)
    file = f"{split}_32x32.mat"
    path = find(locate(name, folder, "SVHN", [file]), file)
    images, labels = _arrays(path)
    check_labels(labels, 10, repr(str(path)))
    return in_memory(name, split, DIGITS, labels, np.ascontiguousarray(images.transpose(3, 2, 0, 1)))


def _arrays(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """X (32, 32, 3, n) uint8, and the labels (n,): the digit 0 has label 10 in the file. No object in it is made."""
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    content = read(path, MOST_BYTES)
    if len(content) > MOST_BYTES:
        raise damaged(path, f"holds more than {MOST_BYTES} bytes", f"at most {MOST} images")
    try:
        held = {own: (shape, kind) for own, shape, kind in whosmat(io.BytesIO(content))}
        shape, kind = held.get("X", ((), "none"))
        count = shape[3] if len(shape) == 4 else 0
        numbers = held.get("y", ((), "none"))
        if shape[:3] != (32, 32, 3) or kind != "uint8" or not 0 < count <= MOST or numbers[0] != (count, 1):
            raise damaged(
                path, f"holds X of {shape} ({kind}) and y of {numbers[0]}", "uint8 X of (32, 32, 3, n), y of (n, 1)"
            )
        if (unpacked := count * 3 * 32 * 32) > affordable(path):
            raise damaged(path, f"unpacks to {unpacked:,} bytes", f"at most {affordable(path):,} for its size")
        found: dict[str, Any] = loadmat(io.BytesIO(content), variable_names=("X", "y"))
        labels = np.asarray(found["y"], dtype=np.int64)[:, 0]
        return found["X"], np.where(labels == 10, 0, np.where(labels == 0, 10, labels))
    except (*BROKEN, MatReadError) as error:
        raise damaged(path, f"cannot be read ({error})", "a MATLAB file of version 5") from error
