"""Differentiable siamese augmentation (Zhao & Bilen 2021, DSA): drawn once, applied to several batches."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

__all__ = ["KINDS", "draw"]

KINDS = ("colour", "move", "cutout", "scale", "rotate", "mirror")
Augmentation = Callable[[Tensor], Tensor]


def draw(kinds: tuple[str, ...], rng: torch.Generator) -> Augmentation:
    """One of `kinds` with a random strength: a function that changes all images (N, C, H, W) in [0, 1] in the same way.

    Strengths as in DSA: brightness +- 0.5, saturation 0 to 2, contrast 0.5 to 1.5, shifts by 1/8, a hole of half the
    side, scales from 1/1.2 to 1.2 per axis, 15 degrees. Pixels from outside the image are black.
    """
    if not kinds:
        return lambda images: images
    kind = kinds[int(torch.randint(len(kinds), (), generator=rng))]
    u, v, w = torch.rand(3, generator=rng).tolist()
    if kind == "colour":
        return lambda images: _colour(images, u, v, w)
    if kind == "cutout":
        return lambda images: images * _hole(images, u, v)
    if kind == "mirror":
        return lambda images: images.flip(3) if u < 0.5 else images
    return lambda images: _warped(images, _matrix(kind, u, v, images.shape[2] / images.shape[3]))


def _colour(images: Tensor, u: float, v: float, w: float) -> Tensor:
    images = images + (u - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * v)  # grey images do not change
    level = images.mean((1, 2, 3), keepdim=True)
    return level + (images - level) * (w + 0.5)


def _hole(images: Tensor, u: float, v: float) -> Tensor:
    """Mask (H, W): 0 in a rectangle of half each side with a random centre, else 1."""
    height, width = images.shape[2:]
    rows = (torch.arange(height, device=images.device) - u * (height - 1)).abs() < height / 4
    columns = (torch.arange(width, device=images.device) - v * (width - 1)).abs() < width / 4
    return (~(rows[:, None] & columns)).float()


def _matrix(kind: str, u: float, v: float, tall: float = 1.0) -> list[list[float]]:
    """Affine map from output to input points (x, y) in [-1, 1], for images `tall` times as high as wide."""
    if kind == "scale":
        return [[1.2 ** (2 * u - 1), 0, 0], [0, 1.2 ** (2 * v - 1), 0]]
    if kind == "move":
        return [[1, 0, 0.25 * (2 * u - 1)], [0, 1, 0.25 * (2 * v - 1)]]
    angle = math.radians(15) * (2 * u - 1)
    return [[math.cos(angle), -math.sin(angle) * tall, 0], [math.sin(angle) / tall, math.cos(angle), 0]]


def _warped(images: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = images.new_tensor(matrix)[None]
    grid = affine_grid(theta, [1, *images.shape[1:]], align_corners=False)
    packed = images.reshape(1, -1, *images.shape[2:])  # images become channels, to share one grid
    return grid_sample(packed, grid, align_corners=False).reshape(images.shape)
