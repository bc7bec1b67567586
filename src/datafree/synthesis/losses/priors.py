"""Losses on pixels alone: total variation, norm, smoothness."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ...models.network import Network
from . import Term, View

__all__ = ["PixelNorm", "Smoothness", "TotalVariation"]


@dataclass(frozen=True)
class _RangePrior(Term):
    """A term on pixels as shares of the range from `low` to `high`, which `bind` sets to the network's range."""

    low: float = 0.0
    high: float = 1.0

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> Self:  # noqa: ARG002
        return replace(self, low=network.spec.low, high=network.spec.high)

    def shares(self, view: View) -> Tensor:
        if (self.low, self.high) == (0, 1):
            return view.pixels  # the same tensor: a copy would change the order in which gradients are added
        return (view.pixels - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class TotalVariation(_RangePrior):
    """Mean squared difference of neighbouring pixels, summed over images; 0 for a constant image."""

    def __call__(self, view: View) -> Tensor:
        x = self.shares(view)
        rows, columns = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
        return (rows.square().sum() + columns.square().sum()) / x[0].numel()


@dataclass(frozen=True)
class PixelNorm(_RangePrior):
    """Mean squared pixel, measured from the low end of the range, summed over images."""

    def __call__(self, view: View) -> Tensor:
        return self.shares(view).square().sum() / view.pixels[0].numel()


@dataclass(frozen=True)
class Smoothness(_RangePrior):
    """Mean squared distance to the 3x3 blurred image, summed over images; 0 for a constant image."""

    def __call__(self, view: View) -> Tensor:
        x = self.shares(view)
        blurred = avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return (x - blurred).square().sum() / x[0].numel()
