"""What the quantization tests share: images, calibrated networks, and what was exported of them once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor


@dataclass(frozen=True)
class Exported:
    """One quantized network in its three forms."""

    own: Any
    graph: Any
    path: Path

    def answers(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits simulated, converted and by onnxruntime."""
        from datafree.quantization import run, session

        with torch.no_grad():
            converted = self.graph(pixels)
        return self.own.network.predict(pixels), converted, run(session(self.path), pixels)


@pytest.fixture(scope="session")
def shown(digits) -> Tensor:
    """300 digits to calibrate on."""
    return digits.pixels(range(300))


@pytest.fixture(scope="session")
def export(tmp_path_factory):
    def one(own) -> Exported:
        from datafree.quantization import convert, to_onnx

        graph = convert(own)
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        return Exported(own, graph, to_onnx(graph, path, own.network.spec.shape))

    return one


@pytest.fixture(scope="session")
def simulated(normed, shown):
    """Bits -> the digits' network at so many, made once; not to be changed."""
    from datafree.quantization import quantize

    return cache(lambda bits: quantize(normed, shown, bits))


@pytest.fixture(scope="session")
def exported(simulated, export):
    """As `simulated`, in all three forms."""
    return cache(lambda bits: export(simulated(bits)))
