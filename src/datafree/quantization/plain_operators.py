"""Rewrites operators of a captured graph that have no ONNX form into equivalent ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .._core.optional_packages import quiet
from .annotate import arguments

__all__ = ["plain_pools", "write_plainly"]

_aten = torch.ops.aten
Rewrites = dict[object, Callable[[GraphModule, Node], Node | None]]
"""Operator -> function that rewrites it; None leaves the node unchanged."""


def write_plainly(graph: GraphModule) -> None:
    """Rewrites such operators in place, without changing any value."""
    _rewrite(graph, _REWRITES)


def plain_pools(graph: GraphModule) -> GraphModule:
    """The graph, or a copy with rewritten average pools if a divisor is not the number of positions in the kernel.

    The exporter drops such a divisor, and ONNX counts positions outside the image differently.
    """
    if not any(node.target in _POOLS and _has_other_divisor(node) for node in graph.graph.nodes):
        return graph
    with quiet():
        graph = copy.deepcopy(graph)
    _rewrite(graph, dict.fromkeys(_POOLS, _pool))
    return graph


def _rewrite(graph: GraphModule, rewrites: Rewrites) -> None:
    for node in list(graph.graph.nodes):
        rewrite = rewrites.get(node.target)
        if rewrite is None:
            continue
        with graph.graph.inserting_before(node):
            replacement = rewrite(graph, node)
        if replacement is not None:
            replacement.meta = dict(node.meta)
            node.replace_all_uses_with(replacement)
            graph.graph.erase_node(node)
    graph.recompile()


def _call(graph: GraphModule, target: torch._ops.OpOverload, *args: object) -> Node:
    return graph.graph.call_function(target, args)  # type: ignore[arg-type]


def _is_float(node: object) -> bool:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.is_floating_point()


def _clamp(graph: GraphModule, node: Node) -> Node | None:
    """Converts both limits to floats; the exporter does not support a clamp with an int and a float."""
    options = arguments(node)
    limits = [options["min"], options["max"]]
    numbers = [float(limit) if isinstance(limit, (int, float)) else None for limit in limits]
    if not _is_float(node.args[0]) or any(
        limit is not None for limit, number in zip(limits, numbers) if number is None
    ):
        return None
    return _call(graph, _aten.clamp.default, node.args[0], *numbers)


def _rrelu(graph: GraphModule, node: Node) -> Node | None:
    """A leaky ReLU with the mean slope, which is what RReLU does outside training."""
    options = arguments(node)
    lower, upper = options["lower"], options["upper"]
    if options["training"] or not isinstance(lower, (int, float)) or not isinstance(upper, (int, float)):
        return None
    return _call(graph, _aten.leaky_relu.default, node.args[0], (lower + upper) / 2)


def _masked(graph: GraphModule, node: Node) -> Node | None:
    """`x[mask] = number` as torch.where."""
    source, indices, number = node.args[:3]
    if any(node.args[3:]) or node.kwargs or not isinstance(indices, (list, tuple)) or len(indices) != 1:
        return None
    mask, value = (
        argument.meta.get("val") if isinstance(argument, Node) else None for argument in (indices[0], number)
    )
    image = source.meta.get("val") if isinstance(source, Node) else None
    if not (isinstance(mask, Tensor) and isinstance(value, Tensor) and isinstance(image, Tensor)):
        return None
    if mask.dtype != torch.bool or value.ndim or value.dtype != image.dtype:
        return None
    chosen = indices[0]
    for _ in range(image.ndim - mask.ndim):
        chosen = _call(graph, _aten.unsqueeze.default, chosen, -1)
    return _call(graph, _aten.where.self, chosen, number, source)


def _has_other_divisor(pool: Node) -> bool:
    options = arguments(pool)
    return bool(options["ceil_mode"]) or options.get("divisor_override") is not None


def _pool(graph: GraphModule, node: Node) -> Node | None:
    """A pool of the padded image that divides by the kernel's size, with a correction per output position."""
    if not _has_other_divisor(node):
        return None
    assert isinstance(node.target, torch._ops.OpOverload)
    source: Any = node.args[0]
    while "val" not in source.meta:  # quantize and dequantize operators of a converted graph
        source = source.args[0]
    options, rank = arguments(node), _POOLS[node.target]
    kernel, stride, padding = (
        list(sides) * (rank // len(sides))
        for sides in (options["kernel_size"], options["stride"] or options["kernel_size"], options["padding"])
    )
    image = torch.ones(1, 1, *(int(side) for side in source.meta["val"].shape[-rank:]))
    expected = node.target(image, *node.args[1:], **node.kwargs)
    amounts: list[int] = []
    for axis in reversed(range(rank)):
        needed = (expected.shape[2 + axis] - 1) * stride[axis] + kernel[axis]
        amounts += [padding[axis], max(0, needed - image.shape[2 + axis] - padding[axis])]
    correction = (expected / node.target(torch.nn.functional.pad(image, amounts), kernel, stride))[0]
    name = next(f"pool_{index}" for index in range(1 << 20) if not hasattr(graph, f"pool_{index}"))
    graph.register_buffer(name, correction)
    padded = _call(graph, _aten.pad.default, node.args[0], amounts)
    mean = _call(graph, node.target, padded, kernel, stride)
    return _call(graph, _aten.mul.Tensor, mean, graph.graph.get_attr(name))


_POOLS: dict[object, int] = {
    _aten.avg_pool1d.default: 1,
    _aten.avg_pool2d.default: 2,
    _aten.avg_pool3d.default: 3,
}
"""Average pools and the number of axes that each averages over."""
_REWRITES: Rewrites = {
    _aten.clamp.default: _clamp,
    _aten.rrelu.default: _rrelu,
    _aten.index_put.default: _masked,
}
