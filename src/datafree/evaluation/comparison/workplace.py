"""Measures the cells of a comparison: each once, in a folder of its own; a stopped one is continued."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..._core.errors import UserError
from ..._core.files import locked, sweep, write_json
from ..._core.files.atomic import make_folder
from ..._core.files.lock import LOCK
from ..._core.progress import Progress, silent
from ..._core.resume import threads_of
from ..._core.settings import first_problem
from ...data import Dataset, sha256
from ...distillation.sources import StoredImages, soft_labelled, stored_images
from ...distillation.students import new_student
from ...models.network import Network
from ...runs.resumable import STATE
from ...runs.run_log import device_name, versions
from ..accuracy import evaluate
from .cell import Cell, CellResult
from .measure import budget_counts
from .protocol import Counts, Protocol, counts_for_steps
from .sets import ImageSets, check_same, naming_the_set
from .stopwatch import Stopwatch, clock_for, warm_up
from .stored import stored_json
from .training import Trained, Training

__all__ = ["Workplace"]

RESULT, PLAN, CLOCK = "cell.json", "plan.json", "seconds.json"
AGAIN = "remove that file to measure the cell again"


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
            "student": self.student(cell).fingerprint(), "test images": sha256(self.test),
            **cell.method.code(), **cell.student.code(),
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
            result = CellResult.model_validate(stored_json(path, AGAIN))
        except ValidationError as error:
            raise UserError(f"{path}: {first_problem(error)}; {AGAIN}") from None
        if (result.method, result.student, result.seed) != (cell.method.name, cell.student.name, cell.seed):
            raise UserError(f"{path} is of {result.id}, expected {cell.id}; {AGAIN}")
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
            images_progress, training_progress = _parts(progress, cell.method.kind == "images")
            warm_up()
            images, image_seconds, source, warning = self._images(cell, images_progress)
            if "counts" not in plan:
                plan["counts"] = asdict(self._counts(cell, images, image_seconds))
                write_json(place / PLAN, plan)
            counts, resumed = _counts_of(plan, place / PLAN), (place / STATE).exists()
            with _threads(threads_of(place / STATE)):
                watch = Stopwatch(place / CLOCK, clock_for(self.teacher.device), resumed=resumed)
                training = Training(place, self.teacher, self.test, self.protocol, watch, training_progress)
                trained = training.train(cell, source, counts, identity | {"counts": plan["counts"]})
                watch.lap(trained.wall_seconds)
                result = self._result(cell, trained, counts, watch, image_seconds, warning, identity)
            write_json(place / RESULT, result.model_dump(mode="json"))
            for name in (STATE, PLAN, CLOCK):
                (place / name).unlink(missing_ok=True)
            return result

    def _result(
        self, cell: Cell, trained: Trained, counts: Counts, watch: Stopwatch, image_seconds: float, warning: str | None,
        identity: dict[str, Any],
    ) -> CellResult:  # fmt: skip
        """Measures the trained student."""
        scores = evaluate(trained.network, self.test, self.teacher)
        assert scores.agreement is not None
        times = accumulate(watch.laps, initial=image_seconds)
        next(times)
        curve = tuple((round(time, 4), score) for time, score in zip(times, trained.scores, strict=True))
        best = max(trained.scores)
        return CellResult(
            method=cell.method.name, student=cell.student.name, seed=cell.seed, control=cell.method.control,
            accuracy=scores.accuracy, best_accuracy=best, best_epoch=trained.scores.index(best) + 1,
            agreement=scores.agreement, curve=curve, images=trained.images, steps=counts.steps, epochs=counts.epochs,
            image_seconds=round(image_seconds, 4), training_seconds=round(sum(watch.laps), 4),
            temperature=trained.temperature, from_teacher=trained.from_teacher, warning=warning,
            parameters=trained.network.parameters, settings=identity["settings"], inputs=identity["inputs"],
            versions=versions(), device=device_name(str(self.teacher.device)),
        )  # fmt: skip

    def _open(self, place: Path, identity: dict[str, Any]) -> dict[str, Any]:
        """The plan of a stopped cell, or a new one; what a cell of other settings left is removed if it is replaced."""
        path = place / PLAN
        plan = stored_json(path, AGAIN) if path.is_file() else {}
        stale = (place / RESULT).exists()  # `finished` has found that it is to be replaced
        if plan and not isinstance(plan.get("identity"), dict):
            raise UserError(f"{path} has no identity of a cell; {AGAIN}")
        if plan and not check_same(identity, plan["identity"], place, replace=self.replace):
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
            image_set = self.sets.made(cell.method, cell.seed, progress)
            with naming_the_set(image_set.images.folder):
                warning, source = image_set.images.warning(), stored_images(image_set.images)
            if warning is not None:
                warning = warning.replace(image_set.images.folder.name, f"the images of seed {cell.seed}")
            return len(image_set.images), image_set.seconds, source, warning
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


def _counts_of(plan: dict[str, Any], path: Path) -> Counts:
    """The counts that a stopped cell was trained with."""
    counts, names = plan["counts"], [field.name for field in fields(Counts)]
    if (
        not isinstance(counts, dict)
        or sorted(counts) != sorted(names)
        or not all(type(counts[name]) is int and counts[name] >= (name != "images") for name in names)
    ):
        raise UserError(f"{path}: counts: got {counts}, expected {', '.join(names)}; {AGAIN}")
    return Counts(**counts)


def _parts(progress: Progress, makes_images: bool) -> tuple[Progress, Progress]:
    """Progress of making images and of training: half of the job each, if images are made."""
    if not makes_images:
        return silent, progress
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
