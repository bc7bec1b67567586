"""Tensors of a captured graph that do not depend on the image: evaluated, and stored where a layer reads them."""

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
    """The value of every node that depends on parameters and buffers alone; computed when it is first asked for.

    What draws random numbers, reads the image or its size is not constant, nor is anything in a graph that writes in place.
    """

    def __init__(self, graph: GraphModule):
        self.graph = graph
        self.values: dict[Node, object] = {}

    def tensor(self, node: object) -> Tensor | None:
        """The tensor of a node; None where it is not constant or no tensor."""
        value = self._value(node) if isinstance(node, Node) else None
        return value if isinstance(value, Tensor) else None

    @torch.no_grad()
    def _value(self, node: Node) -> object:
        if node in self.values:
            return self.values[node]
        waiting = [node]
        while waiting:  # a loop: weights may be computed in more steps than Python recurses
            last = waiting[-1]
            missing = [own for own in last.all_input_nodes if own not in self.values] if _pure(last) else []
            if missing:
                waiting.extend(missing)
                continue
            self.values[last] = self._evaluated(last)
            waiting.pop()
        return self.values[node]

    def _evaluated(self, node: Node) -> object:
        if node.op == "get_attr":
            value = parameter_of(self.graph, node)
            return value.detach() if isinstance(value, Tensor) else MISSING
        if not _pure(node) or any(self.values[own] is MISSING for own in node.all_input_nodes):
            return MISSING
        args, kwargs = map_arg((node.args, node.kwargs), lambda own: self.values[own])  # type: ignore[misc]
        assert callable(node.target)
        return node.target(*args, **kwargs)  # type: ignore[misc]


def _pure(node: Node) -> bool:
    """Whether the same inputs give the same value, and nothing else changes."""
    if node.op != "call_function":
        return False
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target is operator.getitem
    return not node.target._schema.is_mutable and torch.Tag.nondeterministic_seeded not in node.target.tags


def fold_constants(graph: GraphModule) -> None:
    """Makes every computed weight, bias and statistic of a layer a tensor of the graph, in place.

    So are those of spectral norm, weight norm, weight standardisation and other parametrizations, which are constant in
    eval mode. Tensors that only they were computed from are removed.
    """
    constants, computed = Constants(graph), set()
    for node in list(graph.graph.nodes):
        if node.target not in (*WEIGHTED, *TRANSPOSED, *BATCH_NORM):
            continue
        last = 5 if node.target in BATCH_NORM else 3
        for source in node.args[1:last]:
            if isinstance(source, Node) and source.op != "get_attr":
                value = constants.tensor(source)
                if value is not None:
                    source.replace_all_uses_with(_stored(graph, source, value))
                    computed.add(source)
    for node in reversed(_ancestors(computed)):
        if node.op == "call_function" and not node.users:
            graph.graph.erase_node(node)
    remove_unread(graph)
    graph.recompile()


def _stored(graph: GraphModule, source: Node, value: Tensor) -> Node:
    """A node that reads `value`, stored beside the first parameter that it was computed from."""
    origins = [own for own in _ancestors({source}) if own.op == "get_attr"]
    learnt = any(isinstance(parameter_of(graph, own), nn.Parameter) for own in origins)
    place = _layer(str(origins[0].target)) if origins else ""
    module = graph.get_submodule(place)
    name = next(own for own in (f"computed_{index}" for index in range(1 << 20)) if not hasattr(module, own))
    value = value.detach().clone().contiguous()
    if learnt and value.is_floating_point():
        module.register_parameter(name, nn.Parameter(value))
    else:
        module.register_buffer(name, value)
    with graph.graph.inserting_before(source):
        node = graph.graph.get_attr(f"{place}.{name}" if place else name)
    node.meta = {key: own for key, own in source.meta.items() if key == "val"}
    return node


def _layer(tensor: str) -> str:
    """The name of the layer that a parameter belongs to; torch keeps computed ones in modules of their own below it."""
    before, parametrized, _ = tensor.partition("parametrizations.")
    return before.removesuffix(".") if parametrized else tensor.rpartition(".")[0]


def _ancestors(nodes: set[Node]) -> list[Node]:
    """The nodes themselves and everything that they are computed from, in the order in which they run."""
    found, waiting = set(nodes), list(nodes)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return sorted(found)


def remove_unread(graph: GraphModule) -> None:
    """Removes the tensors that no operator reads, with their nodes, in place."""
    for node in reversed(list(graph.graph.nodes)):
        if node.op == "get_attr" and not node.users:
            graph.graph.erase_node(node)
    read = {str(node.target) for node in graph.graph.nodes if node.op == "get_attr"}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in read:
            place, _, tensor = name.rpartition(".")
            delattr(graph.get_submodule(place), tensor)
