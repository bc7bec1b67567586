"""What an image is like without looking at the network: smooth, small, within its box."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from . import Term, View

__all__ = ["Box", "PixelNorm", "Smoothness", "TotalVariation"]


@dataclass(frozen=True)
class TotalVariation(Term):
    """Mean squared difference of neighbouring pixels, summed over images; 0 for a constant image."""

    def __call__(self, view: View) -> Tensor:
        x = view.pixels
        down, right = x[:, :, 1:] - x[:, :, :-1], x[:, :, :, 1:] - x[:, :, :, :-1]
        return (down.square().sum() + right.square().sum()) / x[0].numel()


@dataclass(frozen=True)
class PixelNorm(Term):
    """Mean square of the pixels, summed over images."""

    def __call__(self, view: View) -> Tensor:
        return view.pixels.square().sum() / view.pixels[0].numel()


@dataclass(frozen=True)
class Smoothness(Term):
    """Mean squared distance to the 3x3 blurred image, summed over images; 0 for a constant image."""

    def __call__(self, view: View) -> Tensor:
        x = view.pixels
        blurred = avg_pool2d(pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        return (x - blurred).square().sum() / x[0].numel()


@dataclass(frozen=True)
class Box(Term):
    """Mean squared distance of pixels outside [low, high] to it, summed over images."""

    low: float = 0.0
    high: float = 1.0

    def __call__(self, view: View) -> Tensor:
        x = view.pixels
        return (x - x.clamp(self.low, self.high)).square().sum() / x[0].numel()
