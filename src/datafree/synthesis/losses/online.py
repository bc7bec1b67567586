"""Losses of a generator in online distillation: disagreement of teacher and student, the teacher's confidence,
features.

T and S are the logits of teacher and student.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from ..._core.arguments import check_fields
from ...models.hooks import FEATURES
from . import Term, View

__all__ = ["ConfidenceLoss", "Disagreement", "FeatureNorm", "jensen_shannon"]

Kind = Literal["js", "l1", "kl"]


def jensen_shannon(teacher: Tensor, student: Tensor, t: float = 1.0) -> Tensor:
    """JS(softmax(T / t), softmax(S / t)) per image (N,), in nats, between 0 and ln 2. Logits are (N, classes).

    Computed in log space: log of the mean is logaddexp(log p, log q) - ln 2. No probability is clamped, so the gradient
    does not vanish for any number of classes and any confidence.
    """
    p, q = log_softmax(teacher / t, 1), log_softmax(student / t, 1)
    mean = torch.logaddexp(p, q) - torch.log(p.new_tensor(2.0))
    return 0.5 * ((p.exp() * (p - mean)).sum(1) + (q.exp() * (q - mean)).sum(1)).clamp(min=0)


@dataclass(frozen=True)
class Disagreement(Term):
    """Negative distance of teacher and student, summed over images: minimising it finds images the student gets wrong.

    `js`: Jensen-Shannon divergence at `temperature` (Binici et al. 2022); `l1`: mean absolute difference of logits
    (Fang et al. 2019, DFAD); `kl`: KL(teacher || student) at `temperature`. 0 without a student.
    """

    kind: Kind = "js"
    temperature: float = 3.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, view: View) -> Tensor:
        if view.student is None:
            return view.logits.float().sum() * 0
        teacher, student, t = view.logits.float(), view.student.float(), self.temperature
        if self.kind == "l1":
            return -(teacher - student).abs().mean(1).sum()
        if self.kind == "kl":
            p, q = log_softmax(teacher / t, 1), log_softmax(student / t, 1)
            return -(p.exp() * (p - q)).sum()
        return -jensen_shannon(teacher, student, t).sum()


@dataclass(frozen=True)
class ConfidenceLoss(Term):
    """Cross-entropy of the teacher's prediction against its argmax, in nats, summed over images (Chen et al. 2019)."""

    def __call__(self, view: View) -> Tensor:
        logits = view.logits.float()
        return cross_entropy(logits, logits.argmax(1).detach(), reduction="sum")


@dataclass(frozen=True)
class FeatureNorm(Term):
    """Negative mean absolute penultimate feature, summed over images (Chen et al. 2019, DAFL)."""

    @property
    def taps(self) -> tuple[str, ...]:
        return (FEATURES,)

    def __call__(self, view: View) -> Tensor:
        return -view.activations[FEATURES].float().abs().flatten(1).mean(1).sum()
