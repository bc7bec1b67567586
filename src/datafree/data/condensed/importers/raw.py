"""The result of a reader: the file's numbers, and what its format says about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...._core import memory
from ...._core.errors import UserError

__all__ = ["UNWHITENED", "Options", "Raw", "check_room"]

UNWHITENED = "images_zca_"
"""MTT's prefix for files of images after inverse ZCA, that is, un-whitened."""


@dataclass(frozen=True)
class Options:
    """Choices that the format does not determine."""

    entry: int = -1
    """Index in a list of sets."""
    zca: bool = False
    """Whether the set was made with ZCA whitening, so that an un-whitened file is needed."""
    layout: str | None = None
    """NHWC or NCHW, if a shape fits both."""
    resize: bool = False
    """Whether images may be resized to the network's size."""


@dataclass(frozen=True, eq=False)
class Raw:
    """Images (N, C, H, W) in some pixel convention; labels (N,) as class numbers or (N, classes)."""

    images: Tensor
    labels: Tensor
    format: str
    files: tuple[Path, ...]
    pixels: str | None = None
    """The pixel convention, if the format defines it."""
    classes: tuple[str, ...] | None = None
    """Class names, if the format has them."""
    notes: tuple[str, ...] = ()
    """Choices of the reader, to be reported."""


def check_room(numbers: int, subject: str) -> None:
    """Raises UserError if `numbers` float32 values do not fit in free memory three times."""
    needed, free = 12 * numbers, memory.available()
    if free is not None and needed > free:
        raise UserError(
            f"{subject} needs {needed:,} bytes, expected at most the {free:,} of free memory; give a part of it"
        )
