"""Distillation in one call: trains a student from a teacher and a source of images."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from .._core.arguments import checked
from .._core.distributed import main_process, together, world
from .._core.errors import Notice, UserError
from .._core.progress import Progress, silent
from .._core.settings import called_with
from .._core.unused import check_used
from .._core.user_code import code_entry
from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..models import hooks
from ..models.agreement import Agreement, agreement
from ..models.memory_format import channels_last
from ..models.network import Network
from ..records.record import Record
from ..releases.release import architecture_of
from .schedule import USES, Distillation, ScheduleChanges, with_fast_optimizer
from .source_choice import SHARE, ChosenSource, ImagesLike, MethodLike, choose_source
from .sources import Source
from .student_init import init_student_from_teacher, same_architecture
from .students import Provenance, Start, StudentLike, new_student
from .train_student import ROUNDED, check_student, resolved, temperature_of, train_student
from .training_loop import Curve
from .views import check_shift, viewed

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

COMPARED = 4096
"""Number of images on which student and teacher are compared after training."""


class DistillationChanges(ScheduleChanges, total=False):
    """Fields of `Distillation` as keywords."""

    temperature: float | None
    shift: int | None
    flip: bool
    mixup: float
    loss: Literal["kl", "mse"]


@dataclass(frozen=True)
class Training:
    """How a student was trained."""

    curve: Curve
    settings: Distillation
    """Including the temperature that was used."""
    learned_from: str
    """Description of the source."""
    source_settings: dict[str, Any]
    images: int
    """Number of images per epoch."""
    distinct: int
    """Number of different images in all epochs."""
    started_from_teacher: bool
    agreement: Agreement
    """Agreement with the teacher on up to 4,096 images that the student learned from; these are no test images."""
    warnings: tuple[str, ...]
    processes: int
    provenance: Provenance = field(repr=False)


@dataclass(frozen=True, repr=False)
class DistilledNetwork(Network):
    """A student: a network with a description of its training."""

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
        """Everything that must be equal for a stopped run to be continued."""
        return {
            "settings": self.requested.model_dump(mode="json"), "seed": self.seed, "start": self.start,
            "teacher": self.teacher.fingerprint(), "student": self.student.fingerprint(),
            "record": None if self.record is None else self.record.digest(), "content": self.chosen.digest(),
            **code_entry(self.chosen.method),
        }  # fmt: skip

    def run(
        self,
        *,
        state: Path | None = None,
        identity: dict[str, Any] | None = None,
        score: Callable[[Network], float] | None = None,
        on_epoch: Callable[[Network, Curve], None] | None = None,
        replaces: dict[str, Any] | None = None,
        progress: Progress = silent,
    ) -> DistilledNetwork:
        """Trains the plan's student; see `distill`. `replaces` is that of `training_loop.fit`."""
        student, source, began = self.student, self.chosen.source, time.perf_counter()
        if state is not None and identity is None:
            identity = self.identity()
        from_teacher = self.start == "teacher" and same_architecture(student, self.teacher)
        if from_teacher and (state is None or not state.exists()):
            init_student_from_teacher(student, self.teacher, None, seed=self.seed)
        views = viewed(self.teacher, source, self.settings)
        with channels_last(self.teacher, student):  # views are labelled by the teacher in every step
            curve = train_student(
                self.teacher, student, views, self.settings, seed=self.seed, state=state, identity=identity, score=score,
                on_epoch=on_epoch, replaces=replaces, progress=progress,
            )  # fmt: skip
        pixels, logits = next(iter(source.epoch(0, 0, COMPARED)))
        training = Training(
            curve, self.settings, self.chosen.description, self.chosen.settings, len(source),
            source.distinct(len(curve.loss)), from_teacher,
            agreement(logits, student.predict(pixels), self.teacher.spec.classes), self.chosen.warnings, world().size,
            self._provenance(time.perf_counter() - began),
        )  # fmt: skip
        return DistilledNetwork(student.module, student.spec, student.name, student.output, student.reduced, training)

    def _provenance(self, seconds: float) -> Provenance:
        settings = {
            "teacher": self.teacher.name, "student": self.student.name, "learns_from": self.chosen.description,
            **self.chosen.settings, **self.settings.model_dump(mode="json"), "start": self.start, "seed": self.seed,
        }  # fmt: skip
        hashes = {"teacher_fingerprint": self.teacher.fingerprint(), "images": self.chosen.digest()}
        if self.record is not None:
            hashes["record_digest"] = self.record.digest()
        return Provenance(architecture_of(self.teacher), self.student.fingerprint(), settings, hashes, seconds)


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
    progress: Progress = silent,
    **changes: Unpack[DistillationChanges],
) -> DistillationPlan:
    """Chooses student, source and temperature as `distill` does, without training. Raises the same errors.

    A long preparation of `method` is a stage of `progress`.
    """
    requested = settings_from(settings, dict(changes))
    check_used(changes, USES, requested.model_dump())
    teacher.check()
    network = new_student(student, teacher, seed=seed)
    if hooks.batch_norms(network):
        requested = with_fast_optimizer(requested, start)
    chosen = choose_source(
        teacher, record=record, images=images, condensed=condensed, method=method, epoch_images=epoch_images, share=share,
        augmentation=augmentation, seed=seed, progress=progress,
    )  # fmt: skip
    check_shift(requested, chosen.source.spec)
    settings_with_temperature = resolved(requested, chosen.source, seed=seed)
    return DistillationPlan(teacher, network, chosen, settings_with_temperature, requested, seed, start, record)


