"""A `Dataset` is labels in memory and a function that reads images: ``read(indices) -> uint8 (n, C, H, W)``."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch.nn.functional import interpolate

from datafree.data.strata import choose
from datafree.errors import UserError, unknown

__all__ = ["Dataset", "check_labels", "check_split", "in_memory", "sha256"]

Indices: TypeAlias = Sequence[int] | np.ndarray | torch.Tensor


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one split. Raises UserError where there are none or a label names no class."""

    name: str  # as the user named it
    split: str  # "train" | "test", or another that the source has
    classes: tuple[str, ...]
    labels: torch.Tensor  # (N,) int64, CPU
    shape: tuple[int, int, int]  # (C, H, W) of what `read` gives
    read: Callable[[np.ndarray], np.ndarray]  # (n,) int64 indices -> uint8 (n, C, H, W)

    def __post_init__(self) -> None:
        labels, where = self.labels, f"data set {self.name!r}"
        if labels.dtype != torch.int64 or labels.ndim != 1 or labels.device.type != "cpu":
            got = f"{labels.dtype} {tuple(labels.shape)} on {labels.device}"
            raise UserError(f"labels of {where} are {got}; wanted torch.int64 (N,) on cpu; convert them")
        if len(labels) == 0:
            raise UserError(f"no image in split {self.split!r} of {where}; wanted at least one; check its files")
        check_labels(labels.numpy(), len(self.classes), where)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Indices, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Images as float32 in [0, 1], (n, C, H, W); resized to `size` (H, W) if it differs, bilinear, antialiased."""
        pixels = torch.from_numpy(self.read(_positions(indices, len(self)))).float().div_(255)  # (n, C, H, W)
        if size is None or tuple(size) == self.shape[1:]:
            return pixels
        if len(size) != 2 or min(size) < 1:
            raise UserError(f"size {tuple(size)} for images; wanted (height, width) of at least 1; change it")
        if len(pixels) == 0:
            return pixels.new_empty(0, self.shape[0], *size)
        # clamp: the weights sum to 1 only up to rounding
        return interpolate(pixels, tuple(size), mode="bilinear", antialias=True, align_corners=False).clamp_(0, 1)

    def subset(self, count: int | None, seed: int = 0) -> Dataset:
        """`count` of the images, in their order; each class keeps its share to within one image. None gives all."""
        if count is None:
            return self
        if not 1 <= count <= len(self):
            where = f"split {self.split!r} of data set {self.name!r}"
            raise UserError(f"a subset of {count} images of {where}; wanted 1 to {len(self)}; change the count")
        chosen = choose(self.labels.numpy(), count, seed)
        read = partial(_read_chosen, self.read, chosen)
        return dataclasses.replace(self, labels=self.labels[torch.from_numpy(chosen)], read=read)


def in_memory(name: str, split: str, classes: Sequence[str], labels: np.ndarray, images: np.ndarray) -> Dataset:
    """A Dataset of arrays: images uint8 (N, C, H, W), labels any integers (N,)."""
    if len(labels) != len(images):
        where = f"split {split!r} of data set {name!r}"
        raise UserError(f"{len(labels)} labels for {len(images)} images in {where}; wanted as many; check its files")
    c, h, w = images.shape[1:]
    return Dataset(
        name, split, tuple(classes), torch.from_numpy(labels.astype(np.int64)), (c, h, w), partial(_rows, images)
    )


def check_labels(labels: np.ndarray, classes: int, where: str) -> None:
    """Raises UserError that names the first label outside 0 to `classes` - 1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        got = f"label {labels[wrong[0]]} of image {wrong[0]}"
        raise UserError(f"{got} in {where}; wanted 0 to {classes - 1}; correct the labels")


def check_split(name: str, split: str, splits: Sequence[str] = ("train", "test")) -> None:
    """Raises UserError where data set `name` has no `split`."""
    if split not in splits:
        raise unknown("split", split, splits, where=f"data set {name!r}")


def sha256(dataset: Dataset) -> str:
    """Hex SHA-256 of shape, labels and images, to tell data sets apart in run.json.

    All labels, but at most 1000 images, evenly spaced from the first to the last: another image may differ unseen.
    """
    digest = hashlib.sha256(repr((len(dataset), dataset.shape)).encode())
    digest.update(dataset.labels.numpy().astype("<i8").tobytes())
    seen = np.linspace(0, len(dataset) - 1, min(len(dataset), 1000)).round().astype(np.int64)
    for start in range(0, len(seen), 100):  # a hundred at a time, since images may be large
        digest.update(np.ascontiguousarray(dataset.read(seen[start : start + 100])).tobytes())
    return digest.hexdigest()


def _positions(indices: Indices, total: int) -> np.ndarray:
    positions = np.asarray(indices)
    if positions.size == 0:
        return np.zeros(0, np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise IndexError(f"indices are {positions.dtype} {positions.shape}; wanted integers (n,)")
    if positions.min() < 0 or positions.max() >= total:
        raise IndexError(f"indices from {positions.min()} to {positions.max()}; wanted 0 to {total - 1}")
    return positions.astype(np.int64)


# Named functions under functools.partial, not lambdas: a Dataset can be pickled, for workers that are spawned.
def _rows(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return images[indices]


def _read_chosen(read: Callable[[np.ndarray], np.ndarray], chosen: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return read(chosen[indices])
