"""One cell of a comparison: a method, a student and a seed. It is measured once, and a stopped one is continued."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..._core.code_names import code_name
from ..._core.errors import UserError
from ..._core.files import locked, read_json, sha256_file, sweep, write_json
from ..._core.files.atomic import make_folder
from ..._core.files.lock import LOCK
from ..._core.progress import Progress
from ..._core.resume import threads_of
from ..._core.settings import first_problem
from ..._core.user_code import all_files
from ...data import Dataset, sha256
from ...distillation.distill import plan_distillation
from ...distillation.distill_online import plan_online
from ...distillation.sources import StoredImages, soft_labelled, stored_images
from ...distillation.students import StudentLike, new_student
from ...models.network import Network
from ...runs.resumable import STATE
from ...runs.run_log import device_name, versions
from ..accuracy import evaluate
from ..report.timelines import FILE, write_generated
from .measure import budget_counts
from .methods import ComparedMethod
from .passes import Passes
from .protocol import Counts, Protocol, counts_for_steps, distillation, online_changes
from .sets import ImageSets, check_same
from .stopwatch import Stopwatch, clock_for, warm_up

__all__ = ["Cell", "CellResult", "Student", "Workplace"]

RESULT, PLAN, CLOCK = "cell.json", "plan.json", "seconds.json"


@dataclass(frozen=True)
class Student:
    """A student of the comparison, and its name in paths."""

    name: str
    label: str
    source: StudentLike

    def code(self) -> dict[str, str]:
        """The hash of the user's own code that builds it; else empty."""
        code = code_name(self.source) if isinstance(self.source, str) else None
        if code is None:
            return {}
        digests = "".join(map(sha256_file, all_files(code)))
        return {"code of student": hashlib.sha256(digests.encode()).hexdigest()}


@dataclass(frozen=True)
class Cell:
    """A method, a student and a seed."""

    method: ComparedMethod
    student: Student
    seed: int

    @property
    def id(self) -> str:
        """`METHOD/STUDENT/SEED`, which names the cell on the command line."""
        return f"{self.method.label}/{self.student.label}/{self.seed}"


