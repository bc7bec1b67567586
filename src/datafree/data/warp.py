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
    """Maximum strength of each warp; 0 for none."""

    degrees: float
    shift: float
    """Maximum random shift, as a share of the larger side."""
    scale: float
    """Maximum random change of the logarithm of the size."""
    shear: float
    elastic: float
    """Standard deviation of a smooth 6x6 displacement field, as a share of the larger side."""


def warp(images: Tensor, strengths: Warp, rng: torch.Generator, together: int = TOGETHER) -> Tensor:
    """Warps images (N, C, H, W). Groups of `together` images share a warp, and so a sampling grid.

    An incomplete last group is padded with the first image.
    """
    count, channels, height, width = images.shape
    groups = -(-count // together)
    images = torch.cat([images, images[:1].expand(groups * together - count, -1, -1, -1)])
    grid = affine_grid(_affine(groups, strengths, rng, height, width), [groups, 1, height, width], align_corners=False)
    if strengths.elastic:
        field = torch.randn(groups, 2, 6, 6, generator=rng) * (2 * strengths.elastic)
        field = field * field.new_tensor(_stretch(height, width)).view(1, 2, 1, 1)
        grid = grid + interpolate(field, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)
    packed = images.reshape(groups, together * channels, height, width)
    warped = grid_sample(packed, grid.to(packed), mode="bilinear", padding_mode="border", align_corners=False)
    return warped.reshape(-1, channels, height, width)[:count]


def _affine(groups: int, strengths: Warp, rng: torch.Generator, height: int, width: int) -> Tensor:
    """Matrices (groups, 2, 3) with parameters uniform in +- their bound; each side spans -1 to 1."""

    def draw(bound: float) -> Tensor:
        return (torch.rand(groups, generator=rng) * 2 - 1) * bound

    angle, size, shear = draw(math.radians(strengths.degrees)), draw(strengths.scale).exp(), draw(strengths.shear)
    cos, sin = angle.cos() / size, angle.sin() / size
    across, down = draw(2 * strengths.shift), draw(2 * strengths.shift)
    wide, high = _stretch(height, width)
    upper = [cos, (-sin + shear * cos) * (wide / high), across * wide]
    lower = [sin * (high / wide), cos + shear * sin, down * high]
    return torch.stack([*upper, *lower], 1).reshape(groups, 2, 3)


def _stretch(height: int, width: int) -> tuple[float, float]:
    """The larger side relative to width and height."""
    larger = max(height, width)
    return larger / width, larger / height
