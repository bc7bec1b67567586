"""Divergence of a batch's statistics from those stored in the batch norms (Haroush et al. 2020)."""

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
    """Divergence of the batch's statistics from the stored ones, summed over channels and layers, times the batch size.

    `l2` is the loss of ZeroQ and DeepInversion (Yin et al. 2020, eq. 4): |m - mu| + |s^2 - sigma^2| per layer, not
    squared.
    """

    layers: tuple[StoredStatistics, ...]
    form: Form = "forward"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(layer.tap for layer in self.layers)

    def __call__(self, view: View) -> Tensor:
        return torch.stack([self._divergence(layer, view.activations[layer.tap]) for layer in self.layers]).sum() * len(
            view.pixels
        )

    def _divergence(self, layer: StoredStatistics, activation: Tensor) -> Tensor:
        mean_difference, variance = by_channel(activation, layer.mean.to(activation.device), layer.calls)
        if self.form == "l2":
            variance_difference = variance - layer.variance.to(variance)
            return torch.linalg.vector_norm(mean_difference) + torch.linalg.vector_norm(variance_difference)
        return divergence(mean_difference, variance, layer, self.form).sum()
