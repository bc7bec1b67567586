"""Images whose activations have the statistics that the network's batch norms stored (Haroush et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._core.arguments import check_fields
from ...records.divergence import Form, StoredStatistics, by_channel, divergence
from . import Term, View

__all__ = ["BatchNormDivergence"]


@dataclass(frozen=True)
class BatchNormDivergence(Term):
    """Divergence of the whole batch's statistics from the stored ones, summed over channels and layers; times its size.

    `l2` is ZeroQ's and DeepInversion's (Yin et al. 2020, eq. 4): |m - mu| + |s^2 - sigma^2| of each layer, not squared.
    """

    layers: tuple[StoredStatistics, ...]
    form: Form = "forward"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(own.tap for own in self.layers)

    def __call__(self, view: View) -> Tensor:
        return torch.stack([self._one(own, view.activations[own.tap]) for own in self.layers]).sum() * len(view.pixels)

    def _one(self, own: StoredStatistics, activation: Tensor) -> Tensor:
        apart, variance = by_channel(activation, own.mean.to(activation.device), own.calls)
        if self.form == "l2":
            spread = variance - own.variance.to(variance)
            return torch.linalg.vector_norm(apart) + torch.linalg.vector_norm(spread)
        return divergence(apart, variance, own, self.form).sum()
