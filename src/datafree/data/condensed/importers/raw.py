"""What a reader gives: numbers as they stand in the file, and what the format itself says of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...._core import memory
from ...._core.errors import UserError

__all__ = ["UNWHITENED", "Options", "Raw", "check_room"]

UNWHITENED = "images_zca_"
"""How MTT names, despite the name, the files of images that came out of the inverse of ZCA."""


@dataclass(frozen=True)
class Options:
    """What a format leaves open."""

    entry: int = -1
    """Of a list of sets, which."""
    zca: bool = False
    """Whether the set was learnt under ZCA whitening, so that an un-whitened file is needed."""
    layout: str | None = None
    """NHWC or NCHW, where a shape fits both."""
    resize: bool = False
    """Whether images may be brought to the network's size."""


@dataclass(frozen=True, eq=False)
class Raw:
    """Images (N, C, H, W) in some pixel convention; labels (N,) of class numbers or (N, classes)."""

    images: Tensor
    labels: Tensor
    format: str
    files: tuple[Path, ...]
    pixels: str | None = None
    """The convention, where the format fixes it."""
    classes: tuple[str, ...] | None = None
    """Names, where the format has them."""
    notes: tuple[str, ...] = ()
    """What was chosen on the way, to be said."""


def check_room(numbers: int, what: str) -> None:
    """Raises UserError where so many float32 numbers do not fit in memory three times."""
    needed, there = 12 * numbers, memory.available()
    if there is not None and needed > there:
        raise UserError(
            f"{what} needs {needed:,} bytes, wanted at most the {there:,} of memory here; give a part of it"
        )
