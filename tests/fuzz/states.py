"""States that stopped runs leave: of trainings, games, condensing, recording and fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from datafree.data.condensed import methods
from datafree.data.condensed.methods import Job, condense, distribution_matching
from datafree.data.dataset import in_memory
from datafree.distillation import replay
from datafree.distillation.online.run import AnchorImages, OnlineDistillation, train_online
from datafree.distillation.sources import labelled
from datafree.distillation.training_loop import Schedule, fit
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records import record as records
from datafree.records.record import record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralPairs
from datafree.releases.load import new_model
from datafree.synthesis.losses import alignment

from .subject import SPEC, Stopped, Subject, left, teacher, toy

__all__ = ["STATES"]


def _fit(folder: Path) -> Any:
    network = new_model("hinton8", SPEC, seed=1)
    curve = fit(network, labelled(teacher(), toy()), cross_entropy, Schedule(epochs=1), seed=0, state=folder / "state")
    return network.module.state_dict(), curve.loss


def _online(kind: str, guide: str | None = None) -> Callable[[Path], Any]:
    own = {"none": {}, "ema": {"replay_bytes": 90_000}, "vae": {"replay_bytes": 40_000, "vae_code": 4}}
    settings = OnlineDistillation(epochs=1, iterations=2, student_steps=2, batch=16, latent=8, write_every=1)

    def play(folder: Path) -> Any:
        student, anchors = new_model("hinton8", SPEC, seed=1), None
        if guide is not None:
            pixels = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
            anchors = AnchorImages(alignment.from_name(guide), pixels, torch.eye(3).repeat(2, 1))
        memory = replay.from_name(kind, **own.get(kind, {"replay_bytes": 600}))
        history = train_online(teacher(), student, settings, memory, anchors=anchors, state=folder / "state")
        return student.module.state_dict(), history.loss, history.health

    return play


def _condense(folder: Path) -> Any:
    spec, pixels = (
        InputSpec(shape=(1, 8, 8), classes=tuple("abc")),
        np.random.default_rng(0).integers(0, 256, (12, 1, 8, 8)),
    )
    data = in_memory("toy", "train", "abc", np.arange(12) % 3, pixels.astype(np.uint8))
    before, distribution_matching.PAUSE = distribution_matching.PAUSE, -1
    first = not (folder / "state").exists()

    def stop(*_: int) -> None:
        if first and (folder / "state").exists():
            raise Stopped

    try:
        return condense(
            methods.from_name("dm", iterations=2, real=2, width=4),
            Job(data, spec, 2).resumed(folder / "state", {}, stop),
        ).pixels
    finally:
        distribution_matching.PAUSE = before


def _sums(folder: Path) -> Any:
    before, records._chunk = records._chunk, lambda *_: 16
    first = not (folder / "state").exists()

    def stop(*_: int) -> None:
        if first:
            raise Stopped

    try:
        kinds = [InputMoments(), Moments(covariance="full"), SpectralPairs()]
        return record(teacher(), toy(), kinds, state=folder / "state", progress=stop).digest()
    finally:
        records._chunk = before


class Shuffled(nn.Module):
    """Somebody's own network, with a table of positions, a bias looked up by number, and a count of its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(16, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("place", torch.arange(3).repeat(2)[:3])
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))
        self.table, self.layer = nn.Parameter(torch.zeros(5)), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes += 1
        return self.layer(x.flatten(1)[:, self.order]) + self.table[self.place]


def _indexed(folder: Path) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Shuffled(), SPEC, "shuffled")
    return _stopped_fit(network, folder)


def _stopped_fit(network: Network, folder: Path) -> Any:
    """Two epochs, of which the first run makes one."""
    first = not (folder / "state").exists()

    def stop(done: int, _: int) -> None:
        if first and done == 4:
            raise Stopped

    curve = fit(
        network, labelled(teacher(), toy()), cross_entropy, Schedule(epochs=2, batch=10),
        seed=0, state=folder / "state", progress=stop,
    )  # fmt: skip
    return network.module.state_dict(), curve.loss


@cache
def _rounded() -> Any:
    """A network with simulated rounding, and the one it was made from; capturing it takes seconds."""
    from datafree.quantization import Bits, calibrate

    spec = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = (nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 3))
        network = Network(nn.Sequential(*parts).eval(), spec, "small")
    pixels = torch.rand(20, *spec.shape, generator=torch.Generator().manual_seed(1))
    return calibrate(network, pixels, Bits(weights=4, activations=4)), network, pixels


def _finetune(folder: Path) -> Any:
    from datafree.quantization import FineTuning, finetune

    rounded, network, pixels = _rounded()
    own, first = copy.deepcopy(rounded), not (folder / "state").exists()

    def stop(done: int, _: int) -> None:
        if first and done == 3:
            raise Stopped

    settings = FineTuning(epochs=2, batch=10)
    curve = finetune(own, network, pixels, settings, state=folder / "state", identity={"a": 1}, progress=stop)
    return own.network.module.state_dict(), curve.loss


RUNS = {
    "state of a training": _fit,
    "state of a network with positions": _indexed,
    **{f"state of a game, {kind}": _online(kind) for kind in ("bank", "balanced", "vae", "ema")},
    "state of a guided game": _online("none", "discriminator"),
    "state of condensing": _condense,
    "sums of a recording": _sums,
}
STATES = {
    **{name: Subject(left(run), ("state",), run) for name, run in RUNS.items()},
    "state of fine-tuning": Subject(left(_finetune), ("state",), _finetune, prepare=_rounded),
}
