"""Contrast and brightness of generated drawings."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["INK", "STROKES", "Ground", "between", "drawing", "expose"]


Ground = Literal["any", "dark", "bright"]


STROKES, INK = (0.7, 6.0), {"any": (-2.0, 2.0), "dark": (-2.0, 0.5), "bright": (-0.5, 2.0)}
"""Ranges of the contrast and, by background, the brightness of drawings, in standard deviations of the map."""


def drawing(maps: Tensor, share: Tensor, ground: Ground) -> Tensor:
    """Pixels in [0, 1] from maps (N, C, H, W) of mean 0 and variance 1 and uniform numbers (N, 2, 1, 1, 1)."""
    return expose(maps, between(STROKES, share[:, 0], log=True), between(INK[ground], share[:, 1]))


def expose(maps: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    return torch.sigmoid(2 * contrast * (maps + brightness))


def between(ends: tuple[float, float], share: Tensor, *, log: bool = False) -> Tensor:
    low, high = map(math.log, ends) if log else ends
    value = low + (high - low) * share
    return value.exp() if log else value
