"""Operators that keep, broadcast or reduce shapes: arithmetic, activations, norms, comparisons, reductions."""

from __future__ import annotations

import numpy as np

from .values import BOOL, INT32, INT64, Call, Result, Value, broadcast, rule

SAME = (
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Celu", "Cos", "Cosh", "Elu", "Erf", "Exp", "Gelu",
    "HardSigmoid", "HardSwish", "Hardmax", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "Mish", "Not", "Round",
    "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
SIMPLE = {
    "Abs": np.abs, "Neg": np.negative, "Sqrt": np.sqrt, "Ceil": np.ceil, "Floor": np.floor, "Identity": np.array,
    "Relu": lambda x: np.maximum(x, 0), "Reciprocal": np.reciprocal,
}  # fmt: skip
COMPARED = {
    "Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal, "Less": np.less,
    "LessOrEqual": np.less_equal,
}  # fmt: skip
BINARY = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum, "And": np.logical_and,
    "Or": np.logical_or,
}  # fmt: skip
OTHER = ("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mean", "PRelu", "Sum", "Xor")
REDUCED = {
    "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMean": None,
    "ReduceL1": None, "ReduceL2": None, "ReduceLogSum": None, "ReduceLogSumExp": None, "ReduceSumSquare": None,
}  # fmt: skip
DEAR = 16
"""Operations per number for exp, erf and similar functions."""
LOW = 1 << 31
"""Beyond int32."""


@rule(*SAME, "CumSum", "Trilu")
def same_shape(call: Call) -> Result:
    return call.returns(call.take(0).shape, cost=DEAR * call.take(0).count)


@rule(*SIMPLE)
def simple(call: Call) -> Result:
    result = call.returns(call.take(0).shape)
    if call.node.kind == "Relu" and not _compares_correctly(call.take(0)):
        return result
    return call.computed(result, SIMPLE[call.node.kind])


@rule("IsNaN", "IsInf")
def tested(call: Call) -> Result:
    return call.returns(call.take(0).shape, type=BOOL)


@rule("Clip")
def clip(call: Call) -> Result:
    return call.returns(call.take(0).shape)


@rule("LRN")
def local_norm(call: Call) -> Result:
    size = int(call.get("size"))
    if not 0 < size <= 1 << 16 or size % 2 == 0:
        raise ValueError("size")
    return call.returns(call.take(0).shape, cost=call.take(0).count * (DEAR + size))


@rule("LayerNormalization")
def layer_norm(call: Call) -> Result:
    shape, axis = call.take(0).shape, int(call.get("axis", -1)) % len(call.take(0).shape)
    reduced_shape = (*shape[:axis], *(1 for _ in shape[axis:]))
    return call.returns(shape, reduced_shape, reduced_shape, cost=DEAR * call.take(0).count)


@rule("InstanceNormalization", "GroupNormalization")
def group_norm(call: Call) -> Result:
    if not call.take(0).count:
        raise ValueError("no numbers")  # crashes onnxruntime
    return call.returns(call.take(0).shape, cost=DEAR * call.take(0).count)


@rule("BatchNormalization")
def batch_norm(call: Call) -> Result:
    if call.flag("training_mode"):
        raise ValueError("training_mode")
    return call.returns(call.take(0).shape, cost=4 * call.take(0).count)


@rule(*BINARY, *OTHER)
def binary(call: Call) -> Result:
    shape = broadcast(*(call.take(index).shape for index in range(len(call.inputs))))
    result = call.returns(shape, cost=len(call.inputs) * int(np.prod(shape, dtype=object)))
    function = BINARY.get(call.node.kind)
    if function is None or len(call.inputs) != 2:
        return result
    if call.node.kind in ("Max", "Min") and not _compares_correctly(call.take(0), call.take(1)):
        return result
    return call.computed(result, function)


def _compares_correctly(*values: Value) -> bool:
    """Whether onnxruntime compares these correctly: version 1.31 compares only the lower halves of int64 on x86 with AVX."""
    return all(
        value.data is None
        or value.data.dtype.kind not in "iu"
        or bool(((value.data >= -LOW) & (value.data < LOW)).all())
        for value in values
    )


@rule(*COMPARED)
def compared(call: Call) -> Result:
    result = call.returns(broadcast(call.take(0).shape, call.take(1).shape), type=BOOL)
    return call.computed(result, COMPARED[call.node.kind])


