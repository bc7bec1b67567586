"""Divergence of a batch's statistics from those stored in the batch norms (Haroush et al. 2020)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._core.arguments import check_fields
from ...models.hooks import Reduction
from ...records.divergence import Form, StoredStatistics, by_channel, divergence, reduction
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
    earlier: tuple[tuple[Tensor, Tensor], ...] | None = None
    """Mean minus stored mean (C,), and variance (C,), of earlier batches, one pair per layer: then a running mean over
    batches is compared, with the whole gradient of this one, so that no single batch must have all statistics."""
    momentum: float = 0.9
    """Share of the earlier batches in the running mean."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(layer.tap for layer in self.layers)

    @property
    def reductions(self) -> dict[str, Reduction]:
        counts = Counter(self.taps)  # several statistics of one layer have means of their own
        return {layer.tap: reduction(layer.mean) for layer in self.layers if counts[layer.tap] == 1}

    def __call__(self, view: View) -> Tensor:
        divergences = [
            self._divergence(layer, *pair) for layer, pair in zip(self.layers, self.running(view), strict=True)
        ]
        return torch.stack(divergences).sum() * len(view.pixels)

    def running(self, view: View) -> tuple[tuple[Tensor, Tensor], ...]:
        """The pairs that are compared: of this batch, or running means with those of the earlier ones."""
        pairs = []
        for number, layer in enumerate(self.layers):
            if layer.tap in view.reduced:
                parts = zip(*view.reduced[layer.tap], strict=True)
                pair = tuple(part[0] if len(part) == 1 else torch.stack(part).mean(0) for part in parts)
            else:
                activation = view.activations[layer.tap]
                pair = by_channel(activation, layer.mean.to(activation.device), layer.calls)
            if self.earlier is not None:
                pair = tuple(
                    _blended(new, old, self.momentum) for new, old in zip(pair, self.earlier[number], strict=True)
                )
            pairs.append(pair)
        return tuple(pairs)

    def _divergence(self, layer: StoredStatistics, mean_difference: Tensor, variance: Tensor) -> Tensor:
        if self.form == "l2":
            variance_difference = variance - layer.variance.to(variance)
            return torch.linalg.vector_norm(mean_difference) + torch.linalg.vector_norm(variance_difference)
        return divergence(mean_difference, variance, layer, self.form).sum()


def _blended(new: Tensor, old: Tensor, momentum: float) -> Tensor:
    """Running mean of `old` and `new`, with the gradient of `new` alone."""
    return old.lerp(new.detach(), 1 - momentum) + (new - new.detach())
