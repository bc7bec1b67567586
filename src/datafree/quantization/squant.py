"""Rounding of weights without images: SQuant (Guo et al. 2022).

Rounding each weight to the nearest level leaves sums of errors that add up in a layer's outputs. SQuant flips weights to the
other neighbouring level until the errors of every kernel, and then those of every output channel, add up to half a step or
less (the paper's eq. 8 to 10: `E`, `K` and `C`). It needs no images, no gradients and less than a second.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["squant"]


def squant(weight: Tensor, step: Tensor, high: int) -> Tensor:
    """The levels (O, I, ...) from -high to high of a conv or linear `weight` on the grid of `step` (O,) per output channel.

    A kernel is the weights (O, I) of one input channel; in a linear layer and a 1 x 1 convolution, it is one weight. Weights
    beyond the grid's ends stay there, and their errors do not count: the paper's grids cover all weights.
    """
    scaled = (weight.double() / step.double().view(-1, *[1] * (weight.ndim - 1))).flatten(2 if weight.ndim > 2 else 1)
    scaled = scaled if scaled.ndim == 3 else scaled[..., None]  # (O, I, K)
    levels = scaled.round().clamp(-high, high)
    error = torch.where(scaled.abs() > high, 0.0, levels - scaled)
    levels, error = _flipped(levels, error, scaled, high)
    levels = _channels_flipped(levels, error, scaled, high)
    return levels.reshape(weight.shape).to(weight.dtype)


def _flipped(levels: Tensor, error: Tensor, scaled: Tensor, high: int) -> tuple[Tensor, Tensor]:
    """Flips the weights with the largest errors until the errors of each kernel add up to half a step or less (alg. 2)."""
    total = error.sum(-1, keepdim=True)
    flips = _largest(error, total, _may_flip(levels, total.sign(), scaled, high)) * total.sign()
    return levels - flips, error - flips


def _channels_flipped(levels: Tensor, error: Tensor, scaled: Tensor, high: int) -> Tensor:
    """Flips one weight in some kernels until the errors of each output channel add up to half a step or less.

    That of a kernel is the one with the largest error, of the sign of the kernel's sum: no kernel's sum exceeds one step.
    """
    sums = error.sum(-1)
    sign = sums.sign()[..., None]
    candidates = torch.where((error * sign > 0) & _may_flip(levels, sign, scaled, high), error.abs(), -1.0)
    largest, index = candidates.max(-1)
    total = sums.sum(-1, keepdim=True)
    flips = _largest(largest * sign[..., 0], total, largest > 0) * total.sign()
    return levels - torch.zeros_like(levels).scatter_(-1, index[..., None], flips[..., None])


def _largest(error: Tensor, total: Tensor, allowed: Tensor) -> Tensor:
    """1 for as many of the largest errors (..., N) as `total` (..., 1) has steps, among those of its sign; else 0."""
    magnitude = torch.where(allowed & (error * total > 0), error.abs(), -1.0)
    rank = magnitude.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return ((rank < total.abs().round()) & (magnitude > 0)).to(error.dtype)


def _may_flip(levels: Tensor, sign: Tensor, scaled: Tensor, high: int) -> Tensor:
    """Whether a level may become `level - sign`: it stays on the grid, and within one step of the weight."""
    moved = levels - sign
    return (moved.abs() <= high) & ((moved - scaled).abs() < 1)
