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
from .squant import squant

__all__ = ["Correction", "Quantized", "Rounding", "Simulated", "calibrate"]

BATCH = 64
Correction = Literal["analytic", "empirical", "none"]
"""How biases are corrected, in the words of Nagel et al. 2019."""
Rounding = Literal["nearest", "squant"]
"""How weights are rounded: to the nearest level, or as in `squant.squant`."""
LARGEST_BIAS = 2.0**30
CHECKED = 512
"""Number of calibration images on which the graph is compared with the network before anything is rounded."""
ROUNDING = 1e-2
"""Tolerance as `capture.SAME`, after batch norms were folded and weights scaled, which moves every sum a little."""
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
    rounding: Rounding = "nearest"
    """How its weights were rounded first; fine-tuning moves them afterwards."""

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
            grids = [_grid(self.graph, argument) for argument in node.args[:2]]
            if grids[0] is not None and grids[1] is not None:
                yield node, grids[0], grids[1]

    def left_in_float(self) -> list[str]:
        """Layers and products that are not rounded, each as `place: operator`, such as `up: conv_transpose2d`."""
        return unrounded(self.graph, {node for node, _, _ in self.layers()})

    def reduced(self) -> bool:
        """Whether some weights of 8 bits use only 7 of them, because of `target_cpu` "any"."""
        weight_bits = {self.bits.weights, self.bits.first, self.bits.last}
        any_reduced = any((weight.quant_max, data.quant_max) == (63, 255) for _, data, weight in self.layers())
        return self.target_cpu == "any" and any_reduced and 8 in weight_bits

    def fits_16_bits(self) -> bool:
        """Whether the sum of any two products of an 8-bit layer fits 16 bits, so that no x86 processor cuts it."""
        return all(
            2 * data.quant_max * weight.quant_max < 2**15
            for _, data, weight in self.layers()
            if data.quant_max <= 255 and weight.quant_max <= 127
        )

    def nbytes(self) -> int:
        """Bytes of weights packed at their bits, with steps and biases in float32: the size that storage could reach."""
        total = 0
        for node, _, grid in self.layers():
            bits = (2 * grid.quant_max + 1).bit_length()
            total += -(-parameter_of(self.graph, node.args[1]).numel() * bits // 8) + 4 * len(grid.begin)
        tensors = [
            parameter_of(self.graph, node) for node in self.graph.graph.nodes if node.op == "get_attr" and node.users
        ]
        in_float = {id(tensor): tensor for tensor in tensors if isinstance(tensor, nn.Parameter)}
        for node, _, _ in self.layers():
            in_float.pop(id(parameter_of(self.graph, node.args[1])), None)
        return total + sum(tensor.numel() * tensor.element_size() for tensor in in_float.values())


@checked
def calibrate(
    network: Network,
    pixels: Tensor | None,
    bits: Bits | None = None,
    *,
    equalise: bool = True,
    correct_bias: Correction = "analytic",
    target_cpu: TargetCPU = "any",
    rounding: Rounding = "nearest",
    progress: Progress = silent,
) -> Quantized:
    """A quantized copy of `network`, with grids of least squared error on `pixels` (N, C, H, W) in the spec's range.

    Without pixels, grids cover six standard deviations as implied by the batch norms. `equalise` first scales the weights of
    neighbouring layers to equal ranges. `correct_bias` subtracts the mean error that rounded weights cause in each layer's
    outputs from its bias: `analytic` computes it from the batch norms, where they determine the layer's input, `empirical`
    measures it on the pixels. All three without pixels are DFQ (Nagel et al. 2019). `target_cpu` "any" keeps 8-bit weights
    of layers with 8-bit activations within -63..63, "vnni" within -127..127; see `TargetCPU`. `rounding` "squant" rounds
    weights so that their errors in a kernel and in an output channel cancel (Guo et al. 2022), which is what `quantize` does
    by default; "nearest" is the better start for `finetune`. Does not change the network.
    Raises UserError for pixels that do not fit, for a network that torch.export cannot capture, and for a batch norm without
    running statistics.
    """
    require("torchao")
    bits = bits or Bits()
    if pixels is not None:
        network.spec.check_set(pixels)
        if len(pixels) == 0:
            raise UserError("pixels: got no image, expected at least 1 to calibrate on; give some")
        pixels = pixels.float()
    elif correct_bias == "empirical":
        raise UserError(
            "correct_bias: got 'empirical' without images, expected images to correct on; give some, or 'analytic'"
        )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

    captured = capture(network)
    untie(captured)
    by_moments = pixels is None or correct_bias == "analytic" or equalise
    by_node = moments(network, captured, partly=pixels is not None) if by_moments else {}
    successors = fold_batch_norms(captured)
    by_node |= {successor: by_node[name] for name, successor in successors.items() if name in by_node}
    with quiet():
        graph = prepare_pt2e(captured, UniformQuantizer(bits, target_cpu))
    if not weighted(graph):
        if unrounded(graph, set()):
            raise UserError(
                f"{network.name} has no conv or linear layer whose weights are its own, so there is nothing to round: "
                f"{', '.join(unrounded(graph, set())[:3])}; give a network that has one"
            )
        raise UserError(f"{no_layer(network)}, so there is nothing to round; give one that has")
    for parameter in graph.parameters():  # a bias from a folded batch norm does not require gradients yet
        parameter.requires_grad_(True)
    spec = network.spec.unnormalised()  # the captured graph normalises for itself
    quantized = Quantized(Network(Simulated(graph), spec, f"{network.name}-{bits.name}"), bits, target_cpu, rounding)
    scales = {}
    if equalise:
        unknown = {layer.name for layer, _ in pairs(graph)} - by_node.keys()
        measured = {} if pixels is None else _measure_moments(quantized, unknown, pixels[:BATCH])
        scales = equalize(graph, by_node | measured)
    by_node = {name: by_node[name].scaled(scales.get(name)) for name in by_node}
    with torch.no_grad():
        _check_unrounded(quantized, network, network.probes())
        if pixels is None:
            _choose_by_moments(quantized, by_node)
        else:
            _check_unrounded(quantized, network, pixels[:CHECKED])
            _choose_on_images(quantized, pixels, progress)
        means = _means(quantized, pixels) if pixels is not None and correct_bias == "empirical" else None
        exact = _round_by_squant(quantized) if rounding == "squant" else {}
        if correct_bias == "analytic":
            _correct_by_moments(quantized, by_node, exact)
        elif pixels is not None and means is not None:
            _correct_on_images(quantized, pixels, means)
        round_biases(quantized)
    return quantized


def _check_unrounded(quantized: Quantized, network: Network, pixels: Tensor) -> None:
    """Raises UserError if the graph's logits differ from the network's although nothing is rounded yet."""
    with _not_observing(quantized):
        logits = torch.cat([quantized.graph(part) for part in pixels.split(BATCH)])
    compare(network.name, network.predict(pixels.clone(), BATCH), logits, UNROUNDED, ROUNDING)


@contextmanager
def _not_observing(quantized: Quantized) -> Iterator[None]:
    """Inside, grids do not observe."""
    for step in quantized.steps():
        step.observing = False
    try:
        yield
    finally:
        for step in quantized.steps():
            step.observing = True


def _choose_on_images(quantized: Quantized, pixels: Tensor, progress: Progress) -> None:
    for index, part in enumerate(pixels.split(BATCH)):
        quantized.graph(part)
        progress(min((index + 1) * BATCH, len(pixels)), len(pixels))
    for step in quantized.steps():
        step.start()


def _choose_by_moments(quantized: Quantized, by_node: dict[str, ActivationMoments]) -> None:
    image = torch.full(
        (2, *quantized.network.spec.shape), (quantized.network.spec.low + quantized.network.spec.high) / 2
    )
    quantized.graph(image)  # grids of weights observe them when they are used
    for node in quantized.graph.graph.nodes:
        step = _grid(quantized.graph, node)
        if step is None or step.rounding:
            continue
        if step.by_channel:
            step.start()
            continue
        source = behind(node)
        if source.name not in by_node:
            raise UserError(f"the range of {source.name} is unknown without images; give images with `calibrate`")
        low, high = min(0.0, float(by_node[source.name].low.min())), max(0.0, float(by_node[source.name].high.max()))
        step.set(*covering(low, high, step.quant_max))


def _round_by_squant(quantized: Quantized) -> dict[str, Tensor]:
    """Moves every weight to the level of its grid that SQuant chooses, in place. Returns the weights before, by node."""
    exact = {}
    for node, _, grid in quantized.layers():
        weight, step = parameter_of(quantized.graph, node.args[1]), grid.step.detach()
        exact[node.name] = weight.detach()
        weight.data = squant(weight.detach(), step, grid.quant_max) * step.view(-1, *[1] * (weight.ndim - 1))
    return exact


def _correct_by_moments(quantized: Quantized, by_node: dict[str, ActivationMoments], exact: dict[str, Tensor]) -> None:
    """Subtracts from each bias the mean error of the rounded weights, for the layer's mean input according to batch norms.

    `exact` are the weights before they were rounded, of the nodes whose weights were replaced.
    """
    for node, _, grid in quantized.layers():
        source = behind(node.args[0])
        if source.name in by_node and len(node.args) > 2 and node.args[2] is not None:
            weight = parameter_of(quantized.graph, node.args[1])
            error = weighed(node, grid(weight) - exact.get(node.name, weight), by_node[source.name].mean)
            if error is not None:
                parameter_of(quantized.graph, node.args[2]).data -= error


def _grid(graph: GraphModule, node: object) -> FakeQuantize | None:
    if isinstance(node, Node) and node.op == "call_module":
        part = graph.get_submodule(str(node.target))
        return part if isinstance(part, FakeQuantize) else None
    return None


def round_biases(quantized: Quantized) -> None:
    """Rounds every bias to a multiple of its input's step times its weight's step, as 32-bit integer kernels do. In place.

    Otherwise some outputs of the simulation would be off by a step of the grid. A channel with such small weights that its
    bias would not fit gets a wider step; its weights are negligible next to that bias.
    """
    for node, data, weight in quantized.layers():
        if len(node.args) > 2 and node.args[2] is not None:
            bias, data_step = parameter_of(quantized.graph, node.args[2]), data.step.detach()
            smallest = bias.data.abs() / (LARGEST_BIAS * data_step)
            weight.widen(smallest)
            unit = data_step * weight.step.detach()
            bias.data = (bias.data / unit).round() * unit


class _Means(Interpreter):
    """Runs a graph and stores the channel means of its layers' outputs. Moves the means to `expected` by changing biases."""

    def __init__(self, graph: GraphModule, layers: set[Node], expected: dict[str, Tensor]):
        super().__init__(graph)
        self.layers, self.expected, self.means = layers, expected, {}

    def run_node(self, n: Node) -> object:
        value = super().run_node(n)
        if n not in self.layers:
            return value
        axis = _channel_axis(n, value)
        mean = value.mean([dim for dim in range(value.ndim) if dim != axis])
        if n.name in self.expected:
            missing = self.expected[n.name] - mean
            parameter_of(self.module, n.args[2]).data += missing  # type: ignore[arg-type]
            value = value + missing.view([-1 if dim == axis else 1 for dim in range(value.ndim)])
        self.means[n.name] = mean
        return value


class _Outputs(Interpreter):
    """Runs a graph and stores the moments of the outputs of the named layers, by channel."""

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
def _measure_moments(quantized: Quantized, names: Set[str], pixels: Tensor) -> dict[str, ActivationMoments]:
    """Moments of the named layers' outputs on images, before anything is rounded or a grid is chosen."""
    if not names:
        return {}
    outputs = _Outputs(quantized.graph, names)
    with _not_observing(quantized):
        outputs.run(pixels)
    return outputs.moments


def _corrected_layers(quantized: Quantized) -> set[Node]:
    """The rounded layers that have a bias."""
    return {node for node, _, _ in quantized.layers() if len(node.args) > 2 and node.args[2] is not None}


def _means(quantized: Quantized, pixels: Tensor) -> dict[str, Tensor]:
    """The channel means of the outputs of all layers with a bias, by node, with nothing rounded."""
    for step in quantized.steps():
        step.rounding = False
    exact = _Means(quantized.graph, _corrected_layers(quantized), {})
    exact.run(pixels[: 8 * BATCH])
    for step in quantized.steps():
        step.rounding = True
    return exact.means


def _correct_on_images(quantized: Quantized, pixels: Tensor, means: dict[str, Tensor]) -> None:
    """Subtracts the mean error of rounded weights from the biases, layer by layer, with the layers before already
    corrected. `means` are those of the network that is not rounded.
    """
    for step in quantized.steps():
        step.rounding = step.by_channel
    _Means(quantized.graph, _corrected_layers(quantized), means).run(pixels[: 8 * BATCH])
    for step in quantized.steps():
        step.rounding = True
