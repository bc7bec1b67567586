"""The images of a generator over time, as a file beside its student and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._core.errors import UserError
from . import numbers
from .images import SHOWN, grid_png
from .model import Grid, Timeline

__all__ = ["FILE", "timeline", "timeline_png"]

FILE = "generated.safetensors"
"""Beside a student: `pixels` (T, n, C, H, W) uint8, the same n latents in T epochs, whose numbers are in `epochs`."""
ROWS = 12
"""Epochs shown at most."""
_MOST_EPOCHS, _MOST_BYTES, _MOST_SIDE, _MOST_CHANNELS = 10_000, 1 << 28, 2048, 16


def timeline(folder: Path) -> Timeline | None:
    """The generator's images over time in `folder`, None where it has none. Raises UserError for a file that is off.

    What the file says of itself is checked before any of its data is read.
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


def timeline_png(found: Timeline) -> bytes:
    """Rows are epochs, columns latents."""
    return grid_png(Grid(found.name, found.pixels[0], found.pixels[1:], 0, 255))


def _rows(count: int) -> list[int]:
    """At most ROWS of them, the first and the last too, as far apart as can be."""
    if count <= ROWS:
        return list(range(count))
    return [round(row * (count - 1) / (ROWS - 1)) for row in range(ROWS)]


def _check(path: Path, table: Mapping[str, tuple[Any, tuple[int, ...]]], header: Mapping[str, Any]) -> None:
    def off(got: str, wanted: str) -> UserError:
        return UserError(f"{path} has {got}, wanted {wanted}; get the folder again, or remove that file")

    if table.keys() != {"pixels"}:
        raise off(f"{len(table)} tensors", "pixels alone")
    dtype, shape = table["pixels"]
    if str(dtype) != "torch.uint8" or len(shape) != 5 or min(shape) < 1:
        raise off(f"pixels {shape} of {dtype}", "uint8 (epochs, images, C, H, W)")
    epochs, _, channels, *sides = shape
    if epochs > _MOST_EPOCHS or channels > _MOST_CHANNELS or max(sides) > _MOST_SIDE or math.prod(shape) > _MOST_BYTES:
        raise off(f"pixels {shape}", f"at most {_MOST_EPOCHS:,} epochs and {numbers.size(_MOST_BYTES)}")
    told = header.get("epochs")
    if not isinstance(told, list) or len(told) != epochs or any(type(own) is not int or own < 0 for own in told):
        raise off("no list of epochs", f"{epochs} whole numbers, one for each row of images")
