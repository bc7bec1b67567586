"""Made images are where the anchors are, by class-conditional maximum mean discrepancy (Gretton et al. 2012)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ....data.augmentation import Augmentation
from ....models.network import Network
from .anchors import Anchors, FeatureMatching

__all__ = ["Mmd", "mmd_distance"]

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the kernels, as multiples of the median squared distance (our choice)."""


class Mmd(Augmentation):
    """Gaussian kernels of several widths: means, spread and shape of each class."""

    alignment: Literal["mmd"] = "mmd"

    summary: ClassVar[str] = "no kernel tells made images from the anchors of their class (Gretton et al. 2012)"
    guidance: ClassVar[float] = 10.0

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> FeatureMatching:
        return FeatureMatching(Anchors(teacher, pixels, labels, self, seed), mmd_distance)


def mmd_distance(made: Tensor, anchors: Tensor, labels: Tensor) -> Tensor:
    """MMD^2 of each class, the biased estimator, which is 0 at equality (Gretton et al. 2012, eq. 5); summed over images.

    The kernel is the mean of exp(-d^2 / (w m)) over `WIDTHS` w, m the median squared distance of all the images, made ones
    and anchors, whatever their class: made images that are far away widen it, and feel it.
    """
    both = torch.cat([made, anchors])
    squares = _squares(both)
    median = _median(squares.detach())
    kernel = torch.stack([(-squares / (width * median)).exp() for width in WIDTHS]).mean(0)
    same = (labels[:, None] == labels).to(both)
    weight = same / same.sum(1, keepdim=True)  # of a pair in one class of n, 1 / n: n times MMD^2 of that class
    return (kernel * torch.cat([torch.cat([weight, -weight], 1), torch.cat([-weight, weight], 1)])).sum()


def _squares(x: Tensor) -> Tensor:
    """Squared distances (N, N) of the rows of x (N, F); 0 up to rounding where two rows are one."""
    norms = x.square().sum(1)
    return (norms[:, None] + norms - 2 * x @ x.T).clamp(min=0)


def _median(squares: Tensor) -> Tensor:
    """Of the pairs that are apart; 1 where none are."""
    apart = squares[squares > 1e-6 * squares.amax()]
    return apart.median() if len(apart) else squares.new_ones(())
