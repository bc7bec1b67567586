"""Folds batch norms into the layer before; otherwise they stay, or become a scale and a shift per channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from .annotate import BATCH_NORM, TRANSPOSED, WEIGHTED, groups, parameter_of, separate_tensors
from .constants import remove_unread

__all__ = ["fold_batch_norms", "untie"]

_aten = torch.ops.aten
SAME_VALUES = (
    _aten.clone.default, _aten.detach.default, _aten.alias.default, _aten.contiguous.default, _aten.dropout.default,
)  # fmt: skip
"""Operators whose output equals their input, if dropout is inactive."""


def untie(graph: GraphModule) -> None:
    """Gives each layer its own weight and bias, and each batch norm its own layer, in place.

    Folding a batch norm, scaling, and bias correction change a layer. If it is used twice, or its output is also read
    elsewhere, the other use would silently change too.
    """
    for node in list(graph.graph.nodes):
        path = _path(node)
        if any(len(step.users) > 1 for step in path):
            _copy_path(graph, node, path)
    separate_tensors(graph)
    graph.recompile()


def _path(batch_norm: Node) -> list[Node]:
    """The nodes from the layer that a batch norm can be folded into to the one before it, including batch norms.

    Empty for other nodes, and if there is no such layer: its weights are computed from the image, for example, or it is
    a linear layer on a sequence, whose features are not the batch norm's channels.
    """
    if batch_norm.target not in BATCH_NORM or not _are_stored(batch_norm.args[1:5]):
        return []
    path: list[Node] = []
    node = batch_norm.args[0]
    while isinstance(node, Node) and node.op == "call_function":
        path.append(node)
        if node.target in (*WEIGHTED, *TRANSPOSED):
            return path[::-1] if _foldable(node) else []
        through = node.target in SAME_VALUES and not (node.target == _aten.dropout.default and node.args[2])
        if not through and not (node.target in BATCH_NORM and _are_stored(node.args[1:5])):
            return []
        node = node.args[0]
    return []


def _foldable(layer: Node) -> bool:
    value = layer.meta.get("val")
    on_rows = layer.target != _aten.linear.default or (isinstance(value, Tensor) and value.ndim == 2)
    return on_rows and _are_stored(layer.args[1:3])


def _are_stored(arguments: Sequence[object]) -> bool:
    """Whether each argument is a stored tensor of the network, or None."""
    return all(argument is None or (isinstance(argument, Node) and argument.op == "get_attr") for argument in arguments)


def _copy_path(graph: GraphModule, batch_norm: Node, path: list[Node]) -> None:
    """Copies the path for this batch norm only."""
    copies: dict[Node, Node] = {}
    with graph.graph.inserting_before(batch_norm):
        for node in path:
            copies[node] = graph.graph.node_copy(node, lambda source: copies.get(source, source))
    batch_norm.replace_input_with(path[-1], copies[path[-1]])


def fold_batch_norms(graph: GraphModule) -> dict[str, str]:
    """Folds each batch norm that follows a conv, transposed conv or linear layer into it, in place. Call `untie` first.

    Returns, by name of each removed batch norm, the node that now has its output. A batch norm that cannot be folded
    into the layer before it becomes a scale and a shift; others stay.
    """
    replaced: dict[str, str] = {}
    for node in [node for node in graph.graph.nodes if node.target in BATCH_NORM]:
        path = _path(node)
        if path:
            _fold(graph, path[0], node)
            source = node.args[0]
            assert isinstance(source, Node)
            replaced[node.name] = path[0].name
            node.replace_all_uses_with(source)
            graph.graph.erase_node(node)
        elif _are_stored(node.args[1:5]) and getattr(node.args[0], "target", None) in (*WEIGHTED, *TRANSPOSED):
            replaced[node.name] = _replace_by_affine(graph, node).name  # otherwise torchao would fold it
    remove_unread(graph)
    graph.recompile()
    return replaced


def _statistics(graph: GraphModule, batch_norm: Node) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight, bias, mean and inverse standard deviation of a batch norm, each (C,)."""
    mean, variance = (parameter_of(graph, tensor).detach() for tensor in batch_norm.args[3:5])
    weight, bias = (
        torch.full_like(mean, default) if tensor is None else parameter_of(graph, tensor).detach()
        for tensor, default in zip(batch_norm.args[1:3], (1.0, 0.0), strict=True)
    )
    epsilon = batch_norm.args[7]
    assert isinstance(epsilon, float | int)
    return weight, bias, mean, torch.rsqrt(variance + epsilon)


def _fold(graph: GraphModule, layer: Node, batch_norm: Node) -> None:
    gamma, beta, mean, inverse = _statistics(graph, batch_norm)
    weight = parameter_of(graph, layer.args[1])
    bias = parameter_of(graph, layer.args[2]) if len(layer.args) > 2 and layer.args[2] is not None else None
    old_bias = torch.zeros_like(mean) if bias is None else bias.detach()
    new_bias = ((old_bias - mean) * inverse * gamma + beta).to(weight.dtype)
    weight.data = _scale_outputs(weight.detach(), gamma * inverse, layer).to(weight.dtype)
    if bias is not None:
        bias.data = new_bias
    else:
        place, _, _ = str(layer.args[1].target).rpartition(".")  # type: ignore[union-attr]
        module = graph.get_submodule(place)
        name = next(name for name in (f"folded_{index}" for index in range(1 << 20)) if not hasattr(module, name))
        module.register_parameter(name, nn.Parameter(new_bias))
        with graph.graph.inserting_before(layer):
            node = graph.graph.get_attr(f"{place}.{name}" if place else name)
        layer.args = (*layer.args[:2], node, *layer.args[3:])


def _scale_outputs(weight: Tensor, scale: Tensor, layer: Node) -> Tensor:
    """A layer's weight with each output channel multiplied by its scale (C,)."""
    if layer.target not in TRANSPOSED:
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    parts = groups(layer)  # a transposed layer's weight is (in, out / groups, ...)
    split = weight.unflatten(0, (parts, -1))
    return (split * scale.reshape(parts, 1, -1, *[1] * (weight.ndim - 2))).flatten(0, 1)


def _replace_by_affine(graph: GraphModule, batch_norm: Node) -> Node:
    gamma, beta, mean, inverse = _statistics(graph, batch_norm)
    source = batch_norm.args[0]
    assert isinstance(source, Node)
    ndim = source.meta["val"].ndim
    for operator, value in ((_aten.mul.Tensor, gamma * inverse), (_aten.add.Tensor, beta - mean * gamma * inverse)):
        name = next(name for name in (f"affine_{index}" for index in range(1 << 20)) if not hasattr(graph, name))
        graph.register_buffer(name, value.reshape(-1, *[1] * (ndim - 2)))
        with graph.graph.inserting_before(batch_norm):
            source = graph.graph.call_function(operator, (source, graph.graph.get_attr(name)))
        source.meta = {key: entry for key, entry in batch_norm.meta.items() if key == "val"}
    batch_norm.replace_all_uses_with(source)
    graph.graph.erase_node(batch_norm)
    return source
