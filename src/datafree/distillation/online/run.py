"""Online distillation: a generator seeks images on which student and teacher differ, the student learns them (DAFL, DFAD,
Binici et al. 2021, 2022), and a memory of earlier images keeps it from forgetting.

One outer iteration is a few steps of the generator, then more of the student. In the generator's phase nothing of the
student moves, in the student's nothing of the generator; the teacher is frozen throughout.

`online` the settings, `game` both players and their steps, `history` what is known of them; the loop is here.
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
from .history import GeneratorHealth, History, history_of, history_slots, history_state
from .settings import PRESETS, OnlineDistillation, online_preset
from .trainer import Anchored, OnlineTrainer

__all__ = ["PRESETS", "Anchored", "GeneratorHealth", "History", "OnlineDistillation", "online_preset", "train_online"]

ATTEMPTS = 3
KIND = "online-state"


class OnlineHeader(StateHeader):
    """Header of the state file of a generator against a student."""

    epoch: int = Field(ge=1, le=EPOCHS)
    attempt: int = Field(ge=0, le=ATTEMPTS * EPOCHS)
    """How many generators were given up."""
    scored: int = Field(ge=0, le=EPOCHS)
    """The number of epochs with a score."""


@checked
def train_online(
    teacher: Network,
    student: Network,
    settings: OnlineDistillation | None = None,
    replay: Any = None,
    *,
    record: Record | None = None,
    anchored: Anchored | None = None,
    seed: int = 0,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    each: Callable[[Network, History, dict[int, Tensor]], None] | None = None,
    progress: Progress = silent,
) -> History:
    """Trains `student` in place against a generator under `teacher`; it ends in eval mode as `settings.keep` says. No data.

    `replay` is a setting of `datafree.distillation.replay`, none by default. `anchored` keeps the generator near a few
    images. With `state`, a file there holds everything after each epoch, and a run with the same `identity` goes on from
    it. `each` is told after every epoch: the student that would be kept if it were the last, the history, and generated images, uint8
    (10, C, H, W), by epoch. An epoch that leaves a collapsed generator, or a loss or logits that are not finite, is thrown
    away and begun again with another generator, three times at most. Raises UserError then, the student as it was after the
    last good epoch; and where student and teacher do not go together.
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
                f"{network.name} is a TorchScript program, which cannot be copied to play against a generator; give the "
                "Python code that it was made from"
            )
        check_pixel_gradient(network, "--online generator")
    check_learns(student)
    with together(), channels_last(teacher, student), frozen(teacher.module):
        broadcast(student.module)
        memory, objective = _share(replay).bind(teacher, seed), settings.objective(teacher, record)
        game = OnlineTrainer(teacher, student, settings, memory, objective, seed, anchored)
        saved = SavedStudent(state, identity or {}, scored=score is not None)
        start = saved.resume(game)
        if each is not None and game.world.rank == 0 and start == settings.epochs:
            each(game.kept, game.history, game.shown)  # it was stopped before this was said of its last epoch
        try:
            now = game.state()
            for epoch in range(start, settings.epochs):
                try:
                    now = _epoch(game, epoch, now, progress)
                    epoch_ended(progress, epoch + 1, settings.epochs, game.history.loss[-1])
                except UserError:  # the state stays that of the last good epoch, the history says what came after
                    if each is not None and game.world.rank == 0 and epoch:
                        each(game.kept, game.history, game.shown)
                    raise
                if score is not None:
                    game.history.scores.append(first(lambda: score(student)))
                    game.history.average_scores.append(first(lambda: score(game.average)))
                if state is not None:
                    saved.write(game, now, epoch + 1)
                if each is not None and game.world.rank == 0:
                    each(game.kept, game.history, game.shown)
        finally:
            student.module.load_state_dict(game.kept.module.state_dict())
            student.module.eval()
    return game.history


