"""Selects what is quantized: a small quantizer for torchao's PT2E.

torchao's x86 quantizer leaves residual additions in floating point, which makes an ONNX file slower than the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from ..releases.bits import Bits, TargetCPU, largest_weight
from .fake_quantize import FakeQuantize

__all__ = [
    "BATCH_NORM", "TRANSPOSED", "WEIGHTED", "UniformQuantizer", "arguments", "behind", "groups", "parameter_of",
    "separate_tensors", "unrounded", "weighted",
]  # fmt: skip

_aten = torch.ops.aten
WEIGHTED = (
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv3d.default, _aten.linear.default,
    _aten.conv1d.padding, _aten.conv2d.padding, _aten.conv3d.padding,
)  # fmt: skip
"""Layers whose second argument is a weight (out, ...)."""
TRANSPOSED = (_aten.conv_transpose1d.default, _aten.conv_transpose2d.input, _aten.conv_transpose3d.input)
PRODUCTS = (
    "convolution", "bilinear", "matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "lstm", "gru", "rnn_tanh",
    "rnn_relu", "scaled_dot_product_attention",
)  # fmt: skip
"""Operators that multiply like conv and linear layers, by their names in torch."""
BATCH_NORM = (_aten.batch_norm.default, _aten._native_batch_norm_legit_no_training.default)
ADDS = (_aten.add.Tensor, _aten.add_.Tensor)
AVERAGES = (_aten.avg_pool2d.default, _aten.adaptive_avg_pool2d.default, _aten.mean.dim)
SELECTIONS = (
    _aten.max_pool2d.default, _aten.view.default, _aten.reshape.default, _aten.flatten.using_ints, _aten.slice.Tensor,
)  # fmt: skip
"""Operators whose outputs are a selection of their inputs, so both share a grid."""
NORMALISING = (
    _aten.sub.Tensor, _aten.div.Tensor, _aten.mul.Tensor, *ADDS, *SELECTIONS, _aten.to.dtype, _aten.to.dtype_layout,
)  # fmt: skip
IMAGE_BITS = 8


def weighted(model: GraphModule) -> list[Node]:
    """The conv and linear nodes whose weight and bias are parameters, in the order of execution."""
    return [
        node
        for node in model.graph.nodes
        if node.op == "call_function" and node.target in WEIGHTED and all(map(_is_stored, node.args[1:3]))
    ]


def _is_stored(node: object) -> bool:
    """Whether a node is a stored tensor of the network, not a computed one; also True for a missing bias (None)."""
    return not isinstance(node, Node) or behind(node).op == "get_attr"


def unrounded(model: GraphModule, rounded: set[Node]) -> list[str]:
    """Layers and products that are not in `rounded`, each as `place: operator`."""
    lines = []
    for node in model.graph.nodes:
        if node.op != "call_function" or node in rounded or not isinstance(node.target, torch._ops.OpOverload):
            continue
        kind = node.target.overloadpacket.__name__
        if node.target in (*WEIGHTED, *TRANSPOSED) or kind in PRODUCTS:
            parameters = [
                str(behind(source).target) for source in node.all_input_nodes if behind(source).op == "get_attr"
            ]
            place, _, name = (parameters or [node.name])[0].removeprefix("network.").rpartition(".")
            lines.append(f"{place or name}: {kind}")
    return lines


def arguments(node: Node) -> dict[str, Any]:
    """The arguments of an operator by name, including defaults."""
    assert isinstance(node.target, torch._ops.OpOverload)
    values = dict(zip((argument.name for argument in node.target._schema.arguments), node.args, strict=False))
    defaults = {argument.name: argument.default_value for argument in node.target._schema.arguments}
    return {**defaults, **values, **node.kwargs}


def groups(layer: Node) -> int:
    """Number of groups of a convolution; 1 for a linear layer."""
    count = layer.args[6] if len(layer.args) > 6 else 1
    assert isinstance(count, int)
    return count


def separate_tensors(graph: GraphModule) -> None:
    """Gives each layer a weight and a bias that no other node reads, in place."""
    layers = [node for node in graph.graph.nodes if node.target in (*WEIGHTED, *TRANSPOSED)]
    shared = {
        id(parameter_of(graph, node))
        for node in graph.graph.nodes
        if node.op == "get_attr" and {*node.users} - {*layers}
    }
    storages: set[int] = set()
    for node in layers:
        for source in node.args[1:3]:
            if isinstance(source, Node) and source.op == "get_attr":
                if id(parameter_of(graph, source)) in shared or len(source.users) > 1:
                    source = _copy_tensor(graph, node, source)
                tensor = parameter_of(graph, source)
                shared.add(id(tensor))
                storage = tensor.untyped_storage()
                if storage.data_ptr() in storages or storage.nbytes() != tensor.nbytes:  # a view of another tensor
                    tensor.data = tensor.detach().clone(memory_format=torch.contiguous_format)
                storages.add(tensor.untyped_storage().data_ptr())


def _copy_tensor(graph: GraphModule, node: Node, source: Node) -> Node:
    """Copies a tensor for `node` and returns the copy's node, which `node` reads from now on."""
    place, _, name = str(source.target).rpartition(".")
    module, tensor = graph.get_submodule(place), parameter_of(graph, source)
    index = next(index for index in range(2, 1 << 20) if not hasattr(module, f"{name}_{index}"))
    copy = tensor.detach().clone()
    if isinstance(tensor, torch.nn.Parameter):
        module.register_parameter(f"{name}_{index}", torch.nn.Parameter(copy, tensor.requires_grad))
    else:
        module.register_buffer(f"{name}_{index}", copy)
    with graph.graph.inserting_before(node):
        copy_node = graph.graph.get_attr(f"{source.target}_{index}")
    copy_node.meta = dict(source.meta)
    node.replace_input_with(source, copy_node)
    return copy_node


