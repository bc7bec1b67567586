"""Class-conditional maximum mean discrepancy of generated images and anchors (Gretton et al. 2012)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ....data.augmentation import Augmentation
from ....models.network import Network
from .anchors import Anchors, FeatureMatching

__all__ = ["Mmd", "mmd_distance"]

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Kernel widths, as multiples of the median squared distance (our choice)."""


class Mmd(Augmentation):
    """Gaussian kernels of several widths: matches mean, spread and shape of each class."""

    alignment: Literal["mmd"] = "mmd"

    summary: ClassVar[str] = "matches each class's distribution of features by Gaussian kernels (Gretton et al. 2012)"
    guidance: ClassVar[float] = 10.0

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> FeatureMatching:
        return FeatureMatching(Anchors(teacher, pixels, labels, self, seed), mmd_distance)


def mmd_distance(generated: Tensor, anchors: Tensor, labels: Tensor) -> Tensor:
    """MMD^2 of each class by the biased estimator, which is 0 at equality (Gretton et al. 2012, eq. 5), summed.

    Features are (N, F), labels (N,). The kernel is the mean of exp(-d^2 / (w m)) over the `WIDTHS` w; m is the median
    squared distance over all images and anchors of all classes, so distant images widen the kernel and still get a
    gradient.
    """
    features = torch.cat([generated, anchors])
    squares = _squares(features)
    median = _median(squares.detach())
    kernel = torch.stack([(-squares / (width * median)).exp() for width in WIDTHS]).mean(0)
    same_class = (labels[:, None] == labels).to(features)
    weight = same_class / same_class.sum(
        1, keepdim=True
    )  # 1 / n for a pair in a class of n: n times the MMD^2 of that class
    return (kernel * torch.cat([torch.cat([weight, -weight], 1), torch.cat([-weight, weight], 1)])).sum()


def _squares(x: Tensor) -> Tensor:
    """Squared distances (N, N) of the rows of x (N, F); up to rounding, 0 for equal rows."""
    norms = x.square().sum(1)
    return (norms[:, None] + norms - 2 * x @ x.T).clamp(min=0)


def _median(squares: Tensor) -> Tensor:
    """Median over pairs with a distance above 0; 1 if there are none."""
    positive = squares[squares > 1e-6 * squares.amax()]
    return positive.median() if len(positive) else squares.new_ones(())
