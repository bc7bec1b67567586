"""Distillation in one call: a teacher and something to learn from in, a trained student out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

from .._core.arguments import checked
from .._core.distributed import main_process, together, world
from .._core.errors import Notice, UserError
from .._core.progress import Progress, silent
from .._core.settings import called_with
from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..models.agreement import Agreement, agreement
from ..models.network import Network
from ..records.record import Record
from .schedule import Distillation
from .source_choice import SHARE, ChosenSource, ImagesLike, MethodLike, choose_source
from .sources import Source
from .student_init import init_student_from_teacher, same_architecture
from .students import Start, StudentLike, new_student
from .train_student import ROUNDED, check_student, resolved, temperature_of, train_student
from .training_loop import Curve

__all__ = [
    "Distillation",
    "DistillationChanges",
    "DistilledNetwork",
    "Training",
    "check_student",
    "distill",
    "plan_distillation",
    "resolved",
    "settings_from",
    "temperature_of",
    "train_student",
]  # fmt: skip

SEEN = 4096
"""Images on which student and teacher are compared after the training."""


class DistillationChanges(TypedDict, total=False):
    """Fields of `Distillation` as keywords."""

    epochs: int
    batch: int
    learning_rate: float
    optimizer: Literal["adam", "muon"]
    decay: Literal["constant", "cosine"]
    warmup: float
    precision: Literal["float32", "bfloat16"]
    temperature: float | None
    loss: Literal["kl", "mse"]


@dataclass(frozen=True)
class Training:
    """How a student was trained."""

    curve: Curve
    settings: Distillation
    """With the temperature that was used."""
    learned_from: str
    """The source in words."""
    source_settings: dict[str, Any]
    images: int
    """Per epoch."""
    distinct: int
    """Different images in all epochs."""
    started_from_teacher: bool
    agreement: Agreement
    """With the teacher on up to 4,096 images that the student learned from: a sample, not a test."""
    warnings: tuple[str, ...]
    processes: int


@dataclass(frozen=True)
class DistilledNetwork(Network):
    """A student, which is a network as any other, with how it was trained."""

    training: Training


@dataclass(frozen=True)
class DistillationPlan:
    """A distillation that is checked and ready to run: nothing is trained yet."""

    teacher: Network
    student: Network
    """The student before training: a copy of the caller's, or a fresh network."""
    chosen: ChosenSource
    settings: Distillation
    """With the temperature that will be used."""
    requested: Distillation
    """As they were given: without a temperature where it is chosen from the logits."""
    seed: int
    start: Start
    record: Record | None

    def with_temperature_of(self, earlier: Mapping[str, Any]) -> DistillationPlan:
        """The plan with the temperature in the settings of an earlier run, where it was chosen and differs by rounding.

        Another processor or number of threads adds up the logits in another order.
        """
        before, now = earlier.get("temperature"), self.settings.temperature
        if self.requested.temperature is not None or now is None or not isinstance(before, float):
            return self
        is_rounding = 0 < abs(before - now) < 1.5 * ROUNDED
        return replace(self, settings=self.settings.model_copy(update={"temperature": before})) if is_rounding else self

    def identity(self) -> dict[str, Any]:
        """What must be the same for a stopped run to be continued."""
        return {
            "settings": self.requested.model_dump(mode="json"), "seed": self.seed, "start": self.start,
            "teacher": self.teacher.fingerprint(), "student": self.student.fingerprint(),
            "record": None if self.record is None else self.record.digest(), "content": self.chosen.digest(),
        }  # fmt: skip

    def run(
        self,
        *,
        state: Path | None = None,
        identity: dict[str, Any] | None = None,
        score: Callable[[Network], float] | None = None,
        on_epoch: Callable[[Network, Curve], None] | None = None,
        progress: Progress = silent,
    ) -> DistilledNetwork:
        """Trains the plan's student; see `distill`."""
        student, source = self.student, self.chosen.source
        if state is not None and identity is None:
            identity = self.identity()
        from_teacher = self.start == "teacher" and same_architecture(student, self.teacher)
        if from_teacher and (state is None or not state.exists()):
            init_student_from_teacher(student, self.teacher, None, seed=self.seed)
        curve = train_student(
            self.teacher, student, source, self.settings, seed=self.seed, state=state, identity=identity, score=score,
            on_epoch=on_epoch, progress=progress,
        )  # fmt: skip
        pixels, logits = next(iter(source.epoch(0, 0, SEEN)))
        training = Training(
            curve, self.settings, self.chosen.description, self.chosen.settings, len(source),
            source.distinct(len(curve.loss)), from_teacher,
            agreement(logits, student.predict(pixels), self.teacher.spec.classes), self.chosen.warnings, world().size,
        )  # fmt: skip
        return DistilledNetwork(student.module, student.spec, student.name, training)