def behind(node: object) -> Node:
    """The node whose values a grid rounds; the node itself if it is not a grid."""
    assert isinstance(node, Node)
    while node.op == "call_module":
        node = node.args[0]  # type: ignore[assignment]
        assert isinstance(node, Node)
    return node


def parameter_of(graph: GraphModule, node: object) -> torch.nn.Parameter:
    """The parameter or buffer of a node, looked up through its grid if it has one."""
    node = behind(node)
    assert node.op == "get_attr", node
    place, _, name = str(node.target).rpartition(".")
    return getattr(graph.get_submodule(place), name)


class UniformQuantizer(Quantizer):
    """Annotates conv and linear layers with `bits`; with 8-bit activations, additions and pools too."""

    def __init__(self, bits: Bits, target_cpu: TargetCPU = "any"):
        super().__init__()
        self.bits = bits
        self.target_cpu: TargetCPU = target_cpu
        self._activations: dict[int, QuantizationSpec] = {}

    def annotate(self, model: GraphModule) -> GraphModule:
        inputs = dict(self._layers(model))
        if self.bits.activations == 8:
            activations = _image_dependent(model)
            for node in model.graph.nodes:
                if node.target in ADDS and set(node.args[:2]) <= activations:
                    inputs[node] = {source: self._activation(8) for source in node.args[:2]}
                elif node.target in (*AVERAGES, *SELECTIONS) and node.args[0] in activations:
                    inputs[node] = {node.args[0]: self._activation(8)}
        # a grid shared by all readers of a tensor; below 8 bits additions read the tensor without rounding
        outputs = {}
        if self.bits.activations == 8:
            shared = self._activation(8)
            outputs = {node: shared for specs in inputs.values() for node, spec in specs.items() if spec is shared}
        for node in dict.fromkeys([*inputs, *outputs]):
            output = outputs.get(node)
            if node.op == "call_function" and node.target in SELECTIONS and node in inputs and output is not None:
                output = SharedQuantizationSpec((node.args[0], node))  # type: ignore[arg-type]
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map={**inputs.get(node, {})}, output_qspec=output, _annotated=True
            )
        return model

    def _layers(self, model: GraphModule) -> Iterator[tuple[Node, dict[Node, QuantizationSpec]]]:
        nodes, images = weighted(model), _images(model)
        for node in nodes:
            weights, activations = self.bits.weights, self.bits.activations
            if node is nodes[0] and self.bits.first is not None:
                weights = self.bits.first
            if node is nodes[-1] and self.bits.last is not None:
                weights = activations = self.bits.last
            source = node.args[0]
            assert isinstance(source, Node)
            if source in images:
                activations = max(activations, IMAGE_BITS)
            weight = node.args[1]
            assert isinstance(weight, Node)
            top = largest_weight(weights, activations, self.target_cpu)
            yield node, {source: self._activation(activations), weight: _weight(weights, top)}

    def _activation(self, bits: int) -> QuantizationSpec:
        """The specification of a number of bits. Always the same object, so that both ends of a tensor share a grid."""
        if bits not in self._activations:
            dtype, top = (torch.uint8, 2**bits - 1) if bits <= 8 else (torch.uint16, 2**bits - 1)
            make = FakeQuantize.with_args(quant_min=0, quant_max=top, dtype=dtype, by_channel=False)
            self._activations[bits] = QuantizationSpec(dtype, make, 0, top, torch.per_tensor_affine)
        return self._activations[bits]

    def validate(self, model: GraphModule) -> None: ...


def _weight(bits: int, top: int) -> QuantizationSpec:
    dtype = torch.int8 if bits <= 8 else torch.int16
    make = FakeQuantize.with_args(quant_min=-top, quant_max=top, dtype=dtype, by_channel=True)
    return QuantizationSpec(dtype, make, -top, top, torch.per_channel_symmetric, 0)


def _image_dependent(model: GraphModule) -> set[Node]:
    """Nodes whose values are activations: floating point and dependent on the image."""
    activations: set[Node] = set()
    for node in model.graph.nodes:
        value = node.meta.get("val")
        depends_on_image = node.op == "placeholder" or not activations.isdisjoint(node.all_input_nodes)
        if depends_on_image and isinstance(value, torch.Tensor) and value.is_floating_point():
            activations.add(node)
    return activations


def _images(model: GraphModule) -> set[Node]:
    """The input node, and nodes that normalise it by arithmetic with constants."""
    images: set[Node] = set()
    dependent: set[Node] = set()
    for node in model.graph.nodes:
        sources = dependent.intersection(node.all_input_nodes)
        if node.op == "placeholder" or (sources <= images and sources and node.target in NORMALISING):
            images.add(node)
        if node.op == "placeholder" or (sources and isinstance(node.meta.get("val"), torch.Tensor)):
            dependent.add(node)
    return images
