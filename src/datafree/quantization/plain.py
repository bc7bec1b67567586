"""Operators of a captured graph that onnx has no form for, as others that compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .stack import quiet

__all__ = ["plain_pools", "write_plainly"]

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


def plain_pools(graph: GraphModule) -> GraphModule:
    """A graph without average pools that divide by another number than that of the places they see; itself if it has none.

    The exporter drops that number, and onnx counts places beyond the image otherwise. As a pool of the padded image that
    divides by all of its places, times what corrects each output.
    """
    if not any(_divides_otherwise(node) for node in graph.graph.nodes):
        return graph
    with quiet():
        graph = copy.deepcopy(graph)
    for node in [own for own in graph.graph.nodes if _divides_otherwise(own)]:
        rank = _POOLS[node.target]
        source = node.args[0]
        while "val" not in source.meta:  # of a converted graph's grids
            source = source.args[0]
        kernel, stride, padding, ceil, counted, divisor = _pool_arguments(node)
        sides = tuple(int(side) for side in source.meta["val"].shape[-rank:])
        ones = torch.ones(1, 1, *sides)
        expected = node.target(ones, kernel, stride, padding, ceil, counted, *(() if rank == 1 else (divisor,)))
        amounts: list[int] = []
        for axis in reversed(range(rank)):
            needed = (expected.shape[2 + axis] - 1) * stride[axis] + kernel[axis]
            amounts += [padding[axis], max(0, needed - sides[axis] - padding[axis])]
        correction = (expected / node.target(torch.nn.functional.pad(ones, amounts), kernel, stride))[0]
        name = next(f"pool_{index}" for index in range(1 << 20) if not hasattr(graph, f"pool_{index}"))
        graph.register_buffer(name, correction)
        with graph.graph.inserting_before(node):
            padded = _call(graph, _aten.pad.default, node.args[0], amounts)
            mean = _call(graph, node.target, padded, kernel, stride)
            plain = _call(graph, _aten.mul.Tensor, mean, graph.graph.get_attr(name))
        plain.meta = dict(node.meta)
        node.replace_all_uses_with(plain)
        graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _divides_otherwise(node: Node) -> bool:
    if node.target not in _POOLS:
        return False
    *_, ceil, _, divisor = _pool_arguments(node)
    return divisor is not None or ceil


def _pool_arguments(node: Node) -> tuple[Any, ...]:
    """Kernel, stride and padding, each a number per side, whether it rounds up, counts what was padded, and its divisor."""
    given: list[Any] = [*node.args[1:], *[None] * (7 - len(node.args))]
    given = [node.kwargs.get(name, own) for name, own in zip(_POOL_ARGUMENTS, given)]
    kernel, stride, padding = (
        list(own) * _POOLS[node.target] if len(own) == 1 else list(own)
        for own in (given[0], given[1] or given[0], given[2] or [0])
    )
    return kernel, stride, padding, bool(given[3]), given[4] is not False, given[5]


_POOLS: dict[Any, int] = {
    _aten.avg_pool1d.default: 1,
    _aten.avg_pool2d.default: 2,
    _aten.avg_pool3d.default: 3,
}
"""Average pools, and over how many sides each goes."""
_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")

_REWRITES: dict[object, Callable[[GraphModule, Node], Node | None]] = {
    _aten.clamp.default: _clamp,
    _aten.rrelu.default: _rrelu,
    _aten.index_put.default: _masked,
}
