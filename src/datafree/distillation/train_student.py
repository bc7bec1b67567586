"""Trains a student on its teacher's softened outputs (Hinton et al. 2015), on the images of a source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .._core.arguments import checked
from .._core.errors import UserError
from .._core.progress import Progress, silent
from ..models.class_names import check_order, moved
from ..models.input_spec import InputSpec
from ..models.network import Network
from .kl import kl
from .schedule import Distillation
from .sources import Source, StoredImages
from .training_loop import Curve, fit

__all__ = ["check_student", "resolved", "temperature_of", "train_student"]


ROUNDED = 0.01
"""Temperatures that are chosen are multiples of it."""


def temperature_of(logits: torch.Tensor) -> float:
    """The temperature at which centred logits (N, classes) have a standard deviation of 2, between 1 and 64."""
    spread = float((logits - logits.mean(1, keepdim=True)).std())
    return min(64.0, max(1.0, round(spread / 2, 2)))  # ROUNDED


@checked
def train_student(
    teacher: Network,
    student: Network,
    source: Source,
    settings: Distillation,
    *,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    on_epoch: Callable[[Network, Curve], None] | None = None,
    replaces: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> Curve:
    """Trains `student` in place on `source`, whose targets are the teacher's logits; it ends with the last epoch's weights.

    `distill` calls this after choosing student and source. With a `state` path, everything is saved there after each epoch,
    and a call with the same `identity` continues from it; a state whose identity is `replaces` is written over. `on_epoch`
    is called with the student and the curve after every epoch. Raises UserError if student and teacher differ in classes or
    input.
    """
    check_student(student, teacher, source.spec)
    _check_source(source, teacher)
    teacher.check()
    student.check()
    t = resolved(settings, source, seed=seed).temperature
    assert t is not None

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if settings.loss == "kl":
            return kl(logits, targets, t)
        difference = (logits - logits.mean(1, keepdim=True)) - (targets - targets.mean(1, keepdim=True))
        return difference.square().mean()

    options: dict[str, Any] = {
        "seed": seed, "state": state, "identity": identity, "score": score, "on_epoch": on_epoch, "replaces": replaces,
    }  # fmt: skip
    return fit(student, source, loss, settings, progress=progress, **options)


def check_student(student: Network, teacher: Network, spec: InputSpec) -> None:
    """Raises UserError if the student is the teacher itself, takes other images, has another number of classes, or has one
    of the teacher's classes at another position. Names that the teacher does not have are accepted.
    """
    if len(student.spec.classes) != len(teacher.spec.classes) or student.spec.shape != spec.shape:
        images = f", and the images are {spec.shape}" if spec.shape != teacher.spec.shape else ""
        raise UserError(
            f"student {student.name} takes {student.spec.shape} into {len(student.spec.classes)} classes, teacher "
            f"{teacher.name} {teacher.spec.shape} into {len(teacher.spec.classes)}{images}; give a student like its teacher"
        )
    if student.module is teacher.module:
        raise UserError(
            f"student: got the teacher {teacher.name} itself, expected another network, because it is trained in place; "
            "give a new one"
        )
    if (student.spec.low, student.spec.high) != (spec.low, spec.high):
        raise UserError(
            f"student {student.name} takes pixels from {student.spec.low:g} to {student.spec.high:g}, the images go from "
            f"{spec.low:g} to {spec.high:g}; give a student like its teacher"
        )
    check_order(spec.classes, teacher.spec.classes, "the images", teacher.name, advice="have this teacher label them")
    classes, teacher_classes = student.spec.classes, teacher.spec.classes
    if (place := moved(classes, teacher_classes)) is not None:
        raise UserError(
            f"class {place} of student {student.name} is {classes[place]!r}, teacher {teacher.name} has "
            f"{teacher_classes[place]!r} there, and {classes[place]!r} at another place; give a student like its teacher"
        )


def _check_source(source: Source, teacher: Network) -> None:
    """Raises UserError for images with class numbers, and for a source with logits of another teacher."""
    if isinstance(source, StoredImages) and source.targets.ndim == 1:
        raise UserError(
            f"source: got images with class numbers, expected the logits of {teacher.name}; use "
            "soft_labelled(teacher, data), or train on the class numbers"
        )
    other = getattr(source, "teacher", None)
    if (
        isinstance(other, Network)
        and other.module is not teacher.module
        and other.fingerprint() != teacher.fingerprint()
    ):
        raise UserError(
            f"source: its logits are of another teacher {other.name}, expected those of {teacher.name}; make "
            "the source from the same teacher"
        )


def resolved(settings: Distillation, source: Source, *, seed: int = 0) -> Distillation:
    """The settings with the temperature that will be used; if none is given, it is chosen from 1,024 logits of the
    source.
    """
    if settings.temperature is not None:
        return settings
    _, logits = next(iter(source.epoch(seed, 0, 1024)))
    return settings.model_copy(update={"temperature": temperature_of(logits)})
