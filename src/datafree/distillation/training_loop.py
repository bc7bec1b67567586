"""The training loop for any network, source and loss: the last epoch counts, resumable after every epoch, data-parallel
under torchrun."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from .._core.distributed import World, agree, average_gradients, broadcast, first, summed, together
from .._core.errors import UserError
from .._core.limits import EPOCHS
from .._core.progress import Progress, epoch_ended, silent
from .._core.resume import (
    Environment,
    StateHeader,
    check_room_for,
    has_identity,
    load_optimizer,
    load_state,
    open_state,
    optimizer_state,
    save_state,
)
from .._core.slots import Slot, Slots, module_slots, optimizer_slots
from ..models.behaviour import check_learns
from ..models.hooks import check_batch
from ..models.network import Network
from ..models.positions import check_positions
from ..models.precision import autocast, note_emulation
from .muon import Muon
from .schedule import Schedule
from .sources import Source

__all__ = ["Curve", "Schedule", "fit"]

Loss = Callable[[Tensor, Tensor], Tensor]
KIND = "training-state"
PREFIX = "adam"
"""Prefix of the optimizer's tensors in a state file, whichever optimizer it is."""
LARGEST_WEIGHT = 1e4
"""Weights above this are a sign of too large steps."""


class FitHeader(StateHeader):
    """Header of the state file of a training."""

    epoch: int = Field(ge=1, le=EPOCHS)
    scored: int = Field(ge=0, le=EPOCHS)
    """Number of epochs with a score."""


@dataclass
class Curve:
    """Measurements of a training; lists have one entry per epoch."""

    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """Result of `score` after each epoch, if one is given; never used to choose a checkpoint."""


