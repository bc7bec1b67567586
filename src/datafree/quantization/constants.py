"""Evaluates tensors of a captured graph that do not depend on the image, and stores those that layers read."""

from __future__ import annotations

import operator

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from .annotate import BATCH_NORM, TRANSPOSED, WEIGHTED, parameter_of

__all__ = ["Constants", "fold_constants", "remove_unread"]

MISSING = object()


class Constants:
    """Values of all nodes that only depend on parameters and buffers, computed on demand.

    Nodes that draw random numbers or read the image or its size are not constant, nor is a graph with in-place writes.
    """

    def __init__(self, graph: GraphModule):
        self.graph = graph
        self.values: dict[Node, object] = {}

    def tensor(self, node: object) -> Tensor | None:
        """The tensor of a node; None if it is not constant or not a tensor."""
        value = self._value(node) if isinstance(node, Node) else None
        return value if isinstance(value, Tensor) else None

    @torch.no_grad()
    def _value(self, node: Node) -> object:
        if node in self.values:
            return self.values[node]
        waiting = [node]
        while waiting:  # a loop, because weights may need more steps than Python's recursion limit
            current = waiting[-1]
            inputs = current.all_input_nodes if _is_pure(current) else []
            missing = [source for source in inputs if source not in self.values]
            if missing:
                waiting.extend(missing)
                continue
            self.values[current] = self._evaluate(current)
            waiting.pop()
        return self.values[node]

    def _evaluate(self, node: Node) -> object:
        if node.op == "get_attr":
            value = parameter_of(self.graph, node)
            return value.detach() if isinstance(value, Tensor) else MISSING
        if not _is_pure(node) or any(self.values[source] is MISSING for source in node.all_input_nodes):
            return MISSING
        args, kwargs = map_arg((node.args, node.kwargs), lambda source: self.values[source])  # type: ignore[misc]
        assert callable(node.target)
        return node.target(*args, **kwargs)  # type: ignore[misc]


def _is_pure(node: Node) -> bool:
    """Whether the node is a pure function of its inputs."""
    if node.op != "call_function":
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def fold_constants(graph: GraphModule) -> None:
    """Replaces computed weights, biases and statistics of layers by stored tensors, in place.

    They come from spectral norm, weight norm, weight standardisation and other parametrizations, which are constant in
    eval mode. Tensors that are no longer read are removed.
    """
    constants, computed = Constants(graph), set()
    for node in list(graph.graph.nodes):
        if node.target not in (*WEIGHTED, *TRANSPOSED, *BATCH_NORM):
            continue
        end = 5 if node.target in BATCH_NORM else 3
        for source in node.args[1:end]:
            if isinstance(source, Node) and source.op != "get_attr":
                value = constants.tensor(source)
                if value is not None:
                    source.replace_all_uses_with(_store(graph, source, value))
                    computed.add(source)
    for node in reversed(_ancestors(computed)):
        if node.op == "call_function" and not node.users:
            graph.graph.erase_node(node)
    remove_unread(graph)
    graph.recompile()


def _store(graph: GraphModule, source: Node, value: Tensor) -> Node:
    """A node that reads `value`, stored next to the first parameter that it was computed from."""
    origins = [node for node in _ancestors({source}) if node.op == "get_attr"]
    is_parameter = any(isinstance(parameter_of(graph, origin), nn.Parameter) for origin in origins)
    place = _layer(str(origins[0].target)) if origins else ""
    module = graph.get_submodule(place)
    name = next(name for name in (f"computed_{index}" for index in range(1 << 20)) if not hasattr(module, name))
    value = value.detach().clone().contiguous()
    if is_parameter and value.is_floating_point():
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)
    with graph.graph.inserting_before(source):
        node = graph.graph.get_attr(f"{place}.{name}" if place else name)
    node.meta = {key: entry for key, entry in source.meta.items() if key == "val"}
    return node


def _layer(tensor: str) -> str:
    """Name of the layer that a parameter belongs to; torch keeps parametrizations in submodules of the layer."""
    layer, parametrized, _ = tensor.partition("parametrizations.")
    return layer.removesuffix(".") if parametrized else tensor.rpartition(".")[0]


def _ancestors(nodes: set[Node]) -> list[Node]:
    """The nodes and everything that they are computed from, in the order of execution."""
    ancestors, waiting = set(nodes), list(nodes)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in ancestors:
                ancestors.add(source)
                waiting.append(source)
    return sorted(ancestors)


def remove_unread(graph: GraphModule) -> None:
    """Removes tensors that no operator reads, and their nodes, in place."""
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in read:
            place, _, tensor = name.rpartition(".")
            delattr(graph.get_submodule(place), tensor)
