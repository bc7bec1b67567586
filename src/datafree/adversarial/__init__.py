"""Online distillation: a generator seeks images on which student and teacher differ, the student learns them (DAFL, DFAD,
Binici et al. 2021, 2022), and a memory of earlier images keeps it from forgetting.

One outer iteration is a few steps of the generator, then more of the student. In the generator's phase nothing of the
student moves, in the student's nothing of the generator; the teacher is frozen throughout.

`online` the settings, `game` both players and their steps, `history` what is known of them; the loop is here.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from ..behaviour import check_learns, check_pixel_gradient
from ..distillation import check_student
from ..errors import UserError
from ..files import write_tensors
from ..layout import channels_last
from ..network import Network, frozen
from ..parallel import broadcast, first, gathered, together, world
from ..progress import Progress, silent
from ..records import Record
from ..replay.nothing import Nothing
from ..states import read_state
from .game import Anchored, Game
from .history import Health, History
from .online import PRESETS, Online, preset

__all__ = ["PRESETS", "Anchored", "Health", "History", "Online", "adversarial", "preset"]

ATTEMPTS = 3


def adversarial(
    teacher: Network,
    student: Network,
    settings: Online | None = None,
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

    `replay` is a setting of `datafree.replay`, none by default. `anchored` keeps the generator near a few images. With
    `state`, a file there holds everything after each epoch, and a run with the same `identity` goes on from it. `each` is
    told after every epoch: the student that would be kept if it were the last, the history, and generated images, uint8
    (10, C, H, W), by epoch. An epoch that leaves a collapsed generator, or a loss or logits that are not finite, is thrown
    away and begun again with another generator, three times at most. Raises UserError then, the student as it was after the
    last good epoch; and where student and teacher do not go together.
    """
    settings, replay = settings or Online(), replay or Nothing()
    check_student(student, teacher, teacher.spec)
    teacher.check()
    for network in (teacher, student):
        check_pixel_gradient(network, "--online generator")
    check_learns(student)
    with together(), channels_last(teacher, student), frozen(teacher.module):
        broadcast(student.module)
        memory, objective = _share(replay).on(teacher, seed), settings.objective(teacher, record)
        game = Game(teacher, student, settings, memory, objective, seed, anchored)
        found = first(lambda: _read(state, identity or {}))
        start = 0 if found is None else _resume(found, game)
        if each is not None and game.world.rank == 0 and start == settings.epochs:
            each(game.kept, game.history, game.shown)  # it was stopped before this was said of its last epoch
        try:
            now = game.state()
            for epoch in range(start, settings.epochs):
                try:
                    now = _epoch(game, epoch, now, progress)
                except UserError:  # the state stays that of the last good epoch, the history says what came after
                    if each is not None and game.world.rank == 0 and epoch:
                        each(game.kept, game.history, game.shown)
                    raise
                if score is not None:
                    game.history.scores.append(first(lambda: score(student)))
                    game.history.average_scores.append(first(lambda: score(game.average)))
                if state is not None:
                    _save(state, game, now, identity or {}, epoch + 1)
                if each is not None and game.world.rank == 0:
                    each(game.kept, game.history, game.shown)
        finally:
            student.module.load_state_dict(game.kept.module.state_dict())
            student.module.eval()
    return game.history


def _epoch(game: Game, number: int, good: dict[str, Tensor], progress: Progress) -> dict[str, Tensor]:
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


def _save(path: Path, game: Game, now: dict[str, Tensor], identity: dict[str, Any], epoch: int) -> None:
    header = {"identity": identity, "epoch": epoch, "attempt": game.attempt, "history": asdict(game.history)}
    header["processes"] = game.world.size
    tensors, rank = dict(now), game.world.rank
    parts = [key for key in now if key.startswith(("memory/", "guide/"))] if rank else []
    for own in gathered({key.replace("/", f"-{rank}/", 1): now[key] for key in parts}):
        tensors |= own  # every process has a memory, and a guide, of its own
    if rank == 0:
        write_tensors(path, tensors, header, kind="online-state")


def _share(replay: Any) -> Any:
    """Settings of one process's memory; all together keep what `replay` allows."""
    size = world().size
    if size == 1 or not hasattr(replay, "replay_bytes"):
        return replay
    return replay.model_copy(update={"replay_bytes": replay.replay_bytes // size})


def _read(path: Path | None, identity: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The state of a run that goes on, checked; None for one that begins."""
    if path is None or not path.exists():
        return None
    tensors, header = read_state(path, "online-state", identity)
    if header.get("processes", 1) != world().size:
        raise UserError(
            f"{path} is of a run of {header.get('processes', 1)} processes with a memory each, this one has "
            f"{world().size}; go on with as many"
        )
    return tensors, header


def _resume(found: tuple[dict[str, Tensor], dict[str, Any]], game: Game) -> int:
    tensors, header = dict(found[0]), found[1]
    for part in ("memory", "guide") if game.world.rank else ():
        own = f"{part}-{game.world.rank}/"
        kept = {f"{part}/{key.removeprefix(own)}": tensor for key, tensor in tensors.items() if key.startswith(own)}
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(f"{part}/")} | kept
    game.attempt = int(header["attempt"])
    game.renew()
    game.load(tensors)
    game.history = History(**header["history"])
    return int(header["epoch"])
