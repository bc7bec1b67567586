"""Online distillation: a generator searches for images on which student and teacher disagree, the student learns them,
and a replay memory of earlier images prevents forgetting (DAFL, DFAD, Binici et al. 2021, 2022).

One outer iteration is a few generator steps, then several student steps. The teacher is always frozen, the student is
frozen during generator steps, and the generator during student steps. This file has the loop over epochs, with rollback
of collapsed epochs and exact resume; see `settings`, `trainer` (the steps) and `history` (the measurements).
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from ..._core.arguments import checked
from ..._core.distributed import broadcast, first, gathered, together, world
from ..._core.errors import UserError
from ..._core.limits import EPOCHS
from ..._core.progress import Progress, epoch_ended, silent
from ..._core.resume import Environment, StateHeader, check_room_for, load_state, open_state, save_state
from ..._core.slots import Slots, prefixed
from ...models.behaviour import check_learns, check_pixel_gradient
from ...models.memory_format import channels_last
from ...models.network import Network, frozen
from ...models.positions import check_positions
from ...records.record import Record
from ..replay.none import NoReplay
from ..train_student import check_student
from ..training_loop import checked_score
from .history import GeneratorHealth, History, history_from_state, history_slots, history_state
from .settings import PRESETS, OnlineDistillation, online_preset
from .trainer import AnchorImages, OnlineTrainer

__all__ = [
    "PRESETS",
    "AnchorImages",
    "GeneratorHealth",
    "History",
    "OnlineDistillation",
    "online_preset",
    "train_online",
]

ATTEMPTS = 3
KIND = "online-state"


class OnlineHeader(StateHeader):
    """Header of the state file of online distillation."""

    epoch: int = Field(ge=1, le=EPOCHS)
    attempt: int = Field(ge=0, le=ATTEMPTS * EPOCHS)
    """Number of discarded generators."""
    scored: int = Field(ge=0, le=EPOCHS)
    """Number of epochs with a score."""


@checked
def train_online(
    teacher: Network,
    student: Network,
    settings: OnlineDistillation | None = None,
    replay: Any = None,
    *,
    record: Record | None = None,
    anchors: AnchorImages | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    on_epoch: Callable[[Network, History, dict[int, Tensor]], None] | None = None,
    progress: Progress = silent,
) -> History:
    """Trains `student` in place against a generator under `teacher`, without data; it ends in eval mode.

    `settings.keep` selects the returned weights. `replay` is a settings object of `datafree.distillation.replay`; by
    default there is no replay. `anchors` guide the generator with a few images. With a `state` path, everything is
    saved there after each epoch, and a run with the same `identity` resumes from it. `score` is called after each epoch
    with student and average; training never uses its result. `on_epoch` is called after each epoch with the student as it
    would be saved, the history, and generated images, uint8 (10, C, H, W), by epoch.

    An epoch with a collapsed generator or a non-finite loss is discarded and repeated with a new generator, at most
    three times. Raises UserError after that, with the student of the last good epoch; and if student and teacher do not
    fit.
    """
    settings, replay = settings or OnlineDistillation(), replay or NoReplay()
    check_student(student, teacher, teacher.spec)
    teacher.check()
    student.check()
    if record is not None:
        record.check_teacher(teacher)
    for network in (teacher, student):
        if isinstance(network.module, torch.jit.ScriptModule):
            raise UserError(
                f"{network.name} is a TorchScript program and cannot be copied for online distillation; give the "
                "Python code that it was made from"
            )
        check_pixel_gradient(network, "online distillation")
    check_learns(student)
    with together(), channels_last(teacher, student), frozen(teacher.module):
        broadcast(student.module)
        memory, objective = _share(replay).bind(teacher, seed), settings.objective(teacher, record)
        trainer = OnlineTrainer(teacher, student, settings, memory, objective, seed, anchors)
        state_file = OnlineState(state, identity or {}, scored=score is not None)
        first_epoch = state_file.resume(trainer)
        if on_epoch is not None and trainer.world.rank == 0 and first_epoch == settings.epochs:
            # the earlier run was stopped before this call for its last epoch
            on_epoch(trainer.saved_student, trainer.history, trainer.samples)
        try:
            state_tensors = trainer.state()
            for epoch in range(first_epoch, settings.epochs):
                try:
                    state_tensors = _epoch(trainer, epoch, state_tensors, progress, keeps_state=state is not None)
                    epoch_ended(progress, epoch + 1, settings.epochs, trainer.history.loss[-1])
                except UserError:  # the weights are those of the last good epoch; the history has the rollbacks
                    if on_epoch is not None and trainer.world.rank == 0 and epoch:
                        on_epoch(trainer.saved_student, trainer.history, trainer.samples)
                    raise
                if score is not None:
                    trainer.history.scores.append(first(lambda: checked_score(score(student))))
                    trainer.history.average_scores.append(first(lambda: checked_score(score(trainer.average))))
                if state is not None:
                    state_file.write(trainer, state_tensors, epoch + 1)
                if on_epoch is not None and trainer.world.rank == 0:
                    on_epoch(trainer.saved_student, trainer.history, trainer.samples)
        finally:
            student.module.load_state_dict(trainer.saved_student.module.state_dict())
            student.module.eval()
    return trainer.history


def _epoch(
    trainer: OnlineTrainer, number: int, good_state: dict[str, Tensor], progress: Progress, *, keeps_state: bool
) -> dict[str, Tensor]:
    """Trains one good epoch and returns the state after it. Raises UserError, with `good_state` restored, after four
    failures.
    """
    history = copy.deepcopy(trainer.history)
    for _ in range(ATTEMPTS + 1):
        start = time.perf_counter()
        loss, generator_loss = trainer.epoch(number, progress)
        health = first(lambda: trainer.check_health(number))  # all processes use the first one's probes
        most_classes = max((entry["classes"] for entry in history.health), default=1.0)
        reason = "a non-finite loss" if not math.isfinite(loss + generator_loss) else health.collapsed(most_classes)
        agreement = [math.nan] if reason else first(trainer.agreement)
        if reason is None and not all(map(math.isfinite, agreement)):  # the last loss was computed before the last step
            reason = "non-finite student logits"
        if reason is None:
            current = trainer.history
            current.loss.append(round(loss, 6))
            current.generator.append(round(generator_loss, 6))
            current.health.append(asdict(health))
            for series, value in zip((current.agreement, current.average_agreement), agreement, strict=True):
                series.append(value)
            current.memory_bytes = sum(gathered(trainer.memory.nbytes()))
            trainer.save_samples(number)
            current.seconds.append(round(time.perf_counter() - start, 3))
            return trainer.state()
        trainer.load(good_state)
        history.rollbacks.append(f"epoch {number + 1}: {reason}")
        trainer.history = copy.deepcopy(history)
        trainer.attempt += 1
        trainer.replace_generator()
    advice = (
        "lower `student_rate` or `generator_rate`"
        if "loss" in reason or "logits" in reason
        else "lower `generator_rate` or raise `balance`"
    )
    student = f"as after epoch {number}" if number else "unchanged"
    raise UserError(
        f"epoch {number + 1} ended with {reason} {ATTEMPTS + 1} times; the student is {student}; {advice}, and "
        f"start again{' with another `state`' * keeps_state}"
    )


def _share(replay: Any) -> Any:
    """Replay settings for one process: its share of `replay_bytes`."""
    size = world().size
    if size == 1 or not hasattr(replay, "replay_bytes"):
        return replay
    return replay.model_copy(update={"replay_bytes": replay.replay_bytes // size})


@dataclass(frozen=True)
class OnlineState:
    """The optional state file of a run. Only the first process reads and writes it."""

    path: Path | None
    identity: dict[str, Any]
    scored: bool

    def resume(self, trainer: OnlineTrainer) -> int:
        """Restores the trainer from the file and returns the number of finished epochs; 0 for a new run.

        Raises UserError if the state of a new run would not fit in a file.
        """
        path = self.path
        header = None if path is None else first(lambda: self._read_header(path, trainer))
        epochs = trainer.settings.epochs
        state_header = self._header(epochs, 0, epochs if self.scored else 0) if header is None else header
        if path is None:
            return 0
        if state_header.attempt:
            trainer.attempt = state_header.attempt
            trainer.replace_generator()
        slots = self._layout(trainer, state_header)  # each process has its own memory and guide
        if header is None:
            first(lambda: check_room_for(path, KIND, state_header, slots))
            return 0
        tensors = first(lambda: load_state(path, KIND, header, slots))
        trainer.load(_state_of_rank(tensors, trainer.world.rank))
        for network in (trainer.student, trainer.average):
            check_positions(path, network)
        trainer.history = history_from_state(
            {k.removeprefix("history/"): t for k, t in tensors.items() if k.startswith("history/")}
        )
        return header.epoch

    def write(self, trainer: OnlineTrainer, state: dict[str, Tensor], epoch: int) -> None:
        """Saves the trainer's `state` and history after `epoch` epochs."""
        assert self.path is not None
        tensors, rank = dict(state), trainer.world.rank
        parts = {key: state[key] for key in state if key.startswith(PARTS)} if rank else {}
        for rank_parts in gathered(_names_in_file(parts, rank)):
            tensors |= rank_parts
        if rank == 0:
            tensors |= {f"history/{name}": tensor for name, tensor in history_state(trainer.history).items()}
            save_state(self.path, KIND, self._header(epoch, trainer.attempt, len(trainer.history.scores)), tensors)

    def _header(self, epoch: int, attempt: int, scored: int) -> OnlineHeader:
        identity = json.loads(json.dumps(self.identity))
        return OnlineHeader(
            identity=identity, environment=Environment.here(), epoch=epoch, attempt=attempt, scored=scored
        )

    def _read_header(self, path: Path, trainer: OnlineTrainer) -> OnlineHeader | None:
        if not path.exists():
            return None
        header = open_state(path, KIND, OnlineHeader, json.loads(json.dumps(self.identity)))
        scores_missing = self.scored and header.scored < header.epoch
        if header.epoch > trainer.settings.epochs or header.scored > header.epoch or scores_missing:
            got = f"{header.epoch} epochs, {header.scored} with a score"
            raise UserError(
                f"{path} belongs to a run with other settings ({got}); name another `state`, or repeat that run's command"
            )
        return header

    def _layout(self, trainer: OnlineTrainer, header: OnlineHeader) -> Slots:
        """Slots of the state file, including the parts of all processes."""
        layout = trainer.slots(header.epoch)
        for rank, slots in enumerate(gathered(layout)):
            if rank:
                layout |= _names_in_file({key: slot for key, slot in slots.items() if key.startswith(PARTS)}, rank)
        images = header.epoch * trainer.settings.iterations * trainer.settings.student_steps * trainer.settings.batch
        history = history_slots(header.epoch, scored=header.scored, images=images, attempts=header.attempt)
        return layout | prefixed(history, "history")


PARTS = ("memory/", "guide/")
"""Prefixes of the state's tensors that differ between processes."""
P = TypeVar("P")


def _names_in_file(parts: dict[str, P], rank: int) -> dict[str, P]:
    """`parts` with their names in the file: `memory/x` of process 2 is `memory-2/x`."""
    return {key.replace("/", f"-{rank}/", 1): part for key, part in parts.items()}


def _state_of_rank(tensors: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The state of process `rank` out of the file's tensors."""
    if rank == 0:
        return tensors
    shared = {key: tensor for key, tensor in tensors.items() if not key.startswith(PARTS)}
    names = {f"{part[:-1]}-{rank}/": part for part in PARTS}
    parts = {
        part + key.removeprefix(prefix): tensor
        for prefix, part in names.items()
        for key, tensor in tensors.items()
        if key.startswith(prefix)
    }
    return shared | parts
