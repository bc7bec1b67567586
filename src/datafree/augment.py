"""Images as networks are shown them in training: moved on a black ground, mirrored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

__all__ = ["mirrored", "shifted"]


def shifted(pixels: Tensor, most: int, rng: torch.Generator, ground: float = 0.0) -> Tensor:
    """Each image (N, C, H, W) moved by up to `most` pixels each way, on `ground`: a random crop of the padded image."""
    if not most:
        return pixels
    count, channels, height, width = pixels.shape
    moves = torch.randint(0, 2 * most + 1, (2, count), generator=rng)
    rows = (torch.arange(height) + moves[0][:, None])[:, None, :, None]
    columns = (torch.arange(width) + moves[1][:, None])[:, None, None, :]
    wide = pad(pixels, (most,) * 4, value=ground)
    return wide[torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns]


def mirrored(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Each image left to right, or not, as a coin says."""
    return torch.where(torch.rand(len(pixels), 1, 1, 1, generator=rng) < 0.5, pixels.flip(3), pixels)
