"""Cross-layer equalisation (Nagel et al. 2019, sec. 4.1): equal weight ranges in neighbouring layers.

The network's function does not change. Depthwise and grouped convolutions, which the paper scales in threes, are
skipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .annotate import behind, groups, parameter_of, weighted
from .batchnorm_ranges import ActivationMoments

__all__ = ["equalize", "pairs"]

ROUNDS = 20
CERTAIN = 3.0
"""Number of standard deviations below its mean down to which a channel's output counts as constant (sec. 4.1.3)."""
_aten = torch.ops.aten
RELUS = (_aten.relu.default, _aten.relu_.default)


def pairs(graph: GraphModule) -> list[tuple[Node, Node]]:
    """All pairs (layer, next layer) with only a ReLU and grids between them, and no other reader.

    Only ungrouped layers of the same kind whose weights and biases are read once: then channel i of the first is input
    i of the second, and nothing else depends on them. A linear layer after a convolution mixes another axis.
    """
    result, layers, readers = [], weighted(graph), Counter(id(tensor) for tensor in _read_tensors(graph))
    for node in layers:
        next_layer = _sole(node)
        if next_layer is None or next_layer.target not in RELUS:
            continue
        next_layer = _sole(next_layer)
        while next_layer is not None and next_layer.op == "call_module":
            next_layer = _sole(next_layer)
        if next_layer is None or next_layer not in layers or _kind(next_layer) is not _kind(node):
            continue
        tensors = [
            parameter_of(graph, tensor)
            for layer in (node, next_layer)
            for tensor in layer.args[1:3]
            if tensor is not None
        ]
        if groups(node) == groups(next_layer) == 1 and all(readers[id(tensor)] == 1 for tensor in tensors):
            result.append((node, next_layer))
    return result


def _read_tensors(graph: GraphModule) -> Iterator[object]:
    """The tensors of the network, once per node that reads them."""
    for node in graph.graph.nodes:
        for source in node.all_input_nodes if node.op != "call_module" else ():
            if behind(source).op == "get_attr":
                yield parameter_of(graph, source)


def _kind(node: Node) -> object:
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.target.overloadpacket


def _sole(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


@torch.no_grad()
def equalize(graph: GraphModule, moments: Mapping[str, ActivationMoments] | None = None) -> dict[str, Tensor]:
    """Scales each pair's weights, in place, until both have equal ranges in all shared channels (eq. 11).

    `moments` maps node names to the moments of layer outputs: a channel that is always above 0 is not scaled above the
    range of the others. Returns, by node name, the divisor (C,) of each channel, for the first layer of each pair and
    its ReLU.
    """
    # differs from the paper, which later absorbs high biases into the next layer (sec. 4.1.3): a constant channel has
    # weights near 0, and unbounded scaling would let its bias determine the grid of the whole layer
    layers = [
        (layer, parameter_of(graph, layer.args[1]), parameter_of(graph, next_layer.args[1]))
        for layer, next_layer in pairs(graph)
    ]
    scales = {layer.name: torch.ones(len(weight)) for layer, weight, _ in layers}
    for _ in range(ROUNDS):
        change = 0.0
        for layer, weight, next_weight in layers:
            output_range, input_range = _range(weight, 0), _range(next_weight, 1)
            scale = torch.where(
                (output_range > 0) & (input_range > 0),
                (output_range / input_range).sqrt(),
                torch.ones_like(output_range),
            )
            if moments and layer.name in moments:
                outputs = moments[layer.name].scaled(scales[layer.name] * scale)
                scale = torch.maximum(scale, _least_scale(outputs) * scale)
            weight.data /= scale.view(-1, *[1] * (weight.ndim - 1))
            next_weight.data *= scale.view(1, -1, *[1] * (next_weight.ndim - 2))
            if len(layer.args) > 2 and layer.args[2] is not None:
                parameter_of(graph, layer.args[2]).data /= scale
            scales[layer.name] *= scale
            change = max(change, float((scale - 1).abs().max()))
        if change < 1e-3:
            break
    for layer, _, _ in layers:
        scales[next(iter(layer.users)).name] = scales[layer.name]
    return scales


def _least_scale(outputs: ActivationMoments) -> Tensor:
    """Divisors (C,) that bring the constant part of each channel into the range of the others."""
    constant = (outputs.mean - CERTAIN * outputs.variance.sqrt()).clamp(min=0)  # a ReLU follows
    others = outputs.high[(constant == 0) & (outputs.high > 0)]
    return constant / (others if len(others) else outputs.high.abs()).max() if constant.any() else constant


def _range(weight: Tensor, axis: int) -> Tensor:
    return weight.abs().transpose(0, axis).flatten(1).amax(1)
