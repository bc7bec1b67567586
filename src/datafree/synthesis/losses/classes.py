"""What the teacher should say of an image: the wanted class, confidently, all classes alike."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from . import Term, View

__all__ = ["ClassBalance", "WantedClass", "WantedLogit"]


@dataclass(frozen=True)
class WantedClass(Term):
    """Cross-entropy of the teacher's prediction against the wanted class, in nats, summed over images."""

    def __call__(self, view: View) -> Tensor:
        return cross_entropy(view.logits.float(), view.labels, reduction="sum")


@dataclass(frozen=True)
class WantedLogit(Term):
    """Minus the logit of the wanted class, summed over images; without a lower bound, so beside a prior."""

    def __call__(self, view: View) -> Tensor:
        return -view.logits.float().gather(1, view.labels[:, None]).sum()


@dataclass(frozen=True)
class ClassBalance(Term):
    """Negative entropy of the batch's mean prediction, in nats, times its size; lowest when classes are equal."""

    def __call__(self, view: View) -> Tensor:
        mean = view.logits.float().softmax(1).mean(0)
        return (mean * mean.clamp(min=1e-12).log()).sum() * len(view.pixels)