class CellResult(BaseModel):
    """What cell.json states of a finished cell."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    student: str
    seed: int
    control: bool
    accuracy: float = Field(ge=0, le=100)
    """On the test images after the last epoch, in %."""
    best_accuracy: float = Field(ge=0, le=100)
    """The highest of all epochs: it takes test data to choose that one."""
    best_epoch: int = Field(ge=1)
    agreement: float = Field(ge=0, le=100)
    """Share of the test images for which student and teacher choose the same class, in %; no accuracy."""
    curve: tuple[tuple[float, float], ...]
    """After each epoch: seconds for images and training so far, without evaluation; accuracy in %."""
    images: int = Field(ge=0)
    """Images that were made, or real ones."""
    steps: int = Field(ge=1)
    """Student steps."""
    epochs: int = Field(ge=1)
    image_seconds: float = Field(ge=0)
    training_seconds: float = Field(ge=0)
    temperature: float | None
    from_teacher: bool
    """Whether the student started with channels of the teacher."""
    warning: str | None
    """What is wrong with its images, such as that they do not show their classes."""
    parameters: int
    settings: dict[str, Any]
    inputs: dict[str, Any]
    versions: dict[str, Any]
    device: str

    @property
    def id(self) -> str:
        """The names of method and student, and the seed."""
        return f"{self.method}/{self.student}/{self.seed}"

    @property
    def seconds(self) -> float:
        """Seconds for images and training."""
        return self.image_seconds + self.training_seconds


@dataclass(frozen=True)
class Trained:
    """A trained student before it is measured."""

    network: Network
    scores: list[float]
    wall_seconds: list[float]
    temperature: float | None
    images: int
    from_teacher: bool


@dataclass(frozen=True)
class Workplace:
    """All that the cells of a comparison share: networks, data, protocol, and the folder."""

    folder: Path
    teacher: Network
    test: Dataset
    train: Dataset | None
    protocol: Protocol
    sets: ImageSets
    replace: bool

    def place(self, cell: Cell) -> Path:
        """The cell's folder."""
        return self.folder / "cells" / cell.method.label / cell.student.label / f"seed-{cell.seed}"

    def student(self, cell: Cell) -> Network:
        """The cell's student before training."""
        return new_student(cell.student.source, self.teacher, seed=cell.seed)

    def identity(self, cell: Cell) -> dict[str, Any]:
        """Everything that decides the cell's result."""
        settings = {
            "method": cell.method.identity(), "student": cell.student.name, "seed": cell.seed, **self.protocol.settings(),
        }  # fmt: skip
        record = self.sets.record if cell.method.kind == "images" else None
        inputs = {
            "teacher": self.teacher.fingerprint(), "record": record and record.digest(),
            "student": self.student(cell).fingerprint(), "test images": sha256(self.test), **cell.method.code(), **cell.student.code(),
        }  # fmt: skip
        if cell.method.kind == "real" and self.train is not None:
            inputs["training images"] = sha256(self.train)
        return {"verb": "compare", "settings": settings, "inputs": inputs}

    def finished(self, cell: Cell) -> CellResult | None:
        """The cell's result if it is there. Raises UserError for one of other settings, unless it is to be replaced."""
        path = self.place(cell) / RESULT
        if not path.is_file():
            return None
        try:
            result = CellResult.model_validate(read_json(path))
        except ValidationError as error:
            raise UserError(f"{path}: {first_problem(error)}; remove that folder to measure the cell again") from None
        earlier = {"verb": "compare", "settings": result.settings, "inputs": result.inputs}
        same = check_same(self.identity(cell), earlier, self.place(cell), replace=self.replace)
        return result if same else None

    def run(self, cell: Cell, progress: Progress) -> CellResult:
        """Measures a cell, or continues it; the result if it is there already.

        Raises InUse if another run is at it, and UserError if the method does not fit, or the budget is too small.
        """
        place = self.place(cell)
        make_folder(place)
        with locked(place):
            sweep(place)
            if (result := self.finished(cell)) is not None:
                return result
            identity = self.identity(cell)
            plan = self._open(place, identity)
            half = _parts(progress)
            warm_up()
            images, image_seconds, source, warning = self._images(cell, half[0])
            if "counts" not in plan:
                plan["counts"] = asdict(self._counts(cell, images, image_seconds))
                write_json(place / PLAN, plan)
            counts = Counts(**plan["counts"])
            watch_file = place / CLOCK
            resumed = (place / STATE).exists()
            with _threads(threads_of(place / STATE)):
                watch = Stopwatch(watch_file, clock_for(self.teacher.device), resumed=resumed)
                shown = half[1] if cell.method.kind == "images" else progress
                trained = self._train(cell, source, counts, watch, identity | {"counts": plan["counts"]}, shown)
                watch.lap(trained.wall_seconds)
                scores = evaluate(trained.network, self.test, self.teacher)
            assert scores.agreement is not None
            spent, curve = image_seconds, []
            for seconds, score in zip(watch.laps, trained.scores, strict=True):
                spent += seconds
                curve.append((round(spent, 4), score))
            best = max(trained.scores)
            result = CellResult(
                method=cell.method.name, student=cell.student.name, seed=cell.seed, control=cell.method.control,
                accuracy=scores.accuracy, best_accuracy=best, best_epoch=trained.scores.index(best) + 1,
                agreement=scores.agreement, curve=tuple(curve), images=trained.images, steps=counts.steps,
                epochs=counts.epochs, image_seconds=round(image_seconds, 4), training_seconds=round(sum(watch.laps), 4),
                temperature=trained.temperature, from_teacher=trained.from_teacher, warning=warning, parameters=trained.network.parameters, settings=identity["settings"],
                inputs=identity["inputs"], versions=versions(), device=device_name(str(self.teacher.device)),
            )  # fmt: skip
            write_json(place / RESULT, result.model_dump(mode="json"))
            for name in (STATE, PLAN, CLOCK):
                (place / name).unlink(missing_ok=True)
            return result

    def _open(self, place: Path, identity: dict[str, Any]) -> dict[str, Any]:
        """The plan of a stopped cell, or a new one; what a cell of other settings left is removed if it is replaced."""
        path = place / PLAN
        plan = read_json(path) if path.is_file() else {}
        stale = (place / RESULT).exists()  # `finished` has found that it is to be replaced
        if plan and not check_same(identity, plan.get("identity", {}), place, replace=self.replace):
            stale = True
        if stale or not plan:
            for entry in place.iterdir():
                if entry.name != LOCK:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            plan = {"identity": identity}
            write_json(path, plan)
        return plan

    def _images(self, cell: Cell, progress: Progress) -> tuple[int, float, StoredImages | None, str | None]:
        """Number of images of the cell, the seconds that they took, the images, and what is wrong with them; none for an
        online method.
        """
        if cell.method.kind == "images":
            made = self.sets.made(cell.method, cell.seed, progress)
            return len(made.images), made.seconds, stored_images(made.images), made.images.warning()
        if cell.method.kind == "real":
            assert self.train is not None
            clock = clock_for(self.teacher.device)
            began = clock()
            source = soft_labelled(self.teacher, self.train)
            return len(source), clock() - began, source, None
        return 0, 0.0, None, None

    def _counts(self, cell: Cell, images: int, seconds: float) -> Counts:
        if self.protocol.budget is None:
            return replace(counts_for_steps(self.protocol), images=images)
        return budget_counts(
            self.teacher, cell.student.source, cell.method, self.protocol, cell.seed, images=images, seconds=seconds
        )

    def _train(
        self, cell: Cell, source: StoredImages | None, counts: Counts, watch: Stopwatch, identity: dict[str, Any],
        progress: Progress,
    ) -> Trained:  # fmt: skip
        state, start = self.place(cell) / STATE, self.protocol.start
        common: dict[str, Any] = {"start": start, "seed": cell.seed}
        calls: dict[str, Any] = {"state": state, "identity": identity, "progress": _Plain(progress)}
        if source is not None:
            passes = Passes(source, counts.epoch_steps, self.protocol.training.batch)
            plan = plan_distillation(
                self.teacher, cell.student.source, images=passes, settings=distillation(self.protocol, counts), **common
            )
            score = self._score(plan.student, watch)
            student = plan.run(score=score, on_epoch=lambda _, curve: watch.lap(curve.seconds), **calls)
            curve, settings = student.training.curve, student.training.settings
            temperature = settings.temperature if settings.loss == "kl" else None
            from_teacher = student.training.started_from_teacher
            return Trained(student, curve.scores, curve.seconds, temperature, len(source), from_teacher)
        changes = online_changes(self.protocol, counts, cell.method)
        online = plan_online(
            self.teacher,
            cell.student.source,
            preset=cell.method.preset,
            replay=cell.method.settings,
            **changes,
            **common,
        )
        place = self.place(cell)

        def on_epoch(_: Network, history: Any, images: dict[int, torch.Tensor]) -> None:
            watch.lap(history.seconds)
            if len(history.loss) == counts.epochs:
                write_generated(place / FILE, images)

        result = online.run(score=self._score(online.student, watch), on_epoch=on_epoch, **calls)
        return Trained(
            result, result.history.scores, result.history.seconds, online.settings.temperature, result.history.images,
            result.training.started_from_teacher,
        )  # fmt: skip

    def _score(self, student: Network, watch: Stopwatch) -> Callable[[Network], float]:
        """Accuracy in %, which costs the cell no time. The moving average of an online student is not measured."""

        def score(network: Network) -> float:
            watch.stop()
            return evaluate(network, self.test).accuracy if network.module is student.module else 0.0

        return score


@dataclass(frozen=True)
class _Plain:
    """Progress without lines for epochs and stages: a cell is a part of a larger job."""

    progress: Progress

    def __call__(self, done: int, total: int) -> None:
        self.progress(done, total)


def _parts(progress: Progress) -> tuple[Progress, Progress]:
    """Progress of the two halves of a job: images, then training."""
    return (
        lambda done, total: progress(done, 2 * total),
        lambda done, total: progress(total + done, 2 * total),
    )


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Inside, torch has this number of threads, that of the stopped run: another gives other numbers."""
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
