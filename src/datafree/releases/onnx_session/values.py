"""What is known about a tensor before a run: format, shape and small contents; and the table of operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..._core.errors import UserError
from .graph import SMALL, Node, numpy_type, size_of

__all__ = ["RULES", "Call", "Result", "Value", "broadcast", "rule"]

BOOL, INT32, INT64, FLOAT, HALF = 9, 6, 7, 1, 10


@dataclass(frozen=True)
class Value:
    """A tensor: its number format (ONNX's), its shape, its content if small and known, and whether it is the same for all
    images."""

    type: int
    shape: tuple[int, ...]
    data: np.ndarray | None = None
    fixed: bool = False

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.count * size_of(self.type)


@dataclass(frozen=True)
class Result:
    """The outputs of an operator, its number of operations, and the bytes of its workspace."""

    values: list[Value]
    operations: int
    workspace: int = 0


@dataclass
class Call:
    """An operator and what is known about its inputs."""

    node: Node
    inputs: list[Value | None]
    opset: int
    fixed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.fixed = all(value is None or value.fixed for value in self.inputs)

    def take(self, index: int) -> Value:
        """A required input."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise ValueError("an input is missing")
        return value

    def optional(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def content(self, index: int, *, limit: int = SMALL) -> np.ndarray:
        """The content of an input that determines a shape."""
        value = self.take(index)
        if value.data is None or value.count > limit:
            raise UserError(
                f"the size of the result of {self.node.kind} is not known before a run: it depends on the images, or "
                "on a tensor that is too large to be evaluated"
            )
        return value.data

    def numbers(self, index: int) -> list[int]:
        return [int(number) for number in np.atleast_1d(self.content(index)).ravel()]

    def get(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute that is 0 or 1. Other numbers are refused: some operators read them as 0 and others as 1."""
        value = self.get(name, int(default))
        if value not in (0, 1):
            raise ValueError(f"{name} {value}")
        return bool(value)

    def returns(self, *shapes: tuple[int, ...], type: int | None = None, cost: int | None = None) -> Result:
        """Values of these shapes; by default in the first input's format and with one operation per number."""
        result_type = self.take(0).type if type is None else type
        values = [Value(result_type, tuple(int(size) for size in shape), None, self.fixed) for shape in shapes]
        return Result(values, sum(value.count for value in values) if cost is None else int(cost))

    def computed(self, result: Result, compute: Callable[..., np.ndarray]) -> Result:
        """`result` with its content if the contents of the inputs are known and the result is small."""
        value = result.values[0]
        dtype = numpy_type(value.type)
        if (
            value.count > SMALL
            or dtype is None
            or any(operand is not None and operand.data is None for operand in self.inputs)
        ):
            return result
        if value.type == HALF:  # onnxruntime computes in float32 and may skip rounding between two operators
            return result
        with np.errstate(all="ignore"):
            data = compute(*(None if operand is None else operand.data for operand in self.inputs))
        if data.dtype.kind == "f" and dtype.kind in "iu" and not _within(data, dtype):
            return result
        return Result(
            [Value(value.type, value.shape, data.astype(dtype).reshape(value.shape), value.fixed)], result.operations
        )


def _within(data: np.ndarray, dtype: np.dtype) -> bool:
    """Whether C defines the conversion of these numbers to integers; otherwise it depends on the processor."""
    limits, truncated = np.iinfo(dtype), np.trunc(data.astype(np.float64))
    return bool(((truncated >= float(limits.min)) & (truncated < float(limits.max) + (dtype.itemsize < 8))).all())


Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}
"""Operator -> rule from what is known about its inputs to its outputs. Operators without a rule are refused."""


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Registers a rule for these operators."""

    def register(function: Rule) -> Rule:
        for kind in kinds:
            assert kind not in RULES
            RULES[kind] = function
        return function

    return register


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that numpy broadcasts to, also for sizes that are too large for an array."""
    rank = max(len(shape) for shape in shapes)
    full = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes = []
    for column in zip(*full):
        larger = {size for size in column if size != 1}
        if len(larger) > 1:
            raise ValueError(f"shapes {shapes} cannot be broadcast")
        sizes.append(larger.pop() if larger else 1)
    return tuple(sizes)
