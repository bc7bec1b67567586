"""Post-training quantization: a copy of the network whose rounding is simulated, its grids chosen on images."""

from __future__ import annotations

from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node

from .._core.arguments import checked
from .._core.errors import UserError
from .._core.optional_packages import quiet, require
from .._core.progress import Progress, silent
from ..models.missing_layers import no_layer
from ..models.network import Network
from ..releases.bits import Bits, TargetCPU
from .annotate import UniformQuantizer, behind, parameter_of, unrounded, weighted
from .batchnorm_ranges import ActivationMoments, moments, weighed
from .capture import capture, compare
from .equalize import equalize, pairs
from .fake_quantize import FakeQuantize, covering
from .folding import fold_batch_norms, untie

__all__ = ["Correction", "Quantized", "Simulated", "calibrate"]

BATCH = 64
Correction = Literal["analytic", "empirical", "none"]
"""Of biases, in the words of Nagel et al. 2019."""
LARGEST_BIAS = 2.0**30
CHECKED = 512
"""Of the calibration images, how many the graph is compared with the network on before anything is rounded."""
ROUNDING = 1e-2
"""As `capture.SAME`, after batch norms were folded and weights scaled, which moves every sum a little."""
UNROUNDED = (
    "its graph, batch norms folded and nothing rounded yet,",
    "check the network's batch norms for tiny variances",
)


class Simulated(nn.Module):
    """A captured graph as a module: it has one mode, so `train` and `eval` leave it alone; gradients flow in it."""

    def __init__(self, graph: GraphModule):
        super().__init__()
        self.graph = graph

    def forward(self, normalised: Tensor) -> Tensor:
        return self.graph(normalised)

    def train(self, mode: bool = True) -> Simulated:
        self.training = mode
        return self


