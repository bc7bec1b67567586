"""The images of a generator over time: the file in its student's folder, and a PNG of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._core.errors import UserError
from . import numbers
from .images import SHOWN, grid_png
from .model import Grid, Timeline

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FILE", "timeline", "timeline_png", "write_generated"]

FILE = "generated.safetensors"
"""In a student's folder: `pixels` (T, n, C, H, W) uint8 of the same n latents in the T `epochs`."""
ROWS = 12
"""Maximum number of epochs."""
_MOST_EPOCHS, _MOST_BYTES, _MOST_SIDE, _MOST_CHANNELS = 10_000, 1 << 28, 2048, 16


def write_generated(path: Path, images: Mapping[int, Tensor]) -> None:
    """Writes generated images, uint8 (n, C, H, W) by epoch, as one file: the same latents throughout."""
    import torch

    from ..._core.files import write_tensors  # imports torch

    epochs = sorted(images)
    pixels = torch.stack([images[epoch] for epoch in epochs])
    write_tensors(path, {"pixels": pixels}, {"epochs": epochs}, kind="generated")


def timeline(folder: Path) -> Timeline | None:
    """The generator's images over time in `folder`, or None if it has none. Raises UserError for an invalid file.

    The file's header is checked before its data is read.
    """
    from ..._core.files import read_header, read_tensors  # imports torch

    path = folder / FILE
    if not path.is_file():
        return None
    table, header = read_header(path, kind="generated")
    _check(path, table, header)
    pixels = read_tensors(path, kind="generated", expect=table)[0]["pixels"].numpy()
    rows = _rows(len(pixels))
    return Timeline(folder.name, pixels[rows, :SHOWN], [header["epochs"][row] for row in rows], len(pixels))


def timeline_png(images: Timeline) -> bytes:
    """A PNG whose rows are epochs and whose columns are latents."""
    return grid_png(Grid(images.name, images.pixels[0], images.pixels[1:], 0, 255))


def _rows(count: int) -> list[int]:
    """At most ROWS evenly spaced indexes, including the first and the last."""
    if count <= ROWS:
        return list(range(count))
    return [round(row * (count - 1) / (ROWS - 1)) for row in range(ROWS)]


def _check(path: Path, table: Mapping[str, tuple[Any, tuple[int, ...]]], header: Mapping[str, Any]) -> None:
    def invalid(got: str, expected: str) -> UserError:
        return UserError(f"{path}: got {got}, expected {expected}; get the folder again, or remove that file")

    if table.keys() != {"pixels"}:
        raise invalid(f"{len(table)} tensors", "only pixels")
    dtype, shape = table["pixels"]
    if str(dtype) != "torch.uint8" or len(shape) != 5 or min(shape) < 1:
        raise invalid(f"pixels {shape} of {dtype}", "uint8 (epochs, images, C, H, W)")
    epochs, _, channels, *sides = shape
    if epochs > _MOST_EPOCHS or channels > _MOST_CHANNELS or max(sides) > _MOST_SIDE or math.prod(shape) > _MOST_BYTES:
        raise invalid(f"pixels {shape}", f"at most {_MOST_EPOCHS:,} epochs and {numbers.size(_MOST_BYTES)}")
    listed = header.get("epochs")
    if (
        not isinstance(listed, list)
        or len(listed) != epochs
        or any(type(epoch) is not int or epoch < 0 for epoch in listed)
    ):
        raise invalid("no list of epochs", f"{epochs} whole numbers, one per row of images")
