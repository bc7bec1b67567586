"""Losses on the teacher's predictions: target class, target logit, class balance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from . import Term, View

__all__ = ["ClassBalance", "TargetClass", "TargetLogit"]


@dataclass(frozen=True)
class TargetClass(Term):
    """Cross-entropy of the teacher's prediction against the target class, in nats, summed over images."""

    def __call__(self, view: View) -> Tensor:
        return cross_entropy(view.logits.float(), view.labels, reduction="sum")


@dataclass(frozen=True)
class TargetLogit(Term):
    """Negative logit of the target class, summed over images. Unbounded below: use it with a prior."""

    def __call__(self, view: View) -> Tensor:
        return -view.logits.float().gather(1, view.labels[:, None]).sum()


@dataclass(frozen=True)
class ClassBalance(Term):
    """Negative entropy of the batch's mean prediction, in nats, times the batch size; lowest for equal classes."""

    def __call__(self, view: View) -> Tensor:
        mean = view.logits.float().softmax(1).mean(0)
        return (mean * mean.clamp(min=1e-12).log()).sum() * len(view.pixels)
