"""The peak memory and operations of a graph for a number of images, computed without running it."""

from __future__ import annotations

from dataclasses import dataclass

from ..._core.errors import UserError
from . import elementwise, layers, shaping  # noqa: F401 (they fill the table of operators)
from .graph import RANK, Graph, Node, name_of
from .values import RULES, Call, Result, Value

__all__ = ["Cost", "cost", "has_rule", "result_of", "start"]

MALFORMED = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    ZeroDivisionError,
    UnicodeError,
)
LARGEST = 1 << 40


@dataclass(frozen=True)
class Cost:
    """The cost of a batch of images."""

    weights: int
    """Bytes of the weights as stored."""
    fixed: int
    """Bytes of what is worked out from weights alone, which onnxruntime may do beforehand and keep."""
    peak: int
    """Bytes of the results that are needed at the same time, at the most."""
    largest: int
    """Bytes of the largest result."""
    operations: int
    output: tuple[int, ...]
    output_type: int


def has_rule(kind: str) -> bool:
    return kind in RULES


def cost(graph: Graph, images: int) -> Cost:
    """The cost of `images` images. Raises UserError for an operator whose result is unknown before a run."""
    values = start(graph, images)
    last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    last_use[graph.output] = len(graph.nodes)
    ends: dict[int, list[str]] = {}
    for name, index in last_use.items():
        ends.setdefault(index, []).append(name)
    live = peak = values[graph.input].nbytes
    fixed = operations = largest = 0
    for index, node in enumerate(graph.nodes):
        result = result_of(node, values, graph.opset)
        operations += result.operations
        unused = 0
        for name, value in zip(node.outputs, result.values):
            largest = max(largest, value.nbytes)
            if value.fixed:
                fixed += value.nbytes
            else:
                live += value.nbytes
                unused += 0 if name in last_use else value.nbytes
            if name:
                values[name] = value
        peak = max(peak, live + result.workspace)
        live -= unused
        finished = [values.pop(name) for name in ends.get(index, ()) if name]
        live -= sum(value.nbytes for value in finished if not value.fixed)
    output = values[graph.output]
    weights = sum(tensor.nbytes for tensor in graph.tensors.values())
    return Cost(weights, fixed, peak, largest, operations, output.shape, output.type)


def start(graph: Graph, images: int) -> dict[str, Value]:
    """What is known before the first operator: weights and pixels, by name."""
    values = {
        name: Value(tensor.type, tensor.shape, graph.contents[name], True) for name, tensor in graph.tensors.items()
    }
    return {**values, graph.input: Value(1, (images, *graph.shape))}


def result_of(node: Node, values: dict[str, Value], opset: int) -> Result:
    """What an operator returns. Raises UserError if it does not fit its inputs."""
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        result = RULES[node.kind](Call(node, inputs, opset))
    except MALFORMED as error:
        output_name = name_of(next(name for name in node.outputs if name))
        raise UserError(
            f"the operator {node.kind} that computes {output_name} does not fit its inputs ({str(error)[:80]})"
        ) from None
    if len(result.values) < len(node.outputs):
        raise UserError(f"an operator {node.kind} has {len(node.outputs)} outputs, expected up to {len(result.values)}")
    for value in result.values:
        if min(value.shape, default=0) < 0 or len(value.shape) > RANK or value.count > LARGEST:
            sizes = " x ".join(str(size)[:20] for size in value.shape[:RANK])
            raise UserError(
                f"the operator {node.kind} returns numbers of shape {sizes}, beyond any size that is run here"
            )
    return result
