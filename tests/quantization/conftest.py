"""What the quantization tests share: images, calibrated networks, what was exported of them once, and how forms compare.

Two forms of one quantized network (simulated, converted, ONNX) add up the same products in another order, and CPUs differ
in that too. A value halfway between two levels can then be rounded up by one and down by the other, after which all that
follows differs. So forms are compared layer by layer on equal inputs: `Roundings`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx import Interpreter

TIE = 5e-3
"""Levels from the middle between two, within which engines may round to either."""
CLOSE = 1e-4
"""Difference of logits that float32 sums in another order may have, as a share of the largest logit."""


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

    def check_one_network(self, pixels: Tensor, *, untied: bool = True) -> None:
        """Asserts that the three forms are one network: equal but at rounding ties, and there one level apart.

        `untied`: some of these images have no tie, so that whole passes can be compared too.
        """
        levels, logits = onnx_levels(self.path, pixels)
        scale = max(1.0, float(logits.abs().max()))
        for graph in (self.own.graph, self.graph):
            follow = Roundings(graph, levels)
            with torch.no_grad():
                followed = follow.run(pixels)
            assert len(follow.positions) == len(levels) > 0
            assert follow.largest <= 1
            assert follow.from_tie <= TIE
            assert float((followed - logits).abs().max()) <= CLOSE * scale
        alone = Roundings(self.own.graph)
        with torch.no_grad():
            simulated = alone.run(pixels)
        alike = alone.distance_to_tie() > TIE / 10  # these images are rounded alike everywhere
        assert bool(alike.any()) == untied
        top = simulated.topk(2, 1).values
        clear = alike & (top[:, 0] - top[:, 1] > 2 * CLOSE * scale)
        for form in self.answers(pixels) if untied else ():
            assert float((form - simulated)[alike].abs().max()) <= CLOSE * scale
            assert torch.equal(form.argmax(1)[clear], simulated.argmax(1)[clear])


class Roundings(Interpreter):
    """Runs a simulated or converted graph; notes where on its grid each activation lay, in levels, before it was rounded.

    With `levels`, the rounded activations of another engine (N, ...), these go on instead of the graph's own, so that
    each layer has that engine's input: `largest` is by how many levels the two then differ, and `from_tie` how far from
    halfway the farthest activation that differs lay.
    """

    def __init__(self, graph: Any, levels: list[Tensor] | None = None):
        super().__init__(graph)
        self.levels = levels
        self.positions: list[Tensor] = []
        self.largest, self.from_tie = 0.0, 0.0

    def call_module(self, target, args, kwargs):
        from datafree.quantization.fake_quantize import FakeQuantize

        result, grid = super().call_module(target, args, kwargs), self.fetch_attr(str(target))
        if not isinstance(grid, FakeQuantize) or grid.by_channel:
            return result
        step, zero = float(grid.step.detach()), int(grid.zero_point)
        rounded = (result.double() / step).round() + zero
        return self._note(args[0], rounded, step, zero, grid.quant_min, grid.quant_max).to(result.dtype)

    def call_function(self, target, args, kwargs):
        result = super().call_function(target, args, kwargs)
        if target != torch.ops.quantized_decomposed.quantize_per_tensor.default:
            return result
        values, step, zero, low, high, dtype = args
        dequantized = self._note(values, result.double(), step, zero, low, high)
        return ((dequantized / step).round() + zero).to(dtype)

    def _note(self, values: Tensor, rounded: Tensor, step: float, zero: int, low: int, high: int) -> Tensor:
        """What goes on, in the units of `values`, in double precision."""
        position = (values.double() / step + zero).clamp(low, high)
        self.positions.append(position)
        if self.levels is not None:
            other = self.levels[len(self.positions) - 1].double()
            differ = rounded != other
            self.largest = max(self.largest, float((rounded - other).abs().max()))
            if differ.any():
                self.from_tie = max(self.from_tie, float(_from_half(position)[differ].max()))
            rounded = other
        return (rounded - zero) * step

    def distance_to_tie(self) -> Tensor:
        """Levels (N,) from each image's activation that lay nearest to halfway between two levels."""
        return torch.stack([_from_half(position).flatten(1).amin(1) for position in self.positions]).amin(0)


def _from_half(position: Tensor) -> Tensor:
    return (position - position.floor() - 0.5).abs()


def onnx_levels(path: Path, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
    """The rounded activations of an ONNX file by onnxruntime, in the order of its QuantizeLinear nodes, and its logits."""
    import onnx
    import onnxruntime

    model = onnx.load(path)
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    opened = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    *levels, logits = opened.run([*names, "logits"], {"pixels": pixels.numpy()})
    return [torch.from_numpy(level.astype("int64")) for level in levels], torch.from_numpy(logits)


@pytest.fixture(scope="session", autouse=True)
def _originals_written_once():
    """Each save writes the original as ONNX too, to compare the speed: one that did not change is not written anew."""
    try:
        from datafree.quantization import quantized_network
    except ImportError:  # without torchao
        yield
        return
    write, written = quantized_network.onnx_content, {}

    def content(network, shape):
        key = id(network), network.fingerprint()
        if key not in written:
            written[key] = network, write(network, shape)  # the network too, so that no other one gets its id
        return written[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantized_network, "onnx_content", content)
        yield


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
    from datafree.quantization import calibrate

    return cache(lambda bits: calibrate(normed, shown, bits))


@pytest.fixture(scope="session")
def exported(simulated, export):
    """As `simulated`, in all three forms."""
    return cache(lambda bits: export(simulated(bits)))
