"""Reads the images of a torch Dataset one by one, checks them, and compares them with earlier reads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from .._core.errors import UserError, cut
from ..models.input_spec import InputSpec
from .image_checks import as_stored, digests_of, images_at_once

__all__ = ["Items", "as_tensor", "class_names_of"]

PLAIN = (torch.uint8, torch.float32)


@dataclass(eq=False)
class Items:
    """A reader of a torch Dataset's images that compares each with its earlier read."""

    source: Any
    spec: InputSpec
    name: str
    shape: tuple[int, int, int] = (0, 0, 0)
    is_float: bool = False
    as_bytes: bool = True
    digests: np.ndarray | None = None
    stored: np.ndarray | None = None
    """All images, where they were small enough to be kept in memory."""

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        return self.stored[indices] if self.stored is not None else self.read_again(indices)

    def read_again(self, indices: np.ndarray) -> np.ndarray:
        """The images from their source. Raises UserError for one that is not as it was."""
        images = np.empty((len(indices), *self.shape), np.uint8 if self.as_bytes else np.float32)
        step = images_at_once(self.shape)
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            images[start : start + len(part)] = self._read(part)
        return images

    def _read(self, indices: np.ndarray) -> np.ndarray:
        images = torch.stack([self._checked(self.image(int(index)), int(index)) for index in indices])
        for index, digest in zip(indices, digests_of(images)):
            if self.digests is not None and digest != self.digests[index]:
                raise UserError(
                    f"{self.name}: image {int(index):,} changes each time it is read, expected the same pixels; "
                    "leave out random augmentation (flips, crops, noise), which would change what is measured"
                )
        return as_stored(images, self.spec, self.as_bytes)

    def chunks(self, labels: np.ndarray | None) -> Iterator[Tensor]:
        """All images in chunks; writes their labels to `labels`."""
        count, step = len(self.source), images_at_once(self.shape)
        for start in range(0, count, step):
            images = []
            for index in range(start, min(start + step, count)):
                image, label = self.item(index, labels is not None)
                images.append(self._checked(image, index))
                if labels is not None:
                    labels[index] = label
            yield torch.stack(images)

    def item(self, index: int, labelled: bool) -> tuple[Tensor, int]:
        """An image (C, H, W) and its label; 0 if not `labelled`."""
        try:
            item = self.source[index]
        except IndexError:
            raise UserError(
                f"{self.name}: got a Dataset of {len(self.source):,} items without item {index:,}, expected as many as its "
                "length; correct its __len__"
            ) from None
        pair = isinstance(item, (tuple, list)) and len(item) == 2
        if labelled and not pair:
            got = f"a tuple of {len(item)}" if isinstance(item, (tuple, list)) else f"a {type(item).__name__}"
            raise UserError(
                f"{self.name}: item {index:,} is {got}, expected a pair (image, label); give a Dataset of such"
            )
        image = item[0] if isinstance(item, (tuple, list)) and len(item) else item
        return self._pixels(image, index), self._label(item[1], index) if labelled else 0

    def image(self, index: int) -> Tensor:
        return self.item(index, False)[0]

    def _checked(self, image: Tensor, index: int) -> Tensor:
        """The image. Raises UserError unless shape and number format are those of the first one."""
        if tuple(image.shape) != self.shape:
            raise UserError(
                f"{self.name}: item {index:,} has the shape {tuple(image.shape)}, the first one {self.shape}; resize all to "
                f"{self.spec.shape[1:]} first"
            )
        if image.is_floating_point() != self.is_float:
            raise UserError(
                f"{self.name}: item {index:,} is {image.dtype}, the first one of another kind; give all as bytes or all as "
                "floats"
            )
        return image

    def _pixels(self, image: Any, index: int) -> Tensor:
        subject = f"{self.name}: item {index:,}"
        if type(image).__module__.partition(".")[0] == "PIL":
            return _from_pil(image, self.spec.shape[0], subject)
        if not isinstance(image, (Tensor, np.ndarray)):
            raise UserError(
                f"{subject} has a {type(image).__name__} for an image, expected a tensor, an array or a PIL image; add a "
                "transform that makes one"
            )
        tensor = as_tensor(image, subject).detach().cpu()
        if tensor.shape == self.spec.shape and tensor.dtype in PLAIN and tensor.layout == torch.strided:
            return tensor
        if tensor.ndim == 2 and (1, *tensor.shape) == self.spec.shape:
            raise UserError(
                f"{subject} has the shape {tuple(tensor.shape)}, expected {self.spec.shape} (channels, height, width); "
                "add the dimension of the channel, with [None]"
            )
        try:
            self.spec.check_form(tensor[None], stored=True)
        except UserError as error:
            text = str(error).replace(".permute(0, 3, 1, 2)", ".permute(2, 0, 1)").replace("[:, None]", "[None]")
            raise UserError(f"{subject}: {text}") from None
        return tensor if tensor.dtype == torch.uint8 else tensor.float()

    def _label(self, label: Any, index: int) -> int:
        subject, classes = f"{self.name}: item {index:,}", len(self.spec.classes)
        value = label
        if isinstance(value, (Tensor, np.ndarray)):
            if math.prod(value.shape) == classes and classes > 1:
                raise UserError(
                    f"{subject} has a label of shape {tuple(value.shape)}, one-hot or probabilities, expected a class "
                    "number; give .argmax()"
                )
            if math.prod(value.shape) == 1:
                value = value.reshape(-1)[0].item() if not isinstance(value, np.ndarray) else value.reshape(-1)[0]
        if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
            got = cut(repr(value)) if isinstance(value, (str, float, bool)) or value is None else type(value).__name__
            raise UserError(
                f"{subject} has the label {got}, expected a whole number from 0 to {classes - 1}; give class numbers"
            )
        if not 0 <= int(value) < 1 << 32:
            raise UserError(
                f"{subject} has the label {cut(str(value))}, expected 0 to {classes - 1}; correct the labels, or leave out "
                "images without a class"
            )
        return int(value)


def _from_pil(image: Any, channels: int, subject: str) -> Tensor:
    """A PIL image as bytes (C, H, W). Raises UserError for a mode that would lose information."""
    modes = {1: ("L", "1"), 3: ("RGB", "L", "1", "P")}.get(channels, ())
    if image.mode not in modes or "transparency" in image.info:
        kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
        got = f"{image.mode} with transparency" if "transparency" in image.info else image.mode
        raise UserError(
            f"{subject} is a PIL image of mode {got}, expected {kind}, as the network takes it; convert it with "
            f".convert({'L' if channels == 1 else 'RGB'!r}) first"
        )
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1).contiguous()


def as_tensor(value: Any, subject: str) -> Tensor:
    """A tensor or array as a tensor, which shares its memory if possible."""
    if isinstance(value, Tensor):
        return value
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise UserError(f"{subject}: got an array of {value.dtype}, expected numbers; give float32 or uint8 images")
    native = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about read-only arrays, which are not written to here
        return torch.from_numpy(native)


def class_names_of(source: Any) -> tuple[str, ...] | None:
    """The class names in `classes`, as in torchvision's data sets; for a Subset, those of its dataset."""
    while isinstance(source, Subset):
        source = source.dataset
    names = getattr(source, "classes", None)
    if isinstance(names, (list, tuple)) and len(names) > 1 and all(isinstance(entry, str) for entry in names):
        return tuple(names)
    return None
