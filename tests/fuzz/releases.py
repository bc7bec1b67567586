"""What the commands write and hand over: releases, records, synthetic and condensed sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from datafree._core.files import write_tensors
from datafree.data.condensed.condensed_set import Condensed, one_hot
from datafree.distillation.sources import stored_images
from datafree.records.record import Record, record
from datafree.records.statistics.input import InputMoments
from datafree.records.statistics.moments import Moments
from datafree.records.statistics.spectral import SpectralPairs
from datafree.releases.load import load_model
from datafree.releases.release import Release, write_release
from datafree.runs.output_folder import logged
from datafree.runs.run_reader import FinishedRun
from datafree.synthesis.methods import from_name
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize

from .subject import SPEC, Subject, teacher, toy

__all__ = ["RELEASES"]


def _release(folder: Path) -> None:
    kinds = [InputMoments(), (Moments(covariance="full"), ("input",)), Moments(), SpectralPairs()]
    write_release(folder / "r", teacher(), record(teacher(), toy(), kinds))
    (folder / "r" / "run.json").write_text(
        json.dumps({"format": 2, "verb": "distill", "settings": {"seed": 0}, "inputs": {}, "result": {
            "evaluation": {"accuracy": 50.0}, "curve": {"loss": [1.0, 0.5]}, "images": 3}})
    )  # fmt: skip


def _network(folder: Path) -> Any:
    network = load_model(str(folder / "r"))
    return network.module.state_dict(), network.spec.model_dump(), network.name


def _record(folder: Path) -> Any:
    opened = Record.load(folder / "r" / "record.safetensors", teacher())
    rng = torch.Generator().manual_seed(0)
    for name, entry in opened.entries.items():  # used, as a method uses it
        opened.accumulator(name, teacher()).sample(entry.summary, torch.arange(3), rng)
    return opened.digest(), opened.made, opened.released_statistics(teacher())


def _log(folder: Path) -> Any:
    return FinishedRun.of(folder / "r").model_dump(), logged(folder / "r")


def _plain(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file({key: own.clone() for key, own in teacher().module.state_dict().items()}, folder / "w.safetensors")


def _set(folder: Path) -> None:
    synthesize(teacher(), None, from_name("gaussian"), folder / "s", images=5, chunk=3, workers=1)


def _open_set(folder: Path) -> Any:
    opened = SyntheticSet.open(folder / "s", teacher())
    material = stored_images(opened)
    return opened.load(), opened.about["method"]["method"], opened.spec.model_dump(), opened.warning(), len(material)


def _condensed(folder: Path) -> None:
    Condensed(torch.rand(6, 1, 4, 4), one_hot(torch.arange(6) % 3, 3), SPEC, {"leakage": "all"}).save(folder / "c")


def _open_condensed(folder: Path) -> Any:
    own = Condensed.open(folder / "c", teacher())
    return own.pixels, own.labels, own.about, own.spec.model_dump(), own.accuracy(teacher())


CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.arange(16).flip(0))
        self.layer = nn.Linear(16, 3)

    def forward(self, x):
        return self.layer(x.flatten(1)[:, self.order])
"""


def _coded(folder: Path) -> None:
    (folder / "net.py").write_text(CODE)
    plain = folder / "w.safetensors"
    state = {
        "order": torch.arange(16).flip(0),
        "layer.weight": torch.rand(3, 16, generator=torch.Generator().manual_seed(0)),
        "layer.bias": torch.zeros(3),
    }
    write_tensors(plain, state, {}, kind="weights")
    network = load_model(f"{folder}/net.py:Net", weights=plain, spec=SPEC)
    write_release(folder / "r", network, record(network, toy(), [Moments()]))


def _with_code(folder: Path) -> Any:
    network = load_model(str(folder / "r"), code=f"{folder}/net.py:Net")
    opened = Release.open(folder / "r").record(network)
    return network.module.state_dict(), network.spec.model_dump(), opened and opened.digest()


RELEASES = {
    "record": Subject(_release, ("r/record.safetensors",), _record),
    "weights": Subject(_release, ("r/model.safetensors",), _network),
    "config.json": Subject(_release, ("r/config.json",), lambda f: (Release.open(f / "r").config, _network(f))),
    "run.json": Subject(_release, ("r/run.json",), _log, sealed=False),
    "release of code": Subject(_coded, ("r/config.json", "r/model.safetensors", "r/record.safetensors"), _with_code),
    "plain safetensors": Subject(
        _plain,
        ("w.safetensors",),
        lambda f: load_model("hinton8", weights=f / "w.safetensors", spec=SPEC).fingerprint(),
        sealed=False,
    ),
    "set.json": Subject(_set, ("s/set.json",), _open_set),
    "shard": Subject(_set, ("s/unit-000000.safetensors",), _open_set),
    "condensed": Subject(_condensed, ("c/condensed.safetensors",), _open_condensed),
}