def plan_distillation(
    teacher: Network,
    student: StudentLike | None = None,
    *,
    record: Record | None = None,
    images: ImagesLike | None = None,
    condensed: Condensed | str | Path | None = None,
    method: MethodLike | None = None,
    epoch_images: int | None = None,
    share: float = SHARE,
    augmentation: Augmentation | None = None,
    settings: Distillation | Mapping[str, Any] | None = None,
    start: Start = "random",
    seed: int = 0,
    **changes: Unpack[DistillationChanges],
) -> DistillationPlan:
    """Chooses student, source and temperature as `distill` does, and trains nothing. Raises UserError as `distill` does."""
    chosen_settings = settings_from(settings, dict(changes))
    teacher.check()
    network = new_student(student, teacher, seed=seed)
    chosen = choose_source(
        teacher, record=record, images=images, condensed=condensed, method=method, epoch_images=epoch_images, share=share,
        augmentation=augmentation, seed=seed,
    )  # fmt: skip
    final = resolved(chosen_settings, chosen.source, seed=seed)
    return DistillationPlan(teacher, network, chosen, final, chosen_settings, seed, start, record)


def settings_from(settings: Distillation | Mapping[str, Any] | None, changes: dict[str, Any]) -> Distillation:
    """The settings with the changes. Raises UserError for a name or value that is off."""
    settings = called_with(Distillation, settings, changes, distill) or Distillation()
    return Distillation(**{**settings.model_dump(), **changes})


@overload
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
    on_epoch: Callable[[Network, Curve], None] | None = None,
    progress: Progress = silent,
) -> Curve: ...


@overload
def distill(
    teacher: Network,
    student: StudentLike | None = None,
    *,
    record: Record | None = None,
    images: ImagesLike | None = None,
    condensed: Condensed | str | Path | None = None,
    method: MethodLike | None = None,
    epoch_images: int | None = None,
    share: float = SHARE,
    augmentation: Augmentation | None = None,
    settings: Distillation | Mapping[str, Any] | None = None,
    start: Start = "random",
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    on_epoch: Callable[[Network, Curve], None] | None = None,
    progress: Progress = silent,
    **changes: Unpack[DistillationChanges],
) -> DistilledNetwork: ...


@checked
def distill(
    teacher: Network,
    student: StudentLike | None = None,
    source: Any = None,
    settings: Distillation | Mapping[str, Any] | None = None,
    *,
    record: Record | None = None,
    images: ImagesLike | None = None,
    condensed: Condensed | str | Path | None = None,
    method: MethodLike | None = None,
    epoch_images: int | None = None,
    share: float = SHARE,
    augmentation: Augmentation | None = None,
    start: Start = "random",
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    on_epoch: Callable[[Network, Curve], None] | None = None,
    progress: Progress = silent,
    **changes: Unpack[DistillationChanges],
) -> DistilledNetwork | Curve:
    """A student trained to answer like `teacher` (Hinton et al. 2015); the last epoch is kept.

        student = distill(teacher, record=record)                           # fresh images for every epoch
        student = distill(teacher, images="set", epochs=10)                 # a stored set, pixels, or real data
        student = distill(teacher, MyModule(), condensed="condensed", images="set")

    `student` is a network, a module that takes what the teacher takes, or a name of the zoo or `file.py:function`; by default
    the teacher's half, where the zoo has one. It is copied: the network or module given is not changed. With `start`
    "teacher" it begins with channels of the teacher, if it has the same layers, none wider.

    It learns from one of:

    - `record` and `method`: `epoch_images` (20,000) new images for every epoch; the method, "distribution" by default, is a
      name, a mapping with `method`, or settings. Some methods need no record.
    - `images`: a synthetic set or its folder, which must be of this teacher; real data: what `load_data` returns, a torch
      Dataset or DataLoader, a pair (images, labels), or a name or path; pixels (N, C, H, W), uint8 or floats in the spec's
      range; or a source with the teacher's logits.
    - `condensed`: a condensed set or its path, shown with `augmentation`, `epoch_images` (10,000) per epoch; with `images`
      a `share` of every batch, and as many images per epoch as those are.

    Fields of `Distillation` are given as `settings` or as keywords. The temperature is chosen from the teacher's logits by
    default. The same seed gives the same student. With `state`, a file there holds everything after each epoch, and the same
    call continues from it; `identity` says what must be the same for that, by default all that decides the result.
    `score` is evaluated after every epoch and never used to choose one; `on_epoch` gets the student and the curve so far.

    Returns the student in eval mode, on the teacher's device; `student.training` has its curve, what it learned from, and
    its agreement with the teacher. Warns where the images hardly show their classes. Raises UserError, before the training,
    for nothing or too much to learn from, and for students, images or records that do not fit the teacher.

    `distill(teacher, student, source, settings)` is the earlier form: it trains `student` in place and returns the curve, as
    `train_student` does.
    """
    calls: dict[str, Any] = {
        "state": state, "identity": identity, "score": score, "on_epoch": on_epoch, "progress": progress,
    }  # fmt: skip
    if source is not None:
        beside = {
            "record": record, "images": images, "condensed": condensed, "method": method, "epoch_images": epoch_images,
            "augmentation": augmentation, **changes,
        }  # fmt: skip
        for name, value in beside.items():
            if value is not None:
                raise UserError(f"{name}: got it beside source, expected one of them; leave one out")
        return train_student(teacher, student, source, settings, seed=seed, **calls)  # type: ignore[arg-type]
    with together():
        plan = plan_distillation(
            teacher, student, record=record, images=images, condensed=condensed, method=method, epoch_images=epoch_images,
            share=share, augmentation=augmentation, settings=settings, start=start, seed=seed, **changes,
        )  # fmt: skip
        for warning in plan.chosen.warnings if main_process() else ():
            warnings.warn(Notice(f"{warning}; a student will learn little from them"), stacklevel=3)
        return plan.run(**calls)