@dataclass(frozen=True)
class Quantized:
    """A quantized network: `network` simulates it, with gradients for its weights and grids."""

    network: Network
    bits: Bits
    target_cpu: TargetCPU = "any"

    @property
    def graph(self) -> GraphModule:
        assert isinstance(self.network.module, Simulated)
        return self.network.module.graph

    def steps(self) -> list[FakeQuantize]:
        """Its grids."""
        return [part for part in self.graph.modules() if isinstance(part, FakeQuantize)]

    def layers(self) -> Iterator[tuple[Node, FakeQuantize, FakeQuantize]]:
        """Every conv and linear node whose weight is rounded, with its input's and its weight's grid."""
        for node in weighted(self.graph):
            grids = [_grid(self.graph, own) for own in node.args[:2]]
            if grids[0] is not None and grids[1] is not None:
                yield node, grids[0], grids[1]

    def left_in_float(self) -> list[str]:
        """The layers and products that are not rounded, each as `place: operator`, such as `up: conv_transpose2d`."""
        return unrounded(self.graph, {node for node, _, _ in self.layers()})

    def reduced(self) -> bool:
        """Whether some weights of 8 bits use 7 of them, as `target_cpu` any asks for."""
        asked = {own for own in (self.bits.weights, self.bits.first, self.bits.last) if own is not None}
        meet = any((weight.quant_max, data.quant_max) == (63, 255) for _, data, weight in self.layers())
        return self.target_cpu == "any" and meet and 8 in asked

    def fits_16_bits(self) -> bool:
        """Whether the sum of any two products of an 8-bit layer fits 16 bits, so that no x86 processor cuts it."""
        return all(
            2 * data.quant_max * weight.quant_max < 2**15
            for _, data, weight in self.layers()
            if data.quant_max <= 255 and weight.quant_max <= 127
        )

    def nbytes(self) -> int:
        """Bytes of weights packed at their bits, with their steps and biases in float32; what storage could come to."""
        total = 0
        for node, _, grid in self.layers():
            bits = (2 * grid.quant_max + 1).bit_length()
            total += -(-parameter_of(self.graph, node.args[1]).numel() * bits // 8) + 4 * len(grid.begin)
        read = [parameter_of(self.graph, n) for n in self.graph.graph.nodes if n.op == "get_attr" and n.users]
        rest = {id(own): own for own in read if isinstance(own, nn.Parameter)}
        for node, _, _ in self.layers():
            rest.pop(id(parameter_of(self.graph, node.args[1])), None)
        return total + sum(own.numel() * own.element_size() for own in rest.values())


@checked
def calibrate(
    network: Network,
    pixels: Tensor | None,
    bits: Bits | None = None,
    *,
    equalise: bool = True,
    correct_bias: Correction = "analytic",
    target_cpu: TargetCPU = "any",
    progress: Progress = silent,
) -> Quantized:
    """A quantized copy of `network`, its grids those of least squared error on `pixels` (N, C, H, W) in the spec's range.

    Without pixels the grids cover six standard deviations of what the batch norms say. `equalise` scales neighbouring
    layers' weights against each other first. `correct_bias` takes the mean error that rounded weights make in each layer's
    outputs out of its bias: `analytic` by what the batch norms say of its input, where they say anything, `empirical` by
    what it is on the pixels. All three without pixels are Nagel et al. 2019 (DFQ). `target_cpu` any keeps 8-bit weights that
    meet 8-bit activations within -63..63, vnni within -127..127; see `TargetCPU`. The network is left as found. Raises
    UserError for pixels that do not fit, for a network that torch.export cannot capture, and for a batch norm that has no
    running statistics.
    """
    require("torchao")
    bits = bits or Bits()
    if pixels is not None:
        network.spec.check_set(pixels)
        if len(pixels) == 0:
            raise UserError("no images to calibrate on, wanted at least 1; give some")
        pixels = pixels.float()
    elif correct_bias == "empirical":
        raise UserError(
            "--correct-bias: got empirical and no images, wanted images to correct on; give some, or analytic"
        )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    captured = capture(network)
    untie(captured)
    wanted = pixels is None or correct_bias == "analytic" or equalise
    told = moments(network, captured, partly=pixels is not None) if wanted else {}
    gone = fold_batch_norms(captured)
    told |= {heir: told[name] for name, heir in gone.items() if name in told}
    with quiet():
        graph = prepare_pt2e(captured, UniformQuantizer(bits, target_cpu))
    if not weighted(graph):
        if unrounded(graph, set()):
            raise UserError(
                f"{network.name} has no conv or linear layer whose weights are its own, so there is nothing to round: "
                f"{', '.join(unrounded(graph, set())[:3])}; give a network that has one"
            )
        raise UserError(f"{no_layer(network)}, so there is nothing to round; give one that has")
    for parameter in graph.parameters():  # a bias that comes of a folded batch norm would stay as it is
        parameter.requires_grad_(True)
    spec = network.spec.unnormalised()  # the captured graph normalises for itself
    own = Quantized(Network(Simulated(graph), spec, f"{network.name}-{bits.name}"), bits, target_cpu)
    scales = {}
    if equalise:
        unknown = {first.name for first, _ in pairs(graph)} - told.keys()
        scales = equalize(graph, told if pixels is None else told | _measured(own, unknown, pixels[:BATCH]))
    told = {name: told[name].scaled(scales.get(name)) for name in told}
    with torch.no_grad():
        _check_unrounded(own, network, network.probes())
        if pixels is None:
            _start_by(own, told)
        else:
            _check_unrounded(own, network, pixels[:CHECKED])
            _start_on(own, pixels, progress)
        if correct_bias == "analytic":
            _correct_by(own, told)
        elif pixels is not None and correct_bias == "empirical":
            _correct_on(own, pixels)
        round_biases(own)
    return own


def _check_unrounded(own: Quantized, network: Network, pixels: Tensor) -> None:
    """Raises UserError where the graph answers differently from the network although nothing is rounded yet."""
    with _not_observing(own):
        logits = torch.cat([own.graph(part) for part in pixels.split(BATCH)])
    compare(network.name, network.predict(pixels.clone(), BATCH), logits, UNROUNDED, ROUNDING)


@contextmanager
def _not_observing(quantized: Quantized) -> Iterator[None]:
    """The grids do not see what is run meanwhile."""
    for step in quantized.steps():
        step.observing = False
    try:
        yield
    finally:
        for step in quantized.steps():
            step.observing = True


def _start_on(own: Quantized, pixels: Tensor, progress: Progress) -> None:
    for index, part in enumerate(pixels.split(BATCH)):
        own.graph(part)
        progress(min((index + 1) * BATCH, len(pixels)), len(pixels))
    for step in own.steps():
        step.start()


def _start_by(own: Quantized, told: dict[str, ActivationMoments]) -> None:
    image = torch.full((2, *own.network.spec.shape), (own.network.spec.low + own.network.spec.high) / 2)
    own.graph(image)  # weights are seen by being used
    for node in own.graph.graph.nodes:
        step = _grid(own.graph, node)
        if step is None or step.rounding:
            continue
        if step.by_channel:
            step.start()
            continue
        source = behind(node)
        if source.name not in told:
            raise UserError(f"no range is known of {source.name}; give images to calibrate on")
        low, high = min(0.0, float(told[source.name].low.min())), max(0.0, float(told[source.name].high.max()))
        step.set(*covering(low, high, step.quant_max))


def _correct_by(own: Quantized, told: dict[str, ActivationMoments]) -> None:
    """The mean error of rounded weights, at the mean that each layer's input is said to have, goes into its bias."""
    for node, _, grid in own.layers():
        source = behind(node.args[0])
        if source.name in told and len(node.args) > 2 and node.args[2] is not None:
            weight = parameter_of(own.graph, node.args[1])
            error = weighed(node, grid(weight) - weight, told[source.name].mean)
            if error is not None:
                parameter_of(own.graph, node.args[2]).data -= error


def _grid(graph: GraphModule, node: object) -> FakeQuantize | None:
    if isinstance(node, Node) and node.op == "call_module":
        part = graph.get_submodule(str(node.target))
        return part if isinstance(part, FakeQuantize) else None
    return None


def round_biases(own: Quantized) -> None:
    """Every bias to a multiple of its input's step times its weight's, as integer kernels hold it in 32 bits.

    Without it they do so themselves, and some outputs of the simulation are off by a step of the grid. A channel whose
    weights are so small that its bias would not fit gets a wider step: its weights vanish beside that bias. In place.
    """
    for node, data, weight in own.layers():
        if len(node.args) > 2 and node.args[2] is not None:
            bias, wide = parameter_of(own.graph, node.args[2]), data.step.detach()
            least = bias.data.abs() / (LARGEST_BIAS * wide)
            weight.widen(least)
            unit = wide * weight.step.detach()
            bias.data = (bias.data / unit).round() * unit


class _Means(Interpreter):
    """Runs a graph and keeps the channel means of its layers' outputs; those in `wanted` it moves to what is wanted."""

    def __init__(self, graph: GraphModule, layers: set[Node], wanted: dict[str, Tensor]):
        super().__init__(graph)
        self.layers, self.wanted, self.means = layers, wanted, {}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n not in self.layers:
            return value
        axis = _channel_axis(n, value)
        mean = value.mean([own for own in range(value.ndim) if own != axis])
        if n.name in self.wanted:
            short = self.wanted[n.name] - mean
            parameter_of(self.module, n.args[2]).data += short  # type: ignore[arg-type]
            value = value + short.view([-1 if own == axis else 1 for own in range(value.ndim)])
        self.means[n.name] = mean
        return value


class _Outputs(Interpreter):
    """Runs a graph and keeps the moments of the outputs of the named layers, by channel."""

    def __init__(self, graph: GraphModule, names: Set[str]):
        super().__init__(graph)
        self.names, self.moments = names, {}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n.name in self.names:
            rows = value.movedim(_channel_axis(n, value), 0).flatten(1)
            self.moments[n.name] = ActivationMoments(
                rows.mean(1), rows.var(1, correction=0), rows.amin(1), rows.amax(1)
            )
        return value


def _channel_axis(layer: Node, output: Tensor) -> int:
    return output.ndim - 1 if layer.target == torch.ops.aten.linear.default else 1


@torch.no_grad()
def _measured(quantized: Quantized, names: Set[str], pixels: Tensor) -> dict[str, ActivationMoments]:
    """Moments of the named layers' outputs on images, before anything is rounded or a grid is chosen."""
    if not names:
        return {}
    outputs = _Outputs(quantized.graph, names)
    with _not_observing(quantized):
        outputs.run(pixels)
    return outputs.moments


def _correct_on(own: Quantized, pixels: Tensor) -> None:
    """The mean error of rounded weights goes into the biases, first layer first: each sees the corrected ones before it."""
    nodes = {node for node, _, _ in own.layers() if len(node.args) > 2 and node.args[2] is not None}
    for step in own.steps():
        step.rounding = False
    exact = _Means(own.graph, nodes, {})
    exact.run(pixels[: 8 * BATCH])
    for step in own.steps():
        step.rounding = step.by_channel
    _Means(own.graph, nodes, exact.means).run(pixels[: 8 * BATCH])
    for step in own.steps():
        step.rounding = True
