"""What a graph needs for a number of images: bytes at the most, and operations. Nothing of it is run."""

from __future__ import annotations

from dataclasses import dataclass

from ..._core.errors import UserError
from . import elementwise, layers, shaping  # noqa: F401 (they fill the table of operators)
from .graph import RANK, Graph, Node, name_of
from .values import RULES, Call, Result, Value

__all__ = ["Cost", "cost", "known"]

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
    """Of a number of images together."""

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


def known(kind: str) -> bool:
    return kind in RULES


def cost(graph: Graph, images: int) -> Cost:
    """What `images` images need. Raises UserError where an operator cannot be worked out without running it."""
    values = {name: Value(own.type, own.shape, graph.contents[name], True) for name, own in graph.tensors.items()}
    values[graph.input] = Value(1, (images, *graph.shape))
    last = {name: index for index, node in enumerate(graph.nodes) for name in node.inputs}
    last[graph.output] = len(graph.nodes)
    ends: dict[int, list[str]] = {}
    for name, index in last.items():
        ends.setdefault(index, []).append(name)
    held = peak = values[graph.input].nbytes
    fixed = operations = largest = 0
    for index, node in enumerate(graph.nodes):
        result = _result(node, values, graph.opset)
        operations += result.operations
        now = 0
        for name, value in zip(node.outputs, result.values):
            largest = max(largest, value.nbytes)
            if value.fixed:
                fixed += value.nbytes
            else:
                held += value.nbytes
                now += 0 if name in last else value.nbytes
            if name:
                values[name] = value
        peak = max(peak, held + result.workspace)
        held -= now
        gone = [values.pop(name) for name in ends.get(index, ()) if name]
        held -= sum(value.nbytes for value in gone if not value.fixed)
    output = values[graph.output]
    weights = sum(own.nbytes for own in graph.tensors.values())
    return Cost(weights, fixed, peak, largest, operations, output.shape, output.type)


def _result(node: Node, values: dict[str, Value], opset: int) -> Result:
    inputs = [values[name] if name else None for name in node.inputs]
    try:
        result = RULES[node.kind](Call(node, inputs, opset))
    except MALFORMED as error:
        first = name_of(next(name for name in node.outputs if name))
        raise UserError(
            f"the operator {node.kind} that makes {first} does not fit its inputs ({str(error)[:80]})"
        ) from None
    if len(result.values) < len(node.outputs):
        raise UserError(f"an operator {node.kind} has {len(node.outputs)} outputs, expected up to {len(result.values)}")
    for value in result.values:
        if min(value.shape, default=0) < 0 or len(value.shape) > RANK or value.count > LARGEST:
            shown = " x ".join(str(size)[:20] for size in value.shape[:RANK])
            raise UserError(
                f"the operator {node.kind} returns numbers of shape {shown}, beyond any size that is run here"
            )
    return result
