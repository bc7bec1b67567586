"""What is rounded where: a small quantizer for torchao's PT2E.

torchao's own for x86 leaves residual additions in floating point, which makes an ONNX file slower than the original.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from .bits import Bits
from .steps import Step

__all__ = ["Uniform", "behind", "parameter_of", "weighted"]

_aten = torch.ops.aten
WEIGHTED = (
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.linear.default,
)  # fmt: skip
"""Layers with a weight (out, ...) as second argument."""
ADDS = (_aten.add.Tensor, _aten.add_.Tensor)
AVERAGES = (_aten.avg_pool2d.default, _aten.adaptive_avg_pool2d.default, _aten.mean.dim)
SELECTIONS = (
    _aten.max_pool2d.default, _aten.view.default, _aten.reshape.default, _aten.flatten.using_ints, _aten.slice.Tensor,
)  # fmt: skip
"""Their outputs are some of their inputs, so one grid is for both."""
IMAGE_BITS = 8


def weighted(model: GraphModule) -> list[Node]:
    """The conv and linear nodes, in the order in which they run."""
    return [node for node in model.graph.nodes if node.op == "call_function" and node.target in WEIGHTED]


def behind(node: object) -> Node:
    """The node whose values a grid rounds; a node that is no grid itself."""
    assert isinstance(node, Node)
    while node.op == "call_module":
        node = node.args[0]  # type: ignore[assignment]
        assert isinstance(node, Node)
    return node


def parameter_of(graph: GraphModule, node: object) -> torch.nn.Parameter:
    """The parameter (or buffer) behind a node, through its grid where it has one."""
    node = behind(node)
    assert node.op == "get_attr", node
    place, _, name = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(place), name)


class Uniform(Quantizer):
    """Annotates conv and linear layers, and with 8-bit activations additions and pools, as `bits` says."""

    def __init__(self, bits: Bits):
        super().__init__()
        self.bits = bits
        self._activations: dict[int, QuantizationSpec] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        inputs = dict(self._layers(model))
        if self.bits.activations == 8:
            live = _live(model)
            for node in model.graph.nodes:
                if node.target in ADDS and set(node.args[:2]) <= live:
                    inputs[node] = {own: self._activation(8) for own in node.args[:2]}
                elif node.target in (*AVERAGES, *SELECTIONS) and node.args[0] in live:
                    inputs[node] = {node.args[0]: self._activation(8)}
        outputs = {}  # what all of a tensor's readers share; below 8 bits an addition reads it as it is
        if self.bits.activations == 8:
            shared = self._activation(8)
            outputs = {own: shared for specs in inputs.values() for own, spec in specs.items() if spec is shared}
        for node in dict.fromkeys([*inputs, *outputs]):
            own = outputs.get(node)
            if node.op == "call_function" and node.target in SELECTIONS and node in inputs and own is not None:
                own = SharedQuantizationSpec((node.args[0], node))  # type: ignore[arg-type]
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map={**inputs.get(node, {})}, output_qspec=own, _annotated=True
            )
        return model

    def _layers(self, model: GraphModule) -> Iterator[tuple[Node, dict[Node, QuantizationSpec]]]:
        nodes = weighted(model)
        for node in nodes:
            weights, activations = self.bits.weights, self.bits.activations
            if node is nodes[0] and self.bits.first is not None:
                weights = self.bits.first
            if node is nodes[-1] and self.bits.last is not None:
                weights = activations = self.bits.last
            source = node.args[0]
            assert isinstance(source, Node)
            if _shows_image(source):
                activations = max(activations, IMAGE_BITS)
            weight = node.args[1]
            assert isinstance(weight, Node)
            yield node, {source: self._activation(activations), weight: _weight(weights)}

    def _activation(self, bits: int) -> QuantizationSpec:
        """One object for every number of bits: tensors whose two ends agree on it share a grid."""
        if bits not in self._activations:
            dtype, top = (torch.uint8, 2**bits - 1) if bits <= 8 else (torch.uint16, 2**bits - 1)
            make = Step.with_args(quant_min=0, quant_max=top, dtype=dtype, by_channel=False)
            self._activations[bits] = QuantizationSpec(dtype, make, 0, top, torch.per_tensor_affine)
        return self._activations[bits]

    def validate(self, model: GraphModule) -> None: ...


def _weight(bits: int) -> QuantizationSpec:
    dtype, top = torch.int8 if bits <= 8 else torch.int16, 2 ** (bits - 1) - 1
    make = Step.with_args(quant_min=-top, quant_max=top, dtype=dtype, by_channel=True)
    return QuantizationSpec(dtype, make, -top, top, torch.per_channel_symmetric, 0)


def _live(model: GraphModule) -> set[Node]:
    """The nodes whose values are activations: floating point, and dependent on the image."""
    found: set[Node] = set()
    for node in model.graph.nodes:
        value, moves = node.meta.get("val"), node.op == "placeholder" or not found.isdisjoint(node.all_input_nodes)
        if moves and isinstance(value, torch.Tensor) and value.is_floating_point():
            found.add(node)
    return found


def _shows_image(node: Node) -> bool:
    """Whether the node is the input, or the input normalised: arithmetic on it and constants alone."""
    while node.op == "call_function" and node.target in (
        _aten.sub.Tensor, _aten.div.Tensor, _aten.mul.Tensor, *ADDS, *SELECTIONS, _aten.to.dtype, _aten.to.dtype_layout,
    ):  # fmt: skip
        if not isinstance(node.args[0], Node):
            return False
        node = node.args[0]
    return node.op == "placeholder"
