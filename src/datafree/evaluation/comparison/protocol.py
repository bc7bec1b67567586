"""The one protocol of a comparison: the same training for the students of every method, and the steps that it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..._core.arguments import check_count
from ..._core.errors import UserError
from ..._core.settings import parse
from ...distillation.online.settings import OnlineDistillation, online_preset
from ...distillation.schedule import Distillation, with_fast_optimizer
from ...distillation.students import Start
from .methods import ComparedMethod

__all__ = [
    "IMAGES",
    "STEPS",
    "Counts",
    "Protocol",
    "check_online",
    "counts_for_steps",
    "distillation",
    "epoch_shape",
    "online_changes",
]

IMAGES = 400
"""Default number of images of each synthesis method."""
STEPS = 200
"""Default number of student steps."""
LEAST_STEPS = 10
"""Student steps per epoch, however few the images: an online method needs some for every step of its generator."""
MOST_EPOCHS = 100
"""About the most epochs of a cell: the student is measured after each."""
PER_GENERATOR_STEP = (10, 9, 11, 8, 12)
"""Student steps per generator step of an online method, by preference; 10 is its default."""
SHARED = ("batch", "optimizer", "decay", "warmup", "precision", "shift", "flip")
"""Fields that `Distillation` and `OnlineDistillation` both have."""
_BUDGET = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smh]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Counts:
    """How much a cell makes and trains."""

    images: int
    """Images that are made once, or real images; 0 for an online method."""
    epochs: int
    epoch_steps: int
    student_steps: int
    """Student steps per generator step of an online method; a divisor of `epoch_steps`."""

    @property
    def steps(self) -> int:
        return self.epochs * self.epoch_steps


@dataclass(frozen=True)
class Protocol:
    """What is the same for every method."""

    training: Distillation
    """The student's training, without its `epochs`."""
    start: Start
    images: int
    """Images of each synthesis method; with a budget, the most."""
    steps: int | None
    """Student steps; None with a budget."""
    budget: float | None
    """Seconds of a cell for making its images and training."""

    @classmethod
    def of(
        cls, settings: Distillation | Mapping[str, Any] | None, start: Start, images: int, steps: int | None,
        budget: float | str | None,
    ) -> Protocol:  # fmt: skip
        """Raises UserError for values that are off or do not fit together."""
        if steps is not None and budget is not None:
            raise UserError("budget: got it with `steps`, expected one of them; leave one out")
        training = parse(Distillation, settings, strict=False) if isinstance(settings, Mapping) else settings
        training = with_fast_optimizer(training or Distillation(), start)
        if "epochs" in training.model_fields_set:
            raise UserError(
                f"epochs: got {training.epochs}, expected `steps`, which are the same for every method; give those instead"
            )
        if training.loss != "kl" and training.temperature is not None:
            raise UserError(f"temperature: got it with `loss={training.loss!r}`, which has none; leave it out")
        check_count("images", images, training.batch)
        seconds = None if budget is None else _seconds(budget)
        steps = STEPS if steps is None and seconds is None else steps
        if steps is not None:
            check_count("steps", steps)
        return cls(training, start, images, steps, seconds)

    def settings(self) -> dict[str, Any]:
        """As JSON values, for logs and identities."""
        training = self.training.model_dump(mode="json", exclude={"epochs"})
        amount = {"steps": self.steps} if self.budget is None else {"budget": self.budget}
        return {**amount, "images": self.images, "start": self.start, **training}


def _seconds(budget: float | str) -> float:
    """The seconds of `90`, `90s`, `10m` or `2h`."""
    match = _BUDGET.fullmatch(str(budget).strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 1 <= seconds <= 1e8:
        raise UserError(f"budget: got {budget!r}, expected at least a second, such as 90s, 10m or 2h; give such a time")
    return seconds


def epoch_shape(images: int, batch: int, steps: int) -> tuple[int, int]:
    """Student steps per epoch, and per generator step of an online method, which divides it.

    An epoch is at most one pass over the images; LEAST_STEPS if those are few, and more if there were more than MOST_EPOCHS.
    It is the largest such number that is a multiple of 8 to 12, so that an online method can take the same steps; below 8 it
    is one generator step.
    """
    most = min(max(images // batch, LEAST_STEPS, steps // MOST_EPOCHS), steps)
    if most < min(PER_GENERATOR_STEP):
        return most, most
    for epoch_steps in range(most, 0, -1):
        for student_steps in PER_GENERATOR_STEP:
            if epoch_steps % student_steps == 0:
                return epoch_steps, student_steps
    raise AssertionError("8 divides 8")


def counts_for_steps(protocol: Protocol) -> Counts:
    """The counts of every cell of a comparison of equal steps, which are rounded up to whole epochs."""
    assert protocol.steps is not None
    epoch_steps, student_steps = epoch_shape(protocol.images, protocol.training.batch, protocol.steps)
    return Counts(protocol.images, -(-protocol.steps // epoch_steps), epoch_steps, student_steps)


def distillation(protocol: Protocol, counts: Counts) -> Distillation:
    """The settings of a student of stored images."""
    return protocol.training.model_copy(update={"epochs": counts.epochs})


def online_changes(protocol: Protocol, counts: Counts, method: ComparedMethod) -> dict[str, Any]:
    """The fields of `OnlineDistillation` that are the protocol's; others are the method's."""
    training = protocol.training
    changes: dict[str, Any] = {
        "epochs": counts.epochs, "iterations": counts.epoch_steps // counts.student_steps,
        "student_steps": counts.student_steps, "keep": "last", "student_rate": training.learning_rate,
        **{name: getattr(training, name) for name in SHARED},
    }  # fmt: skip
    if training.temperature is not None and online_of(method).loss == "kl":
        changes["temperature"] = training.temperature
    return changes


def check_online(protocol: Protocol, method: ComparedMethod) -> None:
    """Raises UserError for a value of the training that the online method does not allow, such as a batch of 1."""
    training = protocol.training
    values: dict[str, Any] = {name: getattr(training, name) for name in SHARED} | {
        "student_rate": training.learning_rate
    }
    try:
        OnlineDistillation(**values)
    except UserError as error:
        reason = str(error).replace("student_rate:", "learning_rate:").rpartition(";")[0]
        raise UserError(
            f"{reason}, with the method {method.name!r}; give such a value, or leave that method out"
        ) from None


def online_of(method: ComparedMethod) -> OnlineDistillation:
    """The method's own settings, before the protocol's."""
    return OnlineDistillation() if method.preset is None else online_preset(method.preset)[0]
