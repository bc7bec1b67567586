"""Operators of a captured graph that onnx has no form for, as others that compute the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

__all__ = ["write_plainly"]

_aten = torch.ops.aten


def write_plainly(graph: GraphModule) -> None:
    """Rewrites them in place; each has the values of the operator that it takes the place of."""
    for node in list(graph.graph.nodes):
        rewrite = _REWRITES.get(node.target)
        if rewrite is None:
            continue
        with graph.graph.inserting_before(node):
            plain = rewrite(graph, node)
        if plain is not None:
            plain.meta = dict(node.meta)
            node.replace_all_uses_with(plain)
            graph.graph.erase_node(node)
    graph.recompile()


def _call(graph: GraphModule, target: torch._ops.OpOverload, *args: object) -> Node:
    return graph.graph.call_function(target, args)  # type: ignore[arg-type]


def _is_float(node: object) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.is_floating_point()


def _clamp(graph: GraphModule, node: Node) -> Node | None:
    """Both ends as floats: the exporter knows no clamp between an int and a float."""
    ends = [*node.args[1:], *(node.kwargs.get(name) for name in ("min", "max")[len(node.args) - 1 :])]
    numbers = [float(end) if isinstance(end, (int, float)) else None for end in ends]
    if not _is_float(node.args[0]) or any(end is not None for end, own in zip(ends, numbers) if own is None):
        return None
    return _call(graph, _aten.clamp.default, node.args[0], *numbers)


def _rrelu(graph: GraphModule, node: Node) -> Node | None:
    """A leaky rectifier of the mean slope, which it is outside training."""
    lower, upper, training = (*node.args[1:4], *(1 / 8, 1 / 3, False)[len(node.args) - 1 :])
    if training or not isinstance(lower, (int, float)) or not isinstance(upper, (int, float)):
        return None
    return _call(graph, _aten.leaky_relu.default, node.args[0], (lower + upper) / 2)


def _masked(graph: GraphModule, node: Node) -> Node | None:
    """`x[mask] = number`: a choice by the mask."""
    source, indices, number = node.args[:3]
    if any(node.args[3:]) or node.kwargs or not isinstance(indices, (list, tuple)) or len(indices) != 1:
        return None
    mask, value = (own.meta.get("val") if isinstance(own, Node) else None for own in (indices[0], number))
    image = source.meta.get("val") if isinstance(source, Node) else None
    if not (isinstance(mask, Tensor) and isinstance(value, Tensor) and isinstance(image, Tensor)):
        return None
    if mask.dtype != torch.bool or value.ndim or value.dtype != image.dtype:
        return None
    chosen = indices[0]
    for _ in range(image.ndim - mask.ndim):
        chosen = _call(graph, _aten.unsqueeze.default, chosen, -1)
    return _call(graph, _aten.where.self, chosen, number, source)


_REWRITES: dict[object, Callable[[GraphModule, Node], Node | None]] = {
    _aten.clamp.default: _clamp,
    _aten.rrelu.default: _rrelu,
    _aten.index_put.default: _masked,
}