def fit(
    network: Network,
    source: Source,
    loss: Loss,
    schedule: Schedule,
    *,
    seed: int,
    state: Path | None = None,
    identity: dict[str, Any] | None = None,
    score: Callable[[Network], float] | None = None,
    on_epoch: Callable[[Network, Curve], None] | None = None,
    replaces: dict[str, Any] | None = None,
    progress: Progress = silent,
) -> Curve:
    """Trains `network` in place. It ends in eval mode with the weights of the last epoch.

    With a `state` path, everything is saved there after each epoch, and a run with the same `identity` continues from it. A
    state whose identity is `replaces`, that of an earlier part of the same work, is written over after the first epoch.
    Raises UserError if the loss is not finite.

    Under torchrun every process takes its part of each batch; `loss` must be a mean over images. Batches, their order and
    the weights are those of one process up to rounding, except for dropout and batch norm, which normalises each part by its
    own statistics. Only the first process reads and writes `state`, calls `score`, and calls `on_epoch` after every epoch,
    after the state is written, with the network in eval mode and the curve so far.
    """
    with together() as world:
        check_learns(network)
        note_emulation(schedule.precision, network.device)
        check_batch(network, min(schedule.batch, len(source)) // world.size)
        saved = state, identity or {}, replaces
        return _fit(network, source, loss, schedule, seed, saved, (score, on_epoch), progress, world)


def new_optimizer(schedule: Schedule, module: nn.Module) -> Optimizer:
    """The optimizer of a schedule for a module's parameters."""
    if schedule.optimizer == "muon":
        return Muon(module.parameters(), lr=schedule.learning_rate)
    return torch.optim.Adam(module.parameters(), lr=schedule.learning_rate, fused=True)


def checked_score(value: Any, name: str = "score") -> float:
    """The value that a caller's `score` returned. Raises UserError unless it is a finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UserError(f"{name}: returned {type(value).__name__}, expected a number; return one") from None
    if not math.isfinite(number):
        raise UserError(f"{name}: returned {number}, expected a finite number; return one")
    return number


def _fit(
    network: Network, source: Source, loss: Loss, schedule: Schedule, seed: int,
    saved: tuple[Path | None, dict[str, Any], dict[str, Any] | None],
    calls: tuple[Callable[[Network], float] | None, Callable[[Network, Curve], None] | None], progress: Progress,
    world: World,
) -> Curve:  # fmt: skip
    (state, identity, replaces), (score, on_epoch) = saved, calls
    steps = max(1, len(source) // min(schedule.batch, len(source)))
    optimizer = new_optimizer(schedule, network.module)
    broadcast(network.module)

    def layout(header: FitHeader) -> Slots:
        return _layout(header, network.module, optimizer, steps)

    def read_saved() -> tuple[FitHeader, dict[str, Tensor]] | None:
        environment, scored = Environment.here(), schedule.epochs if score is not None else 0
        final_header = FitHeader(identity=identity, environment=environment, epoch=schedule.epochs, scored=scored)
        return None if state is None else _read_state(state, final_header, layout, replaces)

    loaded = first(read_saved)
    start, curve = (0, Curve()) if loaded is None else _restore(*loaded, network.module, optimizer)
    if start and state is not None:
        check_positions(state, network)
    for epoch in range(start, schedule.epochs):
        began = time.perf_counter()
        with torch.random.fork_rng([network.device] if network.device.type == "cuda" else []):
            torch.manual_seed(_torch_seed(seed, epoch, world))  # dropout draws from torch's global stream
            total = _epoch(network, source, loss, schedule, optimizer, seed, epoch, steps, progress, world)
        agree(network.module)
        curve.loss.append(total / steps)
        epoch_ended(progress, epoch + 1, schedule.epochs, curve.loss[-1])
        curve.seconds.append(time.perf_counter() - began)
        network.module.eval()
        if score is not None:
            curve.scores.append(first(lambda: checked_score(score(network))))
        if state is not None and world.rank == 0:
            environment, scored = Environment.here(), len(curve.scores)
            header = FitHeader(identity=identity, environment=environment, epoch=epoch + 1, scored=scored)
            _save(state, header, network.module, optimizer, curve)
        if on_epoch is not None and world.rank == 0:
            on_epoch(network, curve)
    network.module.eval()
    return curve


def _epoch(
    network: Network, source: Source, loss: Loss, schedule: Schedule, optimizer: Optimizer,
    seed: int, epoch: int, steps: int, progress: Progress, world: World,
) -> float:  # fmt: skip
    """Trains one epoch and returns the sum of the losses of its steps."""
    network.module.train()
    device, total, reason = network.device, torch.zeros(()), ""
    for step, (pixels, targets) in enumerate(source.epoch(seed, epoch, schedule.batch)):
        if step >= steps:
            break
        rate = schedule.learning_rate * _rate(schedule, epoch * steps + step, schedule.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        part = world.part(len(pixels))
        share = (part.stop - part.start) / len(pixels)
        with autocast(schedule.precision, device):
            logits = network.logits(pixels[part].to(device))
        value = loss(logits.float(), targets[part].to(device))
        measured = value.detach().cpu()
        if not math.isfinite(float(measured)):
            reason = reason or _blame_images(network, logits)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        average_gradients(network.module.parameters(), share)
        optimizer.step()
        total = total + share * measured
        progress(epoch * steps + step + 1, schedule.epochs * steps)
    total = summed(total)
    if not math.isfinite(float(total)):
        raise UserError(f"the loss is not finite in epoch {epoch + 1}; {reason or 'lower `learning_rate`'}")
    return float(total)


def _blame_images(network: Network, logits: Tensor) -> str:
    """Says that the images are to blame if some logits are not finite although no weight is large; otherwise empty."""
    not_finite = ~logits.detach().isfinite().flatten(1).all(1)
    weights = [weight.detach() for weight in network.module.parameters() if weight.numel()]
    if not all(float(weight.abs().amax()) < LARGEST_WEIGHT for weight in weights) or not bool(not_finite.any()):
        return ""
    return (
        f"the logits of {network.name} are not finite on {int(not_finite.sum()):,} of {len(not_finite):,} images of a "
        "batch, "
        "although its weights are: remove images on which its forward divides by 0, such as blank ones if it standardises "
        "each image"
    )


def _rate(schedule: Schedule, step: int, steps: int) -> float:
    """The learning rate at `step` as a share of the peak."""
    warmup_steps = schedule.warmup * steps
    if step < warmup_steps:
        return (step + 1) / max(warmup_steps, 1)
    if schedule.decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(steps - warmup_steps, 1)))


def _torch_seed(seed: int, epoch: int, world: World) -> int:
    """Seed of torch's global stream: each process has its own; the first one's is that of a single process."""
    from .._core.seeds import seed_of

    return seed_of(seed, "fit", epoch, *([world.rank] if world.rank else []))


def _layout(header: FitHeader, module: nn.Module, optimizer: Optimizer, steps: int) -> Slots:
    """All tensors of a state: weights, Adam's moments, and the curve."""
    return {
        **module_slots(module, "weights"),
        **optimizer_slots(optimizer, PREFIX, header.epoch * steps),
        "curve/loss": Slot(torch.float64, (header.epoch,)),
        "curve/seconds": Slot(torch.float64, (header.epoch,), low=0.0),
        "curve/scores": Slot(torch.float64, (header.scored,)),
    }


def _read_state(
    path: Path, final_header: FitHeader, layout: Callable[[FitHeader], Slots], replaces: dict[str, Any] | None
) -> tuple[FitHeader, dict[str, Tensor]] | None:
    """The saved state, checked; None for a new run, after checking that its final state will fit in a file."""
    if not path.exists() or (replaces is not None and has_identity(path, KIND, replaces)):
        check_room_for(path, KIND, final_header, layout(final_header))
        return None
    header = open_state(path, KIND, FitHeader, json.loads(json.dumps(final_header.identity)))
    scores_missing = final_header.scored and header.scored < header.epoch
    if header.epoch > final_header.epoch or header.scored > header.epoch or scores_missing:
        got = f"{header.epoch} epochs, {header.scored} with a score"
        raise UserError(
            f"{path} belongs to a run with other settings ({got}); name another `state`, or repeat that run's command"
        )
    return header, load_state(path, KIND, header, layout(header))


def _save(path: Path, header: FitHeader, module: nn.Module, optimizer: Optimizer, curve: Curve) -> None:
    tensors = {f"weights/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"curve/{name}": torch.tensor(values, dtype=torch.float64) for name, values in vars(curve).items()}
    save_state(path, KIND, header, tensors | optimizer_state(optimizer, PREFIX))


def _restore(
    header: FitHeader, tensors: dict[str, Tensor], module: nn.Module, optimizer: Optimizer
) -> tuple[int, Curve]:
    module.load_state_dict({n.removeprefix("weights/"): t for n, t in tensors.items() if n.startswith("weights/")})
    load_optimizer(optimizer, tensors, PREFIX)
    return header.epoch, Curve(*(tensors[f"curve/{name}"].tolist() for name in ("loss", "seconds", "scores")))
