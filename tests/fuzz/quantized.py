"""Quantized folders: an ONNX file, a program and their config.json, opened and run as `inspect` and `evaluate` do it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datafree._core.files import write_sealed_json
from datafree.cli.inspect import inspect
from datafree.evaluation.accuracy import evaluate
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.quantization.folder import write_quantized
from datafree.releases.quantized import open_quantized

from .mutations import spoilt_bytes
from .onnx_mutations import changed_onnx
from .subject import Subject, toy

__all__ = ["QUANTIZED"]

SPEC = InputSpec(shape=(1, 4, 4), classes=tuple("abc"), mean=(0.4,), std=(0.3,))
ONNX = "q/model.onnx"


class Small(nn.Module):
    """A residual block, a pool and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.bn, self.fc = nn.BatchNorm2d(4), nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x)).relu()
        return self.fc(nn.functional.max_pool2d(x + self.again(x).relu(), 2).flatten(1))


def _make(folder: Path) -> None:
    from datafree.quantization import Bits, calibrate, convert, onnx_content

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(Small().eval(), SPEC, "custom:small")
    bits = Bits()
    own = calibrate(network, torch.rand(20, *SPEC.shape, generator=torch.Generator().manual_seed(1)), bits)
    (folder / "q").mkdir()
    (folder / "q" / ".datafree.json").write_text(json.dumps({"kind": "quantized"}))
    (folder / ONNX).write_bytes(onnx_content(convert(own), SPEC.shape))
    (folder / "q" / "model.pt2").write_bytes(b"a program, which is never opened")
    write_quantized(folder / "q", network, bits, "card", fits_16_bits=True)


def _open(folder: Path) -> Any:
    inspect(folder / "q")
    network = open_quantized(folder / "q", threads=1)
    found = evaluate(network, toy())
    module: Any = network.module
    module.process.close()
    return network.name, network.spec.model_dump(), found.accuracy, found.by_class, module.digest


def _mutate(folder: Path, name: str, rng: random.Random) -> tuple[str, bool]:
    """Another program under a config.json that names its checksum."""
    path = folder / name
    content = path.read_bytes()
    kind, content = changed_onnx(content, rng) if rng.random() < 0.9 else spoilt_bytes(content, rng)
    path.write_bytes(content)
    if path.name == "model.onnx":
        config = json.loads((folder / "q" / "config.json").read_bytes())
        config["sha256"]["model.onnx"] = hashlib.sha256(content).hexdigest()
        write_sealed_json(folder / "q" / "config.json", config)
    return f"sealed anew, {kind}", True


def _mutate_any(folder: Path, name: str, rng: random.Random) -> tuple[str, bool]:
    from .mutations import mutate, mutate_json

    return mutate_json(folder / name, rng) if name.endswith(".json") else mutate(folder / name, rng)


QUANTIZED = {
    "quantized program": Subject(_make, (ONNX,), _open, mutate=_mutate, seconds=130.0),
    "quantized folder": Subject(
        _make, ("q/config.json", "q/config.json", ONNX, "q/model.pt2"), _open, mutate=_mutate_any, seconds=130.0
    ),
}
