"""MNIST and Fashion-MNIST from their idx files. Format: http://yann.lecun.com/exdb/mnist (LeCun et al. 1998)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .dataset import Dataset, check_labels, check_split, in_memory
from .find_files import damaged, find, locate, read

__all__ = ["fashion_mnist", "mnist"]

DIGITS = tuple(str(digit) for digit in range(10))
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
MOST_BYTES = 1 << 30  # maximum size in a header: twenty times MNIST


def mnist(name: str, split: str, folder: Path | None) -> Dataset:
    """Handwritten digits, 60,000 training and 10,000 test images, 28x28, from MNIST/raw."""
    return _load(name, split, locate_in=(folder, "MNIST/raw"), classes=DIGITS)


def fashion_mnist(name: str, split: str, folder: Path | None) -> Dataset:
    """Articles of clothing (Xiao et al. 2017), 60,000 training and 10,000 test images, 28x28, from FashionMNIST/raw."""
    return _load(name, split, locate_in=(folder, "FashionMNIST/raw"), classes=CLOTHES)


def _load(name: str, split: str, *, locate_in: tuple[Path | None, str], classes: tuple[str, ...]) -> Dataset:
    check_split(name, split)
    stem = {"train": "train", "test": "t10k"}[split]
    files = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    place = locate(name, *locate_in, files)
    images = _idx(find(place, files[0]), dimensions=3)  # (N, H, W)
    labels = _idx(find(place, files[1]), dimensions=1)
    check_labels(labels, len(classes), repr(str(find(place, files[1]))))
    return in_memory(name, split, classes, labels, images[:, None])


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an idx file: bytes 0, 0, 8, number of dimensions, each dimension in 4 bytes, then values."""
    start = 4 + 4 * dimensions
    header = read(path, start - 1)
    magic = bytes([0, 0, 8, dimensions])
    if header[:4] != magic:
        raise damaged(
            path, f"starts with 0x{header[:4].hex()}", f"0x{magic.hex()}, an idx file of {dimensions}-D bytes"
        )
    if len(header) < start:
        raise damaged(path, f"ends after {len(header)} bytes", f"a header of {start}")
    shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
    expected = math.prod(shape)
    if 0 in shape[1:] or expected > MOST_BYTES:
        raise damaged(path, f"claims the shape {shape}", f"1 to {MOST_BYTES} bytes")
    content = read(path, start + expected)
    if len(content) != start + expected:
        got = "more" if len(content) > start + expected else str(len(content) - start)
        raise damaged(path, f"holds {got} bytes of values", f"{expected} for its shape {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