def _epoch(game: OnlineTrainer, number: int, good: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
    """One epoch that ends well, and the state after it; or a UserError with everything as it was before: in `good`."""
    history = copy.deepcopy(game.history)
    for _ in range(ATTEMPTS + 1):
        began = time.perf_counter()
        loss, made = game.epoch(number, progress)
        health = first(lambda: game.watch(number))  # the probes are the first process's
        most = max((own["classes"] for own in history.health), default=1.0)
        why = "a loss that is not finite" if not math.isfinite(loss + made) else health.collapsed(most)
        agreement = [math.nan] if why else first(game.agreement)
        if why is None and not all(map(math.isfinite, agreement)):  # the last step came after the last loss
            why = "a student whose logits are not finite"
        if why is None:
            own = game.history
            own.loss.append(round(loss, 6))
            own.generator.append(round(made, 6))
            own.health.append(asdict(health))
            for kept, value in zip((own.agreement, own.average_agreement), agreement, strict=True):
                kept.append(value)
            own.memory_bytes = sum(gathered(game.memory.nbytes()))
            game.show(number)
            own.seconds.append(round(time.perf_counter() - began, 3))
            return game.state()
        game.load(good)
        history.rollbacks.append(f"epoch {number + 1}: {why}")
        game.history = copy.deepcopy(history)
        game.attempt += 1
        game.renew()
    advice = (
        "--student-rate or --generator-rate"
        if "loss" in why or "logits" in why
        else "--generator-rate, or raise --balance"
    )
    kept = f"as it was after epoch {number}" if number else "as it began"
    raise UserError(
        f"epoch {number + 1} ends in {why}, {ATTEMPTS + 1} times; the student is {kept}; lower {advice}, and begin anew "
        "(with another --out)"
    )


def _share(replay: Any) -> Any:
    """Settings of one process's memory; all together keep what `replay` allows."""
    size = world().size
    if size == 1 or not hasattr(replay, "replay_bytes"):
        return replay
    return replay.model_copy(update={"replay_bytes": replay.replay_bytes // size})


@dataclass(frozen=True)
class SavedStudent:
    """The state file of a run, if it has one; the first process alone reads and writes it."""

    path: Path | None
    identity: dict[str, Any]
    scored: bool

    def resume(self, game: OnlineTrainer) -> int:
        """How many epochs are done, the game as it was after them; 0 for a run that begins, which is found to fit a file."""
        path = self.path
        header = None if path is None else first(lambda: self._opened(path, game))
        epochs = game.own.epochs
        last = self._header(epochs, 0, epochs if self.scored else 0) if header is None else header
        if path is None:
            return 0
        if last.attempt:
            game.attempt = last.attempt
            game.renew()
        layout = self._layout(game, last)  # every process has a memory, and a guide, of its own
        if header is None:
            first(lambda: check_room_for(path, KIND, last, layout))
            return 0
        tensors = first(lambda: load_state(path, KIND, header, layout))
        game.load(_own(tensors, game.world.rank))
        for network in (game.student, game.average):
            check_positions(path, network)
        game.history = history_of(
            {k.removeprefix("history/"): t for k, t in tensors.items() if k.startswith("history/")}
        )
        return header.epoch

    def write(self, game: OnlineTrainer, now: dict[str, Tensor], epoch: int) -> None:
        """Everything after that many epochs; `now` is the game's state."""
        assert self.path is not None
        tensors, rank = dict(now), game.world.rank
        parts = {key: now[key] for key in now if key.startswith(PARTS)} if rank else {}
        for own in gathered(_of_rank(parts, rank)):
            tensors |= own
        if rank == 0:
            tensors |= {f"history/{name}": own for name, own in history_state(game.history).items()}
            save_state(self.path, KIND, self._header(epoch, game.attempt, len(game.history.scores)), tensors)

    def _header(self, epoch: int, attempt: int, scored: int) -> OnlineHeader:
        identity = json.loads(json.dumps(self.identity))
        return OnlineHeader(
            identity=identity, environment=Environment.here(), epoch=epoch, attempt=attempt, scored=scored
        )

    def _opened(self, path: Path, game: OnlineTrainer) -> OnlineHeader | None:
        if not path.exists():
            return None
        header = open_state(path, KIND, OnlineHeader, json.loads(json.dumps(self.identity)))
        short = self.scored and header.scored < header.epoch
        if header.epoch > game.own.epochs or header.scored > header.epoch or short:
            got = f"{header.epoch} epochs, {header.scored} with a score"
            raise UserError(
                f"{path} is of a run with other settings ({got}); name another --out, or repeat that run's command"
            )
        return header

    def _layout(self, game: OnlineTrainer, header: OnlineHeader) -> Slots:
        """Slots of the state file, with the parts of every process."""
        own = game.slots(header.epoch)
        for rank, slots in enumerate(gathered(own)):
            if rank:
                own |= _of_rank({key: slot for key, slot in slots.items() if key.startswith(PARTS)}, rank)
        images = header.epoch * game.own.iterations * game.own.student_steps * game.own.batch
        history = history_slots(header.epoch, scored=header.scored, images=images, attempts=header.attempt)
        return own | prefixed(history, "history")


PARTS = ("memory/", "guide/")
"""Prefixes of the parts of the state that each process has for itself."""
P = TypeVar("P")


def _of_rank(parts: dict[str, P], rank: int) -> dict[str, P]:
    """By the names that they have in the file: `memory/x` of process 2 is `memory-2/x`."""
    return {key.replace("/", f"-{rank}/", 1): own for key, own in parts.items()}


def _own(tensors: dict[str, Tensor], rank: int) -> dict[str, Tensor]:
    """The state as process `rank` knows it."""
    if rank == 0:
        return tensors
    shared = {key: own for key, own in tensors.items() if not key.startswith(PARTS)}
    names = {f"{part[:-1]}-{rank}/": part for part in PARTS}
    mine = {
        part + key.removeprefix(own): t
        for own, part in names.items()
        for key, t in tensors.items()
        if key.startswith(own)
    }
    return shared | mine