def settings_from(settings: Distillation | Mapping[str, Any] | None, changes: dict[str, Any]) -> Distillation:
    """The settings with the changes; only fields that were chosen count as set. Raises UserError for an invalid name or
    value.
    """
    settings = called_with(Distillation, settings, changes, distill) or Distillation()
    chosen = {name: getattr(settings, name) for name in settings.model_fields_set}
    return Distillation(**{**chosen, **changes})


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
    """A student trained to give the outputs of `teacher` (Hinton et al. 2015), as it is after the last epoch.

        student = distill(teacher, record=record)                           # new images in every epoch
        student = distill(teacher, images="set", epochs=10)                 # a stored set, pixels, or real data
        student = distill(teacher, MyModule(), condensed="condensed", images="set")

    `student` is a network, a module with the teacher's input, or a name of the zoo or `file.py:function`; by default the
    teacher's half, if the zoo has one. A network or module is copied, not changed. With `start` "teacher" the student starts
    with channels of the teacher, if it has the same layers, none wider.

    It learns from one of:

    - `record` and `method`: `epoch_images` (20,000) new images in every epoch. The method, "distribution" by default, is a
      name, a mapping with `method`, or settings. Some methods need no record.
    - `images`: a synthetic set of this teacher, or its folder; what `sample` returned; real data: what `load_data`
      returns, a torch Dataset or DataLoader, a pair (images, labels), or a name or path; pixels (N, C, H, W), uint8 or
      floats in the spec's range; or a source with the teacher's logits.
    - `condensed`: a condensed set or its path, with `augmentation`, `epoch_images` (10,000) per epoch. Together with
      `images`, a `share` of every batch is condensed, and an epoch has as many images as `images`.

    Fields of `Distillation` are given as `settings` or as keywords. By default the temperature is chosen from the teacher's
    logits, and a student with batch norm is trained with Muon instead of Adam (`schedule.FAST`). The same seed gives the
    same student. With a `state` path, everything is saved there after each epoch, and the same call continues from it, if
    `identity` is equal too; by default that is everything that determines the result. `score` is measured after every epoch
    and never used to choose one; `on_epoch` gets the student and the curve so far.

    Returns the student in eval mode, on the teacher's device. `student.training` has its curve, what it learned from, and
    its agreement with the teacher. Warns if the teacher hardly recognises the images' classes. Raises UserError, before
    training, for no or several sources, and for students, images or records that do not fit the teacher.

    `distill(teacher, student, source, settings)` is the earlier form: it trains `student` in place and returns the curve, as
    `train_student` does.
    """
    calls: dict[str, Any] = {
        "state": state, "identity": identity, "score": score, "on_epoch": on_epoch, "progress": progress,
    }  # fmt: skip
    if source is not None:
        others = {
            "record": record, "images": images, "condensed": condensed, "method": method, "epoch_images": epoch_images,
            "augmentation": augmentation, **changes,
        }  # fmt: skip
        for name, value in others.items():
            if value is not None:
                raise UserError(f"{name}: got it beside source, expected only one of them; leave one out")
        return train_student(teacher, student, source, settings, seed=seed, **calls)  # type: ignore[arg-type]
    with together():
        plan = plan_distillation(
            teacher, student, record=record, images=images, condensed=condensed, method=method, epoch_images=epoch_images,
            share=share, augmentation=augmentation, settings=settings, start=start, seed=seed, progress=progress,
            **changes,
        )  # fmt: skip
        for warning in plan.chosen.warnings if main_process() else ():
            warnings.warn(Notice(f"{warning}; a student will learn little from them"), stacklevel=3)
        return plan.run(**calls)
