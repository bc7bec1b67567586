"""Images of a source by class, the mean and a few random ones, as one PNG."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from ..._core.errors import UserError
from .model import Grid
from .numbers import share

if TYPE_CHECKING:
    from torch import Tensor

    from ...models.input_spec import InputSpec

__all__ = ["GAP", "SHOWN", "blank", "caption", "grid_of", "grid_png"]

SHOWN = 20
"""Maximum number of classes."""
GAP = 2
"""Number of transparent pixels between two cells."""
_TILE = 64
"""Small images are enlarged up to this side, in pixels."""
_LARGEST = 96
"""Large images are reduced to at most this side, in pixels."""
_KEY = 127
"""Grey level that means transparent; image pixels of this level are raised by 1."""


def grid_of(
    name: str, pixels: Tensor, labels: Tensor, classes: int, *,
    seed: int = 0, samples: int = 3, spec: InputSpec, note: str = "",
) -> Grid:  # fmt: skip
    """Mean and `samples` random images of each class. Pixels are (N, C, H, W), labels (N,) whole numbers.

    Images with NaN or infinity are omitted and counted in the note. Raises UserError for images or labels that do not
    fit.
    """
    import torch

    from ..._core.seeds import stream

    _check_batch(pixels, labels, classes, spec.shape)
    pixels, labels = pixels.detach().cpu().float(), labels.detach().cpu()
    finite = pixels.flatten(1).isfinite().all(1)
    if not bool(finite.all()):
        omitted = f"{int((~finite).sum()):,} of {len(finite):,} images are omitted because they are not finite"
        note = f"{note}; {omitted}" if note else omitted
        pixels, labels = pixels[finite], labels[finite]
    means = torch.full((classes, *spec.shape), torch.nan)
    random = torch.full((samples, classes, *spec.shape), torch.nan)
    for k in range(classes):
        rows = torch.nonzero(labels == k).flatten()
        if len(rows):
            means[k] = pixels[rows].mean(0, dtype=torch.float64)
            chosen = rows[torch.randperm(len(rows), generator=stream(seed, "grid", k))[:samples]]
            random[: len(chosen), k] = pixels[chosen]
    clipped = _outside(pixels.numpy(), spec.low, spec.high)
    return Grid(name, means.numpy(), random.numpy(), spec.low, spec.high, note, clipped)


def grid_png(grid: Grid, scale: int | None = None) -> bytes:
    """A PNG with a row of class means and a row per random sample, for at most SHOWN classes.

    Pixels outside [low, high] are clipped. With `scale` s, pixel (y, x) of row r and class k starts at
    ``(r * (H * s + GAP) + GAP // 2 + y * s, k * (W * s + GAP) + GAP // 2 + x * s)``. Grey images make a 1-channel PNG.
    """
    from PIL import Image

    cells = _cells(grid)
    levels = np.clip((cells - grid.low) / (grid.high - grid.low), 0, 1) * 255
    empty = ~np.isfinite(levels).all((2, 3, 4))
    levels[empty] = 0
    rgb = _resized(np.round(levels).astype(np.uint8).transpose(0, 1, 3, 4, 2), scale)
    rgb[(rgb == _KEY).all(-1)] += 1
    rgb[empty] = _KEY
    half = GAP // 2
    padded = np.pad(rgb, ((0, 0), (0, 0), (half, half), (half, half), (0, 0)), constant_values=_KEY)
    rows, classes, height, width, channels = padded.shape
    page = padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, classes * width, channels)
    grey = channels == 1
    stream = io.BytesIO()
    image = Image.fromarray(page[..., 0] if grey else page)
    image.save(stream, "PNG", optimize=True, transparency=_KEY if grey else (_KEY,) * 3)
    return stream.getvalue()


def blank(grid: Grid) -> list[int]:
    """The displayed classes without an image."""
    return [k for k, mean in enumerate(grid.means[:SHOWN]) if not np.isfinite(mean).all()]


def caption(grid: Grid) -> str:
    """The note, with a remark about clipped pixels and merged channels."""
    parts = [grid.note] if grid.note else []
    clipped = _outside(_displayed(grid), grid.low, grid.high) if grid.clipped is None else grid.clipped
    if clipped:
        subject = "displayed pixels" if grid.clipped is None else "pixels"
        parts.append(f"{share(clipped)} of the {subject} lie outside [{grid.low:g}, {grid.high:g}] and are clipped")
    if grid.means.shape[1] not in (1, 3):
        parts.append(f"grey is the mean of {grid.means.shape[1]} channels")
    return "; ".join(parts)


def _check_batch(pixels: Tensor, labels: Tensor, classes: int, shape: tuple[int, int, int]) -> None:
    if tuple(pixels.shape[1:]) != shape:
        raise UserError(
            f"images: got shape {tuple(pixels.shape[1:])}, expected {shape}; give images of the network's shape"
        )
    if labels.ndim != 1 or len(labels) != len(pixels) or labels.is_floating_point():
        raise UserError(
            f"labels: got {tuple(labels.shape)} of {labels.dtype} for {len(pixels)} images, expected one whole number "
            "per image; give class numbers"
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise UserError(
            f"labels: got {int(labels.min())} to {int(labels.max())}, expected 0 to {classes - 1}; give class numbers"
        )


def _displayed(grid: Grid) -> np.ndarray:
    """Means and samples (R + 1, K, C, H, W) with K at most SHOWN. Raises UserError if their shapes do not fit."""
    if grid.means.ndim != 4 or grid.samples.ndim != 5 or grid.samples.shape[1:] != grid.means.shape:
        raise UserError(
            f"grid {grid.name!r}: got means {grid.means.shape} and samples {grid.samples.shape}, expected (K, C, H, W) "
            "and (R, K, C, H, W); make it with grid_of"
        )
    if not grid.low < grid.high:
        raise UserError(
            f"grid {grid.name!r}: got low {grid.low:g} and high {grid.high:g}, expected low below high; swap them"
        )
    return np.concatenate([grid.means[None, :SHOWN], grid.samples[:, :SHOWN]]).astype(np.float64)


def _cells(grid: Grid) -> np.ndarray:
    cells = _displayed(grid)
    return cells if cells.shape[2] in (1, 3) else cells.mean(2, keepdims=True)


def _outside(values: np.ndarray, low: float, high: float) -> float:
    """The share of the finite values below low or above high."""
    finite = int(np.isfinite(values).sum())
    return int(((values < low - 1e-6) | (values > high + 1e-6)).sum()) / finite if finite else 0.0


def _resized(cells: np.ndarray, scale: int | None) -> np.ndarray:
    """Cells (R, K, H, W, C) of uint8, enlarged without smoothing. Without `scale`, large images are averaged down."""
    side = max(cells.shape[2:4])
    if scale is None and side > _LARGEST:
        return _reduced(cells, -(-side // _LARGEST))
    scale = max(1, _TILE // side) if scale is None else scale
    if scale < 1:
        raise UserError(f"scale: got {scale}, expected at least 1; give 1 or more")
    return cells.repeat(scale, 2).repeat(scale, 3)


def _reduced(cells: np.ndarray, step: int) -> np.ndarray:
    """Means over blocks of step x step, including incomplete blocks at the edges."""
    sums = cells.astype(np.float64)
    for axis in (2, 3):
        starts = np.arange(0, cells.shape[axis], step)
        sizes = np.diff(np.append(starts, cells.shape[axis]))
        sums = np.add.reduceat(sums, starts, axis) / np.expand_dims(sizes, [i for i in range(5) if i != axis])
    return np.round(sums).astype(np.uint8)
