"""Batch norm folded into the layer before it; where that cannot be, it stays, or becomes a scale and a shift by channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from .annotate import BATCH_NORM, TRANSPOSED, WEIGHTED, groups, own_tensors, parameter_of
from .constants import remove_unread

__all__ = ["fold_batch_norms", "untie"]

_aten = torch.ops.aten
SAME_VALUES = (
    _aten.clone.default, _aten.detach.default, _aten.alias.default, _aten.contiguous.default, _aten.dropout.default,
)  # fmt: skip
"""Operators whose output equals their input, where dropout is not active."""


def untie(graph: GraphModule) -> None:
    """Gives every layer a weight and a bias that nothing else reads, and every batch norm a layer for it alone, in place.

    A layer is changed by folding a batch norm into it, by scaling it and by its bias. Where it is used twice, or its output
    is read beside the batch norm, the other use would change too, without a message.
    """
    for node in list(graph.graph.nodes):
        path = _path(node)
        if any(len(own.users) > 1 for own in path):
            _copied_path(graph, node, path)
    own_tensors(graph)
    graph.recompile()


def _path(batch_norm: Node) -> list[Node]:
    """From the layer that a batch norm can be folded into to the node before it, batch norms between them included.

    Empty for another node, and where there is no such layer: its weights are computed from the image, say, or it is a
    linear layer on a sequence, whose features are not what the batch norm takes for channels.
    """
    if batch_norm.target not in BATCH_NORM or not _stored(batch_norm.args[1:5]):
        return []
    found: list[Node] = []
    node = batch_norm.args[0]
    while isinstance(node, Node) and node.op == "call_function":
        found.append(node)
        if node.target in (*WEIGHTED, *TRANSPOSED):
            return found[::-1] if _foldable(node) else []
        through = node.target in SAME_VALUES and not (node.target == _aten.dropout.default and node.args[2])
        if not through and not (node.target in BATCH_NORM and _stored(node.args[1:5])):
            return []
        node = node.args[0]
    return []


def _foldable(layer: Node) -> bool:
    value = layer.meta.get("val")
    on_rows = layer.target != _aten.linear.default or (isinstance(value, Tensor) and value.ndim == 2)
    return on_rows and _stored(layer.args[1:3])


def _stored(arguments: Sequence[object]) -> bool:
    """Whether each is a tensor of the network, or None."""
    return all(own is None or (isinstance(own, Node) and own.op == "get_attr") for own in arguments)


def _copied_path(graph: GraphModule, batch_norm: Node, path: list[Node]) -> None:
    """Computes the path a second time, for this batch norm alone."""
    copies: dict[Node, Node] = {}
    with graph.graph.inserting_before(batch_norm):
        for node in path:
            copies[node] = graph.graph.node_copy(node, lambda own: copies.get(own, own))
    batch_norm.replace_input_with(path[-1], copies[path[-1]])


def fold_batch_norms(graph: GraphModule) -> dict[str, str]:
    """Folds every batch norm that follows a conv, transposed conv or linear layer into it, in place.

    After `untie`. Returns the name of each batch norm that is gone -> the node that has its output now. A batch norm behind
    a layer that it cannot be folded into becomes a scale and a shift; any other stays.
    """
    gone: dict[str, str] = {}
    for node in [own for own in graph.graph.nodes if own.target in BATCH_NORM]:
        path = _path(node)
        if path:
            _fold(graph, path[0], node)
            source = node.args[0]
            assert isinstance(source, Node)
            gone[node.name] = path[0].name
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
        elif _stored(node.args[1:5]) and getattr(node.args[0], "target", None) in (*WEIGHTED, *TRANSPOSED):
            gone[node.name] = _scaled_and_shifted(graph, node).name  # torchao would fold it
    remove_unread(graph)
    graph.recompile()
    return gone


def _statistics(graph: GraphModule, batch_norm: Node) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a batch norm: weight, bias, mean and the inverse of the standard deviation, each (C,)."""
    mean, variance = (parameter_of(graph, own).detach() for own in batch_norm.args[3:5])
    weight, bias = (
        torch.full_like(mean, default) if own is None else parameter_of(graph, own).detach()
        for own, default in zip(batch_norm.args[1:3], (1.0, 0.0), strict=True)
    )
    epsilon = batch_norm.args[7]
    assert isinstance(epsilon, float | int)
    return weight, bias, mean, torch.rsqrt(variance + epsilon)


def _fold(graph: GraphModule, layer: Node, batch_norm: Node) -> None:
    gamma, beta, mean, inverse = _statistics(graph, batch_norm)
    weight = parameter_of(graph, layer.args[1])
    bias = parameter_of(graph, layer.args[2]) if len(layer.args) > 2 and layer.args[2] is not None else None
    before = torch.zeros_like(mean) if bias is None else bias.detach()
    after = ((before - mean) * inverse * gamma + beta).to(weight.dtype)
    weight.data = _by_output(weight.detach(), gamma * inverse, layer).to(weight.dtype)
    if bias is not None:
        bias.data = after
    else:
        place, _, _ = str(layer.args[1].target).rpartition(".")  # type: ignore[union-attr]
        module = graph.get_submodule(place)
        name = next(own for own in (f"folded_{index}" for index in range(1 << 20)) if not hasattr(module, own))
        module.register_parameter(name, nn.Parameter(after))
        with graph.graph.inserting_before(layer):
            node = graph.graph.get_attr(f"{place}.{name}" if place else name)
        layer.args = (*layer.args[:2], node, *layer.args[3:])


def _by_output(weight: Tensor, scale: Tensor, layer: Node) -> Tensor:
    """A layer's weight, every output channel of it times its scale (C,)."""
    if layer.target not in TRANSPOSED:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    parts = groups(layer)  # a transposed layer's weight is (in, out / groups, ...)
    split = weight.unflatten(0, (parts, -1))
    return (split * scale.reshape(parts, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)


def _scaled_and_shifted(graph: GraphModule, batch_norm: Node) -> Node:
    gamma, beta, mean, inverse = _statistics(graph, batch_norm)
    source = batch_norm.args[0]
    assert isinstance(source, Node)
    ndim = source.meta["val"].ndim
    for operator, value in ((_aten.mul.Tensor, gamma * inverse), (_aten.add.Tensor, beta - mean * gamma * inverse)):
        name = next(own for own in (f"affine_{index}" for index in range(1 << 20)) if not hasattr(graph, own))
        graph.register_buffer(name, value.reshape(-1, *[1] * (ndim - 2)))
        with graph.graph.inserting_before(batch_norm):
            source = graph.graph.call_function(operator, (source, graph.graph.get_attr(name)))
        source.meta = {key: own for key, own in batch_norm.meta.items() if key == "val"}
    batch_norm.replace_all_uses_with(source)
    graph.graph.erase_node(batch_norm)
    return source
