"""Trains the student of a cell, on stored images or against a generator, and times it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..._core.progress import Progress
from ...data import Dataset
from ...distillation.distill import plan_distillation
from ...distillation.distill_online import plan_online
from ...distillation.sources import StoredImages
from ...models.network import Network
from ...runs.resumable import STATE
from ..accuracy import evaluate
from ..report.timelines import FILE, write_generated
from .cell import Cell
from .passes import Passes
from .protocol import Counts, Protocol, distillation, online_changes
from .stopwatch import Stopwatch

__all__ = ["Trained", "Training"]


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
class Training:
    """What a cell is trained with, and the folder of its state."""

    place: Path
    teacher: Network
    test: Dataset
    protocol: Protocol
    watch: Stopwatch
    progress: Progress

    def train(self, cell: Cell, source: StoredImages | None, counts: Counts, identity: dict[str, Any]) -> Trained:
        """The cell's student, trained on the source or, without one, against a generator; or continued."""
        state, start, watch = self.place / STATE, self.protocol.start, self.watch
        common: dict[str, Any] = {"start": start, "seed": cell.seed}
        calls: dict[str, Any] = {"state": state, "identity": identity, "progress": self._report}
        if source is not None:
            passes = Passes(source, counts.epoch_steps, self.protocol.training.batch)
            plan = plan_distillation(
                self.teacher, cell.student.source, images=passes, settings=distillation(self.protocol, counts), **common
            )
            score = self._score(plan.student)
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
        place = self.place

        def on_epoch(_: Network, history: Any, images: dict[int, Tensor]) -> None:
            watch.lap(history.seconds)
            if len(history.loss) == counts.epochs:
                write_generated(place / FILE, images)

        result = online.run(score=self._score(online.student), on_epoch=on_epoch, **calls)
        return Trained(
            result, result.history.scores, result.history.seconds, online.settings.temperature, result.history.images,
            result.training.started_from_teacher,
        )  # fmt: skip

    def _report(self, done: int, total: int) -> None:
        """Progress without lines for epochs and stages: a cell is a part of a larger job."""
        self.progress(done, total)

    def _score(self, student: Network) -> Callable[[Network], float]:
        """Accuracy in %, which costs the cell no time. The moving average of an online student is not measured."""

        def score(network: Network) -> float:
            self.watch.stop()
            return evaluate(network, self.test).accuracy if network.module is student.module else 0.0

        return score
