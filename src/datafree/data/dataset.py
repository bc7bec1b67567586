"""`Dataset`: labels in memory and a function that reads images, ``read(indices) -> uint8 (n, C, H, W)``."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.nn.functional import interpolate

from .._core.arguments import checked
from .._core.errors import UserError, unknown
from .stratified import choose

if TYPE_CHECKING:
    from ..models.input_spec import InputSpec

__all__ = ["Dataset", "check_labels", "check_split", "in_memory", "sha256"]

Indices: TypeAlias = Sequence[int] | np.ndarray | torch.Tensor
At: TypeAlias = Callable[[tuple[int, int, int]], Callable[[np.ndarray], np.ndarray]]

READ_BYTES = 1 << 25
"""Maximum number of bytes of images that are read at once."""
FLOATS = 1 << 23
"""Maximum number of values that are resized at once."""
MOST_VALUES = 1 << 24
"""Maximum number of values of an image, as for `InputSpec`."""
SMALL = 1 << 18
"""Number of pixels up to which an image is always decoded at full size."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey: ITU-R BT.601, as in Pillow's mode L."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one split. Raises UserError if there are none, or for a label outside the classes."""

    name: str  # as the user named it
    split: str  # "train" | "test", or another that the source has
    classes: tuple[str, ...]
    labels: torch.Tensor  # (N,) int64, CPU
    shape: tuple[int, int, int]  # (C, H, W) of the images from `read`
    read: Callable[[np.ndarray], np.ndarray]  # (n,) int64 indices -> uint8 (n, C, H, W), or float32 with `floats`
    at: At | None = None  # shape -> the same reader at another shape: large files are not decoded in full
    channels: tuple[int, ...] = ()  # numbers of channels of the files, if they differ
    low: float = 0.0  # range of the pixels from `pixels`
    high: float = 1.0
    as_channels: int | None = None  # channels of the pixels from `pixels`, if not those of `shape`
    notes: tuple[str, ...] = ()  # what the reader chose or left out, one line each
    floats: tuple[float, float] | None = None  # range of the values from `read`, if those are not bytes
    public: str = ""  # its name in files that may be shared; not a path

    def __post_init__(self) -> None:
        labels, subject = self.labels, f"data set {self.name!r}"
        if labels.dtype != torch.int64 or labels.ndim != 1 or labels.device.type != "cpu":
            got = f"{labels.dtype} {tuple(labels.shape)} on {labels.device}"
            raise UserError(f"labels of {subject} are {got}; expected torch.int64 (N,) on cpu; convert them")
        if len(labels) == 0:
            raise UserError(f"no image in split {self.split!r} of {subject}; expected at least one; check its files")
        check_labels(labels.numpy(), len(self.classes), subject)
        object.__setattr__(self, "channels", self.channels or (self.shape[0],))
        if not self.public:
            object.__setattr__(self, "public", "images" if re.search(r"[/\\]", self.name) else self.name)

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Indices, size: tuple[int, int] | None = None) -> torch.Tensor:
        """Images as float32 (n, C, H, W) in [low, high], resized to `size` (H, W) by antialiased bilinear
        interpolation.

        Works in small batches, so that only the result and a few images at file size are in memory. Raises UserError
        for an invalid size or too little memory, IndexError for invalid indices.
        """
        positions = _positions(indices, len(self))
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise UserError(f"size {tuple(size)} for images; expected (height, width) of at least 1; change it")
        height, width = size or self.shape[1:]
        pixels = self.empty(len(positions), (height, width))
        as_stored = self.floats == (self.low, self.high) and (height, width) == self.shape[1:] and not self.as_channels
        reader, shape = self._reader((height, width))
        step = max(1, READ_BYTES // math.prod(shape))
        for start in range(0, len(positions), step):
            images = torch.from_numpy(reader(positions[start : start + step]))
            batch = max(1, FLOATS // math.prod(shape))
            for offset in range(0, len(images), batch):
                part = images[offset : offset + batch]
                if not as_stored:
                    part = self._in_range(resized(self._unit(part), (height, width)))
                pixels[start + offset : start + offset + len(part)] = part
        return pixels

    def empty(self, count: int, size: tuple[int, int]) -> torch.Tensor:
        """An uninitialised tensor (count, C, *size). Raises UserError if there is too little memory."""
        from .._core.memory import available

        shape = (self.as_channels or self.shape[0], *size)
        needed, free = 4 * count * math.prod(shape), available()
        if count and (math.prod(shape) > MOST_VALUES or (free is not None and needed > free)):
            raise UserError(
                f"{count} images of {' x '.join(map(str, shape))} of data set {self.name!r} need {needed:,} bytes; "
                f"expected at most {MOST_VALUES:,} values per image and the {free or 0:,} bytes of free memory; give a "
                "smaller size, or fewer images"
            )
        return torch.empty(count, *shape)

    def scaled_to(self, spec: InputSpec) -> Dataset:
        """The same images with pixels in the spec's range, and in grey or RGB as in the spec if the files have both."""
        channels = spec.shape[0] if spec.shape[0] in self.channels and spec.shape[0] != self.shape[0] else None
        if (self.low, self.high, self.as_channels) == (spec.low, spec.high, channels):
            return self
        return dataclasses.replace(self, low=spec.low, high=spec.high, as_channels=channels)

    def relabelled(self, positions: Sequence[int], classes: Sequence[str]) -> Dataset:
        """The same images, where class c is class `positions[c]` of `classes`."""
        if tuple(classes) == self.classes and list(positions) == list(range(len(self.classes))):
            return self
        labels = torch.tensor(positions, dtype=torch.int64)[self.labels]
        return dataclasses.replace(self, labels=labels, classes=tuple(classes))

    def _reader(self, size: tuple[int, int]) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int, int, int]]:
        """A reader and the shape that it reads: 1/2, 1/4 or 1/8 of the full size if that is still four times `size`."""
        c, h, w = self.shape
        shrink = next((k for k in (8, 4, 2) if h >= 4 * k * size[0] and w >= 4 * k * size[1]), 1)
        if self.at is None or shrink == 1 or h * w < SMALL:
            return self.read, self.shape
        shape = (c, -(-h // shrink), -(-w // shrink))
        return self.at(shape), shape

    def _unit(self, values: torch.Tensor) -> torch.Tensor:
        """Values of `read` as pixels in [0, 1]."""
        if self.floats is None:
            return values.float().div_(255)
        low, high = self.floats
        return (values - low).div_(high - low).clamp_(0, 1)

    def _in_range(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scales pixels from [0, 1] to [low, high] and converts them to `as_channels`."""
        if self.as_channels == 1:
            weights = pixels.new_tensor(LUMA).view(1, 3, 1, 1)
            pixels = (pixels * weights).sum(1, keepdim=True).clamp_(0, 1)
        elif self.as_channels is not None:
            pixels = pixels.expand(-1, self.as_channels, -1, -1)
        if (self.low, self.high) == (0, 1):
            return pixels
        low, high = pixels.new_tensor(self.low), pixels.new_tensor(self.high)
        return torch.lerp(low, high, pixels).clamp_(self.low, self.high)  # lerp is exact at both ends

    @checked
    def subset(self, count: int | None, seed: int = 0) -> Dataset:
        """`count` of the images in their order; each class keeps its share to within one image. None returns all."""
        if count is None:
            return self
        if not 1 <= count <= len(self):
            subject = f"split {self.split!r} of data set {self.name!r}"
            raise UserError(f"a subset of {count} images of {subject}; expected 1 to {len(self)}; change the count")
        chosen = choose(self.labels.numpy(), count, seed)
        reader, reader_at = partial(_read_chosen, self.read, chosen), self.at and partial(_at_chosen, self.at, chosen)
        return dataclasses.replace(self, labels=self.labels[torch.from_numpy(chosen)], read=reader, at=reader_at)


def in_memory(
    name: str, split: str, classes: Sequence[str], labels: np.ndarray, images: np.ndarray, notes: tuple[str, ...] = ()
) -> Dataset:
    """A Dataset of arrays: images uint8 (N, C, H, W), labels integers (N,). Raises UserError for other lengths."""
    if len(labels) != len(images):
        subject = f"split {split!r} of data set {name!r}"
        raise UserError(
            f"{len(labels)} labels for {len(images)} images in {subject}; expected one per image; check its files"
        )
    c, h, w = images.shape[1:]
    return Dataset(
        name, split, tuple(classes), torch.from_numpy(labels.astype(np.int64)), (c, h, w), partial(_rows, images),
        notes=notes,
    )  # fmt: skip


def check_labels(labels: np.ndarray, classes: int, subject: str) -> None:
    """Raises UserError with the first label outside 0 to `classes` - 1."""
    invalid = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(invalid):
        got = f"label {labels[invalid[0]]} of image {invalid[0]}"
        raise UserError(f"{got} in {subject}; expected 0 to {classes - 1}; correct the labels")


def check_split(name: str, split: str, splits: Sequence[str] = ("train", "test")) -> None:
    """Raises UserError if data set `name` has no `split`."""
    if split not in splits:
        raise unknown("split", split, splits, where=f"data set {name!r}")


def sha256(dataset: Dataset) -> str:
    """SHA-256 (hex) of shape, labels and all images; computed once per Dataset object.

    MNIST (47 MB) takes 0.1 s; the images of a folder are decoded again.
    """
    if dataset not in _DIGESTS:
        digest = hashlib.sha256(repr((len(dataset), dataset.shape)).encode())
        digest.update(dataset.labels.numpy().astype("<i8").tobytes())
        step = max(1, READ_BYTES // math.prod(dataset.shape))
        for start in range(0, len(dataset), step):
            images = dataset.read(np.arange(start, min(start + step, len(dataset))))
            digest.update(np.ascontiguousarray(images).tobytes())
        _DIGESTS[dataset] = digest.hexdigest()
    return _DIGESTS[dataset]


_DIGESTS: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()


def _positions(indices: Indices, total: int) -> np.ndarray:
    positions = np.asarray(indices)
    if positions.size == 0:
        return np.zeros(0, np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise IndexError(f"indices are {positions.dtype} {positions.shape}; expected integers (n,)")
    if positions.min() < 0 or positions.max() >= total:
        raise IndexError(f"indices from {positions.min()} to {positions.max()}; expected 0 to {total - 1}")
    return positions.astype(np.int64)


def resized(pixels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Pixels (n, C, H, W) in [0, 1], resized to `size` (H, W) by antialiased bilinear interpolation."""
    if tuple(pixels.shape[2:]) == size:
        return pixels
    # clamp, because the weights sum to 1 only up to rounding
    return interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False).clamp_(0, 1)


# Named functions with functools.partial instead of lambdas, so that spawned workers can unpickle a Dataset.
def _rows(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return images[indices]


def _read_chosen(reader: Callable[[np.ndarray], np.ndarray], chosen: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return reader(chosen[indices])


def _at_chosen(reader_at: At, chosen: np.ndarray, shape: tuple[int, int, int]) -> Callable[[np.ndarray], np.ndarray]:
    return partial(_read_chosen, reader_at(shape), chosen)