@rule("Div", "Mod", "Pow")
def divided(call: Call) -> Result:
    shape = broadcast(call.take(0).shape, call.take(1).shape)
    result = call.returns(shape, cost=DEAR * int(np.prod(shape, dtype=object)))
    divisor = call.take(1)
    integer = call.take(0).type != 1 and call.take(0).type not in (10, 11, 16)
    if call.node.kind == "Pow":
        return result
    if integer and (divisor.data is None or not divisor.data.all()):
        raise ValueError("a whole number is divided by what may be 0")  # crashes onnxruntime
    if integer and not call.flag("fmod") and _may_overflow(call.take(0), divisor):
        raise ValueError("what may be the least number of its format is divided by -1")  # crashes it, too
    if call.node.kind == "Mod":
        return call.computed(result, np.fmod if call.flag("fmod") else np.mod)
    return call.computed(result, _truncated if integer else np.true_divide)


def _may_overflow(dividend: Value, divisor: Value) -> bool:
    """Whether a quotient may overflow: -2^31 / -1 traps on x86 processors. Smaller formats are divided as int32."""
    if dividend.type not in (INT32, INT64) or divisor.data is None or not (divisor.data == -1).any():
        return False
    lowest = -(1 << 31) if dividend.type == INT32 else -(1 << 63)
    return dividend.data is None or bool(((dividend.data == lowest) & (divisor.data == -1)).any())


def _truncated(dividend: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """Integer division rounded towards zero, as in C."""
    floored = dividend // divisor
    return floored + ((floored * divisor != dividend) & ((dividend < 0) != (divisor < 0)))


@rule("Where")
def where(call: Call) -> Result:
    shape = broadcast(*(call.take(index).shape for index in range(3)))
    return call.computed(call.returns(shape, type=call.take(1).type), np.where)


@rule(*REDUCED)
def reduced(call: Call) -> Result:
    value, kind = call.take(0), call.node.kind
    if call.optional(1) is not None:
        axes = call.numbers(1)
    else:
        axes = [int(axis) for axis in call.get("axes", [])]
    if not axes and call.flag("noop_with_empty_axes"):
        return call.returns(value.shape, cost=DEAR * value.count)
    if not value.count and min(axes, default=0) < 0:
        raise ValueError("axes from the end of no numbers")  # onnxruntime keeps such axes
    axes, keep = normal(axes or list(range(len(value.shape))), len(value.shape)), call.flag("keepdims", True)
    result = call.returns(_without(value.shape, axes, keep), cost=DEAR * value.count)
    function = REDUCED[kind]
    return (
        result
        if function is None or not _exact(value, kind)
        else call.computed(result, lambda x, *_: function(x, axis=tuple(axes), keepdims=keep))
    )


def _exact(value: Value, kind: str) -> bool:
    """Whether a reduction has the same result in any order and in float64, onnxruntime's format for sums and products."""
    if value.data is None:
        return False
    if kind in ("ReduceMax", "ReduceMin"):  # their result for NaN depends on its position
        return _compares_correctly(value) and not np.isnan(value.data).any()
    if value.data.dtype.kind == "f":
        return False
    sizes = np.abs(value.data.astype(np.float64))
    with np.errstate(over="ignore"):
        largest = sizes.sum() if kind == "ReduceSum" else np.maximum(sizes, 1).prod()
    return bool(largest < 1 << (31 if value.type == INT32 else 53))


@rule("ArgMax", "ArgMin")
def argmax(call: Call) -> Result:
    value = call.take(0)
    axes = normal([int(call.get("axis", 0))], len(value.shape))
    if not value.count:
        raise ValueError("no numbers")
    return call.returns(_without(value.shape, axes, call.flag("keepdims", True)), type=INT64, cost=2 * value.count)


def normal(axes: list[int], rank: int) -> list[int]:
    """The different axes, counted from 0."""
    if any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        raise ValueError(f"axes {axes} of {rank}")
    return [axis % rank for axis in axes]


def _without(shape: tuple[int, ...], axes: list[int], keep: bool) -> tuple[int, ...]:
    return tuple(1 if axis in axes else size for axis, size in enumerate(shape) if keep or axis not in axes)
