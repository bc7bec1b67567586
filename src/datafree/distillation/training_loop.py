"""The one training loop: any network, any source, any loss; last epoch, resumable after every epoch, data-parallel
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
from .muon import Muon
from .schedule import Schedule
from .sources import Source

__all__ = ["Curve", "Schedule", "fit"]

Loss = Callable[[Tensor, Tensor], Tensor]
KIND = "training-state"
PREFIX = "adam"
"""Prefix of the optimizer's tensors in a state file, whichever optimizer it is."""
USUAL = 1e4
"""A weight larger than this has come of steps that were too large."""


class FitHeader(StateHeader):
    """Of the state of a training."""

    epoch: int = Field(ge=1, le=EPOCHS)
    scored: int = Field(ge=0, le=EPOCHS)
    """The number of epochs with a score."""


@dataclass
class Curve:
    """What happened, epoch by epoch."""

    loss: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """`score` after each epoch, where one was asked for; never used to choose a checkpoint."""


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
    progress: Progress = silent,
) -> Curve:
    """Trains `network` in place and leaves it in eval mode at its last epoch.

    With `state`, a file there holds everything after each epoch, and a run with the same `identity` goes on from it.
    Raises UserError when the loss turns non-finite.

    Under torchrun every process takes its part of each batch, of which `loss` is a mean: the batches and their order are
    those of one process, and so are the weights, up to rounding, but for batch norm, which normalises each part by its
    own statistics, and dropout. The first process alone reads and writes `state`, is asked for a `score`, and
    calls `on_epoch` after every epoch, once the state is written, with the network in eval mode and the curve so far.
    """
    with together() as own:
        check_learns(network)
        check_batch(network, min(schedule.batch, len(source)) // own.size)
        return _fit(network, source, loss, schedule, seed, (state, identity or {}), (score, on_epoch), progress, own)


def new_optimizer(schedule: Schedule, module: nn.Module) -> Optimizer:
    """The optimizer of a schedule for a module's parameters."""
    if schedule.optimizer == "muon":
        return Muon(module.parameters(), lr=schedule.learning_rate)
    return torch.optim.Adam(module.parameters(), lr=schedule.learning_rate, fused=True)


def _fit(
    network: Network, source: Source, loss: Loss, schedule: Schedule, seed: int, kept: tuple[Path | None, dict[str, Any]],
    calls: tuple[Callable[[Network], float] | None, Callable[[Network, Curve], None] | None], progress: Progress, own: World,
) -> Curve:  # fmt: skip
    (state, identity), (score, on_epoch) = kept, calls
    steps = max(1, len(source) // min(schedule.batch, len(source)))
    optimizer = new_optimizer(schedule, network.module)
    broadcast(network.module)

    def layout(header: FitHeader) -> Slots:
        return _layout(header, network.module, optimizer, steps)

    def begin() -> tuple[FitHeader, dict[str, Tensor]] | None:
        here, scored = Environment.here(), schedule.epochs if score is not None else 0
        last = FitHeader(identity=identity, environment=here, epoch=schedule.epochs, scored=scored)
        return None if state is None else _begin(state, last, layout)

    found = first(begin)
    start, curve = (0, Curve()) if found is None else _go_on(*found, network.module, optimizer)
    if start and state is not None:
        check_positions(state, network)
    for epoch in range(start, schedule.epochs):
        began = time.perf_counter()
        with torch.random.fork_rng([network.device] if network.device.type == "cuda" else []):
            torch.manual_seed(_torch_seed(seed, epoch, own))  # dropout draws from torch's global stream
            total = _epoch(network, source, loss, schedule, optimizer, seed, epoch, steps, progress, own)
        agree(network.module)
        curve.loss.append(total / steps)
        epoch_ended(progress, epoch + 1, schedule.epochs, curve.loss[-1])
        curve.seconds.append(time.perf_counter() - began)
        network.module.eval()
        if score is not None:
            curve.scores.append(first(lambda: score(network)))
        if state is not None and own.rank == 0:
            here = Environment.here()
            scored = len(curve.scores)
            header = FitHeader(identity=identity, environment=here, epoch=epoch + 1, scored=scored)
            _save(state, header, network.module, optimizer, curve)
        if on_epoch is not None and own.rank == 0:
            on_epoch(network, curve)
    network.module.eval()
    return curve


def _epoch(
    network: Network, source: Source, loss: Loss, schedule: Schedule, optimizer: Optimizer,
    seed: int, epoch: int, steps: int, progress: Progress, own: World,
) -> float:  # fmt: skip
    """One pass; the sum of the losses of its steps."""
    network.module.train()
    device, total, why = network.device, torch.zeros(()), ""
    narrow = schedule.precision == "bfloat16"
    for step, (pixels, targets) in enumerate(source.epoch(seed, epoch, schedule.batch)):
        if step >= steps:
            break
        rate = schedule.learning_rate * _rate(schedule, epoch * steps + step, schedule.epochs * steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        part = own.part(len(pixels))
        share = (part.stop - part.start) / len(pixels)
        with torch.autocast(device.type, torch.bfloat16, enabled=narrow):
            logits = network.logits(pixels[part].to(device))
        value = loss(logits.float(), targets[part].to(device))
        measured = value.detach().cpu()
        if not math.isfinite(float(measured)):
            why = why or _unanswered(network, logits)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        average_gradients(network.module.parameters(), share)
        optimizer.step()
        total = total + share * measured
        progress(epoch * steps + step + 1, schedule.epochs * steps)
    total = summed(total)
    if not math.isfinite(float(total)):
        raise UserError(f"the loss is not finite in epoch {epoch + 1}; {why or 'lower --learning-rate'}")
    return float(total)


def _unanswered(network: Network, logits: Tensor) -> str:
    """That it is the images, where some logits are no numbers although no weight is large; else empty."""
    bad = ~logits.detach().isfinite().flatten(1).all(1)
    usual = all(float(own.detach().abs().amax()) < USUAL for own in network.module.parameters() if own.numel())
    if not usual or not bool(bad.any()):
        return ""
    return (
        f"the logits of {network.name} are not finite on {int(bad.sum()):,} of {len(bad):,} images of a batch, although its "
        "weights are: leave images out on which its forward divides by 0, such as blank ones where it standardises each"
    )


def _rate(schedule: Schedule, step: int, steps: int) -> float:
    """The share of the full learning rate at `step`."""
    warm = schedule.warmup * steps
    if step < warm:
        return (step + 1) / max(warm, 1)
    if schedule.decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))


def _torch_seed(seed: int, epoch: int, own: World) -> int:
    """Every process but the first, which draws as one alone would, has a stream of its own."""
    from .._core.seeds import seed_of

    return seed_of(seed, "fit", epoch, *([own.rank] if own.rank else []))


def _layout(header: FitHeader, module: nn.Module, optimizer: Optimizer, steps: int) -> Slots:
    """Every tensor of a state: weights, moments, and the curve."""
    return {
        **module_slots(module, "weights"),
        **optimizer_slots(optimizer, PREFIX, header.epoch * steps),
        "curve/loss": Slot(torch.float64, (header.epoch,)),
        "curve/seconds": Slot(torch.float64, (header.epoch,), low=0.0),
        "curve/scores": Slot(torch.float64, (header.scored,)),
    }


def _begin(
    path: Path, last: FitHeader, layout: Callable[[FitHeader], Slots]
) -> tuple[FitHeader, dict[str, Tensor]] | None:
    """The state of a run that goes on, checked; None for one that begins, whose last state is found to fit a file."""
    if not path.exists():
        check_room_for(path, KIND, last, layout(last))
        return None
    header = open_state(path, KIND, FitHeader, json.loads(json.dumps(last.identity)))
    if header.epoch > last.epoch or header.scored > header.epoch or (last.scored and header.scored < header.epoch):
        got = f"{header.epoch} epochs, {header.scored} with a score"
        raise UserError(
            f"{path} is of a run with other settings ({got}); name another `out`, or repeat that run's command"
        )
    return header, load_state(path, KIND, header, layout(header))


def _save(path: Path, header: FitHeader, module: nn.Module, optimizer: Optimizer, curve: Curve) -> None:
    tensors = {f"weights/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors |= {f"curve/{name}": torch.tensor(values, dtype=torch.float64) for name, values in vars(curve).items()}
    save_state(path, KIND, header, tensors | optimizer_state(optimizer, PREFIX))


def _go_on(header: FitHeader, tensors: dict[str, Tensor], module: nn.Module, optimizer: Optimizer) -> tuple[int, Curve]:
    module.load_state_dict({n.removeprefix("weights/"): t for n, t in tensors.items() if n.startswith("weights/")})
    load_optimizer(optimizer, tensors, PREFIX)
    return header.epoch, Curve(*(tensors[f"curve/{name}"].tolist() for name in ("loss", "seconds", "scores")))
