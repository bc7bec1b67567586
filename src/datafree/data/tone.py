"""Contrast and brightness of generated drawings."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

__all__ = ["INK", "STROKES", "Ground", "between", "drawing", "expose"]


Ground = Literal["any", "dark", "bright"]


STROKES, INK = (0.7, 6.0), {"any": (-2.0, 2.0), "dark": (-2.0, 0.5), "bright": (-0.5, 2.0)}
"""Of drawings: contrast and brightness, in standard deviations of the map."""


def drawing(maps: Tensor, share: Tensor, ground: Ground) -> Tensor:
    """Maps (N, C, H, W) of mean 0 and variance 1, and numbers (N, 2, 1, 1, 1) uniform in [0, 1], to pixels in [0, 1]."""
    return expose(maps, between(STROKES, share[:, 0], log=True), between(INK[ground], share[:, 1]))


def expose(own: Tensor, contrast: Tensor, brightness: Tensor) -> Tensor:
    return torch.sigmoid(2 * contrast * (own + brightness))


def between(ends: tuple[float, float], share: Tensor, *, log: bool = False) -> Tensor:
    low, high = map(math.log, ends) if log else ends
    found = low + (high - low) * share
    return found.exp() if log else found
