"""Cross-layer equalisation (Nagel et al. 2019, sec. 4.1): neighbours' weight ranges made alike, the function kept.

Depthwise and grouped convolutions, which the paper scales in threes, are left alone.
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
"""Standard deviations below its mean down to which a channel's output counts as constant, as in sec. 4.1.3."""
_aten = torch.ops.aten
RELUS = (_aten.relu.default, _aten.relu_.default)


def pairs(graph: GraphModule) -> list[tuple[Node, Node]]:
    """Every (layer, next layer) with nothing but a ReLU, and grids, between them, and no other reader in between.

    Only ungrouped layers of one kind, all their weights and biases read once: there, channel i of the first is input i of
    the second, and nothing else changes with them. Behind a convolution a linear layer mixes another axis.
    """
    found, layers, readers = [], weighted(graph), Counter(id(own) for own in _read(graph))
    for node in layers:
        after = _sole(node)
        if after is None or after.target not in RELUS:
            continue
        after = _sole(after)
        while after is not None and after.op == "call_module":
            after = _sole(after)
        if after is None or after not in layers or _kind(after) is not _kind(node):
            continue
        tensors = [parameter_of(graph, own) for layer in (node, after) for own in layer.args[1:3] if own is not None]
        if groups(node) == groups(after) == 1 and all(readers[id(own)] == 1 for own in tensors):
            found.append((node, after))
    return found


def _read(graph: GraphModule) -> Iterator[object]:
    """The tensors of the network, each as often as something reads it."""
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
def equalize(graph: GraphModule, known: Mapping[str, ActivationMoments] | None = None) -> dict[str, Tensor]:
    """Scales each pair's weights, in place, until both have the same range in every channel they share (eq. 11).

    `known` is node name -> the moments of a layer's outputs: a channel that is always above 0 is not scaled above the
    range of the others. Returns node name -> what its channels (C,) were divided by, for the first of each pair and the
    ReLU behind it.
    """
    # differs from the paper, which absorbs high biases into the next layer afterwards (sec. 4.1.3): a channel that is
    # constant has weights of about 0, and scaled up without bound its bias would set the grid of the whole layer
    found = [
        (first, parameter_of(graph, first.args[1]), parameter_of(graph, second.args[1]))
        for first, second in pairs(graph)
    ]
    scales = {first.name: torch.ones(len(weight)) for first, weight, _ in found}
    for _ in range(ROUNDS):
        change = 0.0
        for first, a, b in found:
            over, under = _range(a, 0), _range(b, 1)
            scale = torch.where((over > 0) & (under > 0), (over / under).sqrt(), torch.ones_like(over))
            if known and first.name in known:
                scale = torch.maximum(scale, _least_scale(known[first.name].scaled(scales[first.name] * scale)) * scale)
            a.data /= scale.view(-1, *[1] * (a.ndim - 1))
            b.data *= scale.view(1, -1, *[1] * (b.ndim - 2))
            if len(first.args) > 2 and first.args[2] is not None:
                parameter_of(graph, first.args[2]).data /= scale
            scales[first.name] *= scale
            change = max(change, float((scale - 1).abs().max()))
        if change < 1e-3:
            break
    for first, _, _ in found:
        scales[next(iter(first.users)).name] = scales[first.name]
    return scales


def _least_scale(outputs: ActivationMoments) -> Tensor:
    """Divisors (C,) of a layer's channels that bring the constant part of each into the range of the others."""
    constant = (outputs.mean - CERTAIN * outputs.variance.sqrt()).clamp(min=0)  # a ReLU follows
    others = outputs.high[(constant == 0) & (outputs.high > 0)]
    return constant / (others if len(others) else outputs.high.abs()).max() if constant.any() else constant


def _range(weight: Tensor, axis: int) -> Tensor:
    return weight.abs().transpose(0, axis).flatten(1).amax(1)
