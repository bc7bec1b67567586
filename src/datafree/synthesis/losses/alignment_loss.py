"""A guide as a term: made images are pulled to a few anchors (Binici et al. 2024)."""

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
    """The guide's loss on the penultimate features, summed over images; `learn` is the guide's own step on the same ones.

    The guide is shared by all that `bind` returns: binding draws a stream of random numbers, it does not begin again.
    """

    guide: Guide
    meant: Literal["wanted", "seen"] = "wanted"
    """An image's class: the one it is made for, or, of a generator that is told none, the one that the teacher sees."""
    rng: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_fields(self, "meant")

    @property
    def taps(self) -> tuple[str, ...]:
        return (FEATURES,)

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> AlignmentLoss:  # noqa: ARG002
        own = torch.Generator().manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
        return replace(self, rng=own)

    def __call__(self, view: View) -> Tensor:
        features, labels, rng = self._of(view)
        with torch.autocast(features.device.type, enabled=False):
            return self.guide.loss(features, labels, rng)

    def learn(self, view: View) -> None:
        features, labels, rng = self._of(view)
        with torch.autocast(features.device.type, enabled=False):
            self.guide.learn(features.detach(), labels, rng)

    def _of(self, view: View) -> tuple[Tensor, Tensor, torch.Generator]:
        if self.rng is None:
            raise ValueError("Aligned has no random numbers yet; call bind first")
        labels = view.labels if self.meant == "wanted" else view.logits.detach().argmax(1)
        return view.activations[FEATURES].float().flatten(1), labels, self.rng
