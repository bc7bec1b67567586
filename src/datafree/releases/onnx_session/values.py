"""What is known of a tensor before anything is run: format, shape, small contents; and the table of operators."""

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
    """A tensor: its number format (ONNX's), shape, what it holds where that is small and known, and whether it is the
    same for all images."""

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
    """What an operator returns, the operations that it takes, and the bytes that it needs meanwhile."""

    values: list[Value]
    operations: int
    workspace: int = 0


@dataclass
class Call:
    """One operator with what is known of its inputs."""

    node: Node
    inputs: list[Value | None]
    opset: int
    fixed: bool = field(init=False)

    def __post_init__(self) -> None:
        self.fixed = all(own is None or own.fixed for own in self.inputs)

    def take(self, index: int) -> Value:
        """An input that must be there."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise ValueError("an input is missing")
        return value

    def optional(self, index: int) -> Value | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def known(self, index: int, *, limit: int = SMALL) -> np.ndarray:
        """The contents of an input that decides a shape."""
        value = self.take(index)
        if value.data is None or value.count > limit:
            raise UserError(
                f"the size of what {self.node.kind} returns cannot be known before it is run: it depends on the images, or "
                "on more or larger numbers than are followed"
            )
        return value.data

    def numbers(self, index: int) -> list[int]:
        return [int(own) for own in np.atleast_1d(self.known(index)).ravel()]

    def get(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute that is 0 or 1; of other numbers some operators make one, and some the other."""
        value = self.get(name, int(default))
        if value not in (0, 1):
            raise ValueError(f"{name} {value}")
        return bool(value)

    def returns(self, *shapes: tuple[int, ...], type: int | None = None, cost: int | None = None) -> Result:
        """Values of these shapes, by default in the first input's format and at one operation a number."""
        own = self.take(0).type if type is None else type
        values = [Value(own, tuple(int(size) for size in shape), None, self.fixed) for shape in shapes]
        return Result(values, sum(value.count for value in values) if cost is None else int(cost))

    def computed(self, result: Result, compute: Callable[..., np.ndarray]) -> Result:
        """`result` with its contents, where the inputs' contents are known and the result is small."""
        value = result.values[0]
        dtype = numpy_type(value.type)
        if value.count > SMALL or dtype is None or any(own is not None and own.data is None for own in self.inputs):
            return result
        if value.type == HALF:  # onnxruntime works in float32, and need not round what lies between two operators
            return result
        with np.errstate(all="ignore"):
            data = compute(*(None if own is None else own.data for own in self.inputs))
        if data.dtype.kind == "f" and dtype.kind in "iu" and not _within(data, dtype):
            return result
        return Result(
            [Value(value.type, value.shape, data.astype(dtype).reshape(value.shape), value.fixed)], result.operations
        )


def _within(data: np.ndarray, dtype: np.dtype) -> bool:
    """Whether C says what these numbers are as whole numbers; of others each processor makes something else."""
    limits, whole = np.iinfo(dtype), np.trunc(data.astype(np.float64))
    return bool(((whole >= float(limits.min)) & (whole < float(limits.max) + (dtype.itemsize < 8))).all())


Rule = Callable[[Call], Result]
RULES: dict[str, Rule] = {}
"""Operator -> what is known of its outputs from what is known of its inputs. What has no rule is refused."""


def rule(*kinds: str) -> Callable[[Rule], Rule]:
    """Enters a rule for operators of these kinds."""

    def enter(own: Rule) -> Rule:
        for kind in kinds:
            assert kind not in RULES
            RULES[kind] = own
        return own

    return enter


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """As numpy does it, for sizes that no array could have."""
    rank = max(len(shape) for shape in shapes)
    full = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    sizes = []
    for column in zip(*full):
        others = {size for size in column if size != 1}
        if len(others) > 1:
            raise ValueError(f"shapes {shapes} do not go together")
        sizes.append(others.pop() if others else 1)
    return tuple(sizes)
