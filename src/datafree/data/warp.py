"""Small random warps of images: rotation, shift, scale, shear and a smooth elastic field."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from .._core.settings import Settings

__all__ = ["Warp", "warp"]

TOGETHER = 32


class Warp(Settings):
    """How far images are bent, at most; 0 leaves them."""

    degrees: float
    shift: float
    """Random shift, at most, as a share of the larger side."""
    scale: float
    """Random change of the logarithm of the size, at most."""
    shear: float
    elastic: float
    """Standard deviation of a smooth 6x6 displacement field, as a share of the larger side."""


def warp(images: Tensor, how: Warp, rng: torch.Generator, together: int = TOGETHER) -> Tensor:
    """Images (N, C, H, W) bent; 32 neighbours share a warp, which costs one sampling grid instead of 32.

    A last group of fewer is filled up with the first image, and what it became is dropped.
    """
    count, channels, height, width = images.shape
    groups = -(-count // together)
    images = torch.cat([images, images[:1].expand(groups * together - count, -1, -1, -1)])
    grid = affine_grid(_affine(groups, how, rng, height, width), [groups, 1, height, width], align_corners=False)
    if how.elastic:
        field = torch.randn(groups, 2, 6, 6, generator=rng) * (2 * how.elastic)
        field = field * field.new_tensor(_stretch(height, width)).view(1, 2, 1, 1)
        grid = grid + interpolate(field, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    packed = images.reshape(groups, together * channels, height, width)
    bent = grid_sample(packed, grid.to(packed), mode="bilinear", padding_mode="border", align_corners=False)
    return bent.reshape(-1, channels, height, width)[:count]


def _affine(groups: int, how: Warp, rng: torch.Generator, height: int, width: int) -> Tensor:
    """(groups, 2, 3) matrices, each parameter uniform in +- its bound; -1 to 1 is a whole side, long or short."""

    def draw(bound: float) -> Tensor:
        return (torch.rand(groups, generator=rng) * 2 - 1) * bound

    angle, size, shear = draw(math.radians(how.degrees)), draw(how.scale).exp(), draw(how.shear)
    cos, sin = angle.cos() / size, angle.sin() / size
    across, down = draw(2 * how.shift), draw(2 * how.shift)
    wide, high = _stretch(height, width)
    upper = [cos, (-sin + shear * cos) * (wide / high), across * wide]
    lower = [sin * (high / wide), cos + shear * sin, down * high]
    return torch.stack([*upper, *lower], 1).reshape(groups, 2, 3)


def _stretch(height: int, width: int) -> tuple[float, float]:
    """How often width and height go into the larger side."""
    larger = max(height, width)
    return larger / width, larger / height
