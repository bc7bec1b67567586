"""Alignment as a loss: pulls generated images towards a few anchor images (Binici et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..._core.arguments import check_fields
from ...models.hooks import FEATURES
from ...models.network import Network
from . import Term, View
from .alignment import Guide

__all__ = ["AlignmentLoss"]


@dataclass(frozen=True)
class AlignmentLoss(Term):
    """The guide's loss on the penultimate features, summed over images; `learn` is one step of the guide on them.

    All terms that `bind` returns share one guide: binding draws a new random stream but does not reset the guide.
    """

    guide: Guide
    classes: Literal["target", "predicted"] = "target"
    """An image's class: its target, or the teacher's prediction for images of a generator without target classes."""
    rng: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_fields(self, "classes")

    @property
    def taps(self) -> tuple[str, ...]:
        return (FEATURES,)

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> AlignmentLoss:  # noqa: ARG002
        stream = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
        return replace(self, rng=stream)

    def __call__(self, view: View) -> Tensor:
        features, labels, rng = self._inputs(view)
        with torch.autocast(features.device.type, enabled=False):
            return self.guide.loss(features, labels, rng)

    def learn(self, view: View) -> None:
        features, labels, rng = self._inputs(view)
        with torch.autocast(features.device.type, enabled=False):
            self.guide.learn(features.detach(), labels, rng)

    def _inputs(self, view: View) -> tuple[Tensor, Tensor, torch.Generator]:
        if self.rng is None:
            raise ValueError("AlignmentLoss is not bound to a batch; call bind first")
        labels = view.labels if self.classes == "target" else view.logits.detach().argmax(1)
        return view.activations[FEATURES].float().flatten(1), labels, self.rng
