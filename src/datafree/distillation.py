"""Distillation: a student learns the teacher's softened outputs (Hinton et al. 2015), on synthetic or on real images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .arguments import checked
from .errors import UserError
from .fit import Curve, fit
from .images import Source
from .losses import kl
from .network import Network
from .progress import Progress, silent
from .schedule import Distillation
from .spec import InputSpec

__all__ = ["Distillation", "check_student", "distill", "resolved", "temperature_of"]


def temperature_of(logits: torch.Tensor) -> float:
    """The temperature at which centred logits (N, classes) have a standard deviation of 2, between 1 and 64."""
    spread = float((logits - logits.mean(1, keepdim=True)).std())
    return min(64.0, max(1.0, round(spread / 2, 2)))


@checked
def distill(
    teacher: Network,
    student: Network,
    source: Source,
    settings: Distillation,
    *,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    progress: Progress = silent,
) -> Curve:
    """Trains `student` in place on `source`, whose targets are the teacher's logits; the last epoch is kept.

    Raises UserError where student and teacher differ in classes or input.
    """
    check_student(student, teacher, source.spec)
    t = resolved(settings, source, seed=seed).temperature
    assert t is not None

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if settings.loss == "kl":
            return kl(logits, targets, t)
        apart = (logits - logits.mean(1, keepdim=True)) - (targets - targets.mean(1, keepdim=True))
        return apart.square().mean()

    options: dict[str, Any] = {"seed": seed, "state": state, "identity": identity, "score": score}
    return fit(student, source, loss, settings, progress=progress, **options)


def check_student(student: Network, teacher: Network, spec: InputSpec) -> None:
    """Raises UserError where the student has other classes than the teacher, or does not take images of `spec`."""
    if len(student.spec.classes) != len(teacher.spec.classes) or student.spec.shape != spec.shape:
        raise UserError(
            f"student {student.name} takes {student.spec.shape} into {len(student.spec.classes)} classes, teacher "
            f"{teacher.name} {teacher.spec.shape} into {len(teacher.spec.classes)}; give a student like its teacher"
        )


def resolved(settings: Distillation, source: Source, *, seed: int = 0) -> Distillation:
    """The settings with the temperature that will be used, chosen from 1,024 of the source's logits where none was given."""
    if settings.temperature is not None:
        return settings
    _, logits = next(iter(source.epoch(seed, 0, 1024)))
    return settings.model_copy(update={"temperature": temperature_of(logits)})
