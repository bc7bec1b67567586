"""Random models of one ONNX operator each, with its edge cases, for every kind that is let through."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from datafree.releases.onnx_session.elementwise import BINARY, COMPARED, REDUCED, SAME, SIMPLE

__all__ = ["KINDS", "one_operator"]

Drawn = tuple[list[np.ndarray | None], dict[str, Any], int]
"""Inputs (None: left out), attributes, and the number of outputs."""
ENDS = (2**63 - 1, 2**63 - 2, -(2**63), 2**31 - 1, -(2**31), 2**40, -(2**40))
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint32, np.uint64)
REALS = (np.float16, np.float32, np.float64)
KINDS: dict[str, Callable[[random.Random], Drawn]] = {}


def one_operator(kind: str, rng: random.Random) -> ModelProto:
    """A model of this one operator; the pixels, which every program takes, are not used."""
    inputs, attributes, outputs = KINDS[kind](rng)
    names = ["" if array is None else f"i{index}" for index, array in enumerate(inputs)]
    held = [numpy_helper.from_array(array, name) for array, name in zip(inputs, names) if array is not None]
    results = [f"o{index}" for index in range(outputs)]
    node = helper.make_node(kind, names, results, **attributes)
    ends = [helper.make_tensor_value_info(name, 1, None) for name in results]
    pixels = helper.make_tensor_value_info("pixels", 1, ["n", 1, 2, 2])
    graph = helper.make_graph([node], "g", [pixels], ends, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", rng.choice([18, 19, 20, 21]))])
    model.ir_version = 10
    return model


def drawn(*kinds: str):
    """Enters a function that draws inputs for operators of these kinds."""

    def enter(draw: Callable[..., Drawn]):
        for kind in kinds:
            KINDS[kind] = (lambda rng, kind=kind: draw(rng, kind)) if draw.__code__.co_argcount == 2 else draw
        return draw

    return enter


def sizes(rng: random.Random, rank: int | None = None, *, least: int = 1) -> list[int]:
    return [rng.choice([least, 1, 2, 3, 4, 5, 6]) for _ in range(rng.randint(1, 4) if rank is None else rank)]


def array(rng: random.Random, shape: list[int], dtype: Any = np.float32) -> np.ndarray:
    """Small numbers, of either sign where the format has one, and now and then the format's largest and smallest."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return np.array([rng.random() < 0.5 for _ in range(math.prod(shape))], bool).reshape(shape)
    if dtype.kind == "f":
        pool = [rng.uniform(-4, 4), rng.uniform(-4, 4), float(rng.randint(-4, 4)), 0.5, -2.5, 1e4]
    else:
        limits = np.iinfo(dtype)
        pool = [*range(-9, 10), int(limits.min), int(limits.max), 1 << 31, 5 << 40, -(1 << 31) - 1, -(3 << 40)]
        pool = [own for own in pool if limits.min <= own <= limits.max]
    return np.array([rng.choice(pool) for _ in range(math.prod(shape))], dtype).reshape(shape)


def whole(*numbers: int, dtype: Any = np.int64) -> np.ndarray:
    return np.array(numbers, dtype)


def any_type(rng: random.Random) -> Any:
    return rng.choice([np.int32, np.int64, np.float32])


def together(rng: random.Random) -> tuple[list[int], list[int]]:
    """Two shapes that broadcast, mostly."""
    one = sizes(rng)
    other = [1 if rng.random() < 0.3 else size for size in one][rng.randint(0, len(one)) :]
    return (one, other) if rng.random() < 0.95 else (one, sizes(rng))


@drawn(*SAME, *SIMPLE, "IsNaN", "IsInf", "Clip")
def unary(rng, kind):
    dtype = bool if kind == "Not" else rng.choice(INTEGERS) if kind == "BitwiseNot" else np.float32
    if kind in ("Abs", "Neg", "Identity", "Relu", "Clip", "Sign"):
        dtype = any_type(rng)
    return [array(rng, sizes(rng), dtype)], {}, 1


@drawn(*BINARY, *COMPARED, "Mean", "Sum", "PRelu", "Pow", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor")
def binary(rng, kind):
    logical, bits = kind in ("And", "Or", "Xor"), kind.startswith("Bitwise")
    dtype = bool if logical else rng.choice(INTEGERS) if bits else any_type(rng)
    if kind in ("Mean", "Sum", "PRelu", "Pow"):
        dtype = np.float32
    elif kind in ("Max", "Min"):
        dtype = rng.choice([*INTEGERS, *REALS])
    one, other = together(rng)
    return [array(rng, one, dtype), array(rng, other, dtype)], {}, 1


@drawn("Div", "Mod")
def divided(rng, kind):
    dtype = rng.choice([*INTEGERS, np.float32])
    one, other = together(rng)
    divisor = array(rng, other, dtype)
    if rng.random() < 0.7:
        divisor[divisor == 0] = 3
    return [array(rng, one, dtype), divisor], {"fmod": 1} if kind == "Mod" and dtype == np.float32 else {}, 1


@drawn("BitShift")
def shifted(rng):
    one, other = together(rng)
    dtype = rng.choice([np.uint8, np.uint32, np.uint64])
    return [array(rng, one, dtype), np.ones(other, dtype)], {"direction": rng.choice(["LEFT", "RIGHT"])}, 1


@drawn("Where")
def chosen(rng):
    (one, other), dtype = together(rng), any_type(rng)
    return [array(rng, other, bool), array(rng, one, dtype), array(rng, other, dtype)], {}, 1


@drawn("Cast", "CastLike")
def cast(rng, kind):
    values = array(rng, sizes(rng), rng.choice([*INTEGERS, *REALS, bool]))
    values = np.clip(values, -100, 100) if values.dtype.kind == "f" else values  # else C leaves the result open
    dtype = np.dtype(rng.choice([*INTEGERS, *REALS, bool]))
    if values.dtype.kind == "f" and dtype.kind == "u":
        values = np.abs(values)
    if kind == "CastLike":
        return [values, np.zeros(1, dtype)], {}, 1
    return [values], {"to": helper.np_dtype_to_tensor_dtype(dtype)}, 1


@drawn("CumSum", "Trilu")
def along(rng, kind):
    shape = sizes(rng, rng.randint(2, 4))
    if kind == "Trilu":
        return [array(rng, shape), np.array(rng.randint(-3, 3))], {"upper": rng.randint(0, 1)}, 1
    return [array(rng, shape), np.array(rng.randrange(-len(shape), len(shape)))], {}, 1


@drawn(*REDUCED)
def reduced(rng, kind):
    shape = sizes(rng)
    axes = [axis - rng.choice([0, len(shape)]) for axis in rng.sample(range(len(shape)), rng.randint(0, len(shape)))]
    attributes = {"keepdims": rng.randint(0, 1), "noop_with_empty_axes": rng.randint(0, 1)}
    dtype = any_type(rng) if kind in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd") else np.float32
    return [array(rng, shape, dtype), *([whole(*axes)] if axes or rng.random() < 0.5 else [])], attributes, 1


@drawn("ArgMax", "ArgMin")
def argmax(rng):
    shape = sizes(rng)
    axis = rng.randrange(-len(shape), len(shape))
    return [array(rng, shape)], {"axis": axis, "keepdims": rng.randint(0, 1)}, 1


@drawn("LRN", "LayerNormalization", "InstanceNormalization", "GroupNormalization", "BatchNormalization")
def normalised(rng, kind):
    shape = [1, 2 * rng.randint(1, 3), *sizes(rng, 2)]
    each = np.ones(shape[1], np.float32)
    inputs, attributes = {
        "LRN": ([], {"size": rng.choice([1, 3, 5])}),
        "LayerNormalization": ([np.ones(shape[-1], np.float32)], {"axis": -1}),
        "InstanceNormalization": ([each, each], {}),
        "GroupNormalization": ([each] * 2, {"num_groups": 2}),
        "BatchNormalization": ([each] * 4, {}),
    }[kind]
    return [array(rng, shape), *inputs], attributes, rng.choice([1, 3]) if kind == "LayerNormalization" else 1


def windows(rng: random.Random) -> dict[str, Any]:
    attributes: dict[str, Any] = {"strides": [rng.randint(1, 4), rng.randint(1, 4)]}
    if rng.random() < 0.4:
        attributes["pads"] = [rng.randint(0, 2) for _ in range(4)]
    elif rng.random() < 0.7:
        attributes["auto_pad"] = rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    if rng.random() < 0.5:
        attributes["dilations"] = [rng.randint(1, 3), rng.randint(1, 3)]
    return attributes


@drawn("MaxPool", "AveragePool", "LpPool")
def pool(rng, kind):
    attributes = {**windows(rng), "kernel_shape": [rng.randint(1, 4), rng.randint(1, 4)]}
    attributes["ceil_mode"] = rng.randint(0, 1)
    outputs = rng.choice([1, 2]) if kind == "MaxPool" else 1
    return [array(rng, [1, 2, rng.randint(1, 9), rng.randint(1, 9)])], attributes, outputs


@drawn("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def whole_pool(rng):
    return [array(rng, sizes(rng, rng.randint(3, 4)))], {}, 1


@drawn("Conv", "ConvTranspose")
def convolution(rng, kind):
    group, inner, kernel = rng.choice([1, 2]), 2 * rng.randint(1, 2), [rng.randint(1, 4), rng.randint(1, 4)]
    attributes = {**windows(rng), "group": group}
    if kind == "ConvTranspose" and attributes.pop("auto_pad", None) and min(attributes["strides"]) > 1:
        attributes["output_padding"] = [1, 1]
    shape = [2 * group, inner // group] if kind == "Conv" else [inner, 3]
    return [array(rng, [1, inner, rng.randint(1, 9), rng.randint(1, 9)]), array(rng, [*shape, *kernel])], attributes, 1


@drawn("Gemm", "MatMul", "Einsum")
def product(rng, kind):
    a, b, c, d = sizes(rng, 4)
    if kind == "Einsum":
        equation = rng.choice(["ij,jk->ik", "ij,jk->", "ij,jk->kji", "ij,jk->j"])
        return [array(rng, [a, b]), array(rng, [b, c])], {"equation": equation}, 1
    if kind == "MatMul":
        one, other = rng.choice([([a, b], [b, c]), ([d, a, b], [b, c]), ([b], [b, c]), ([d, a, b], [b]), ([b], [b])])
        return [array(rng, one), array(rng, other)], {}, 1
    flips = {"transA": rng.randint(0, 1), "transB": rng.randint(0, 1)}
    one, other = [b, a] if flips["transA"] else [a, b], [c, b] if flips["transB"] else [b, c]
    return [array(rng, one), array(rng, other)], flips, 1


@drawn("QuantizeLinear", "DequantizeLinear")
def rounded(rng, kind):
    shape, dtype = sizes(rng), rng.choice([np.int8, np.uint8])
    values = array(rng, shape) if kind == "QuantizeLinear" else array(rng, shape, dtype)
    return [values, np.array(0.1, np.float32), np.array(3, dtype)], {}, 1


@drawn("Resize")
def resized(rng):
    shape, axes = [1, 2, rng.randint(1, 12), rng.randint(1, 12)], {}
    if rng.random() < 0.5:
        scales = [rng.choice([0.1, 0.3, 0.5, 0.7, 1.1, 1 / 3, 2.0, 3.3333]) for _ in range(2)]
        return [array(rng, shape), None, np.array([1, 1, *scales], np.float32)], {}, 1
    asked = [rng.randint(1, 12), rng.randint(1, 12)]
    if rng.random() < 0.5:
        axes = {"axes": [2, 3], "keep_aspect_ratio_policy": rng.choice(["stretch", "not_larger", "not_smaller"])}
    return [array(rng, shape), None, None, whole(*(asked if axes else [1, 2, *asked]))], axes, 1


@drawn("GridSample")
def sampled(rng):
    return [array(rng, [1, 2, *sizes(rng, 2)]), array(rng, [1, *sizes(rng, 2), 2])], {}, 1


@drawn("LSTM", "GRU", "RNN")
def recurrent(rng, kind):
    gates, ways, hidden, inner = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], rng.choice([1, 2]), rng.randint(1, 3), 2
    weights = array(rng, [ways, gates * hidden, inner]), array(rng, [ways, gates * hidden, hidden])
    attributes = {"hidden_size": hidden, "direction": "forward" if ways == 1 else "bidirectional"}
    return [array(rng, [rng.randint(1, 4), 1, inner]), *weights], attributes, rng.choice([1, 2])


@drawn("Constant")
def constant(rng):
    attributes = {"value_float": 0.5, "value_floats": [0.5, 1.0], "value_int": -3, "value_ints": [2, 3, 4]}
    attributes["value"] = numpy_helper.from_array(array(rng, sizes(rng), any_type(rng)))
    name = rng.choice(list(attributes))
    return [], {name: attributes[name]}, 1


@drawn("Shape", "Size")
def measured(rng, kind):
    ends = {name: rng.choice([rng.randint(-7, 7), *ENDS[:4]]) for name in ("start", "end") if rng.random() < 0.8}
    return [array(rng, sizes(rng))], ends if kind == "Shape" else {}, 1


@drawn("Reshape")
def reshaped(rng):
    shape = sizes(rng, least=0)
    asked = rng.choice([shape[::-1], [*shape, 1], [-1], [0, -1], [-1, *shape[1:]], [0] * len(shape), [2, -1], [-1, -1]])
    return [array(rng, shape, any_type(rng)), whole(*asked)], {"allowzero": rng.randint(0, 1)}, 1


@drawn("Flatten", "Transpose")
def turned(rng, kind):
    shape = sizes(rng, least=0)
    if kind == "Flatten":
        return [array(rng, shape)], {"axis": rng.randint(-len(shape), len(shape))}, 1
    order = {"perm": rng.sample(range(len(shape)), len(shape))} if rng.random() < 0.8 else {}
    return [array(rng, shape, any_type(rng))], order, 1


@drawn("Squeeze", "Unsqueeze")
def ones(rng, kind):
    shape = [rng.choice([1, 1, 2, 3]) for _ in range(rng.randint(1, 4))]
    rank = len(shape) + (1 if kind == "Unsqueeze" else 0)
    axes = [whole(rng.randrange(-rank, rank))] if kind == "Unsqueeze" or rng.random() < 0.6 else []
    return [array(rng, shape, any_type(rng)), *axes], {}, 1


@drawn("Concat")
def joined(rng):
    shape, dtype = sizes(rng, least=0), any_type(rng)
    axis = rng.randrange(-len(shape), len(shape))
    other = list(shape)
    other[axis] = rng.randint(0, 3)
    return [array(rng, shape, dtype), array(rng, other, dtype)], {"axis": axis}, 1


@drawn("Split")
def split(rng):
    shape = sizes(rng)
    axis, count = rng.randrange(-len(shape), len(shape)), rng.randint(1, 4)
    if rng.random() < 0.5:
        return [array(rng, shape)], {"axis": axis, "num_outputs": count}, count
    return [array(rng, shape), whole(1, shape[axis] - 1)], {"axis": axis}, 2


@drawn("Slice")
def cut(rng):
    shape = sizes(rng, least=0)
    axes = rng.sample(range(len(shape)), rng.randint(1, len(shape)))
    place = lambda *more: [rng.choice([rng.randint(-8, 8), *more]) for _ in axes]  # noqa: E731
    steps = [rng.choice([1, 1, 2, 3, -1, -1, -2, *ENDS[:4]]) for _ in axes]
    parts = [place(*ENDS), place(*ENDS), [axis - rng.choice([0, len(shape)]) for axis in axes], steps]
    if rng.random() < 0.3:
        limits = [np.clip(part, -(2**31), 2**31 - 1) for part in parts]
        return [array(rng, shape, np.int64), *(np.array(part, np.int32) for part in limits)], {}, 1
    return [array(rng, shape, any_type(rng)), *(whole(*part) for part in parts)], {}, 1


@drawn("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND")
def places(rng, kind):
    shape, dtype = sizes(rng, rng.randint(2, 3)), any_type(rng)
    values, axis = array(rng, shape, dtype), rng.randrange(-len(shape), len(shape))
    if kind == "Gather":
        index = np.full(rng.choice([(), (2,), (2, 3), (0,)]), rng.randrange(-shape[axis], shape[axis]))
        return [values, index], {"axis": axis}, 1
    if kind in ("GatherElements", "ScatterElements"):
        index = np.zeros([1] * len(shape), np.int64)
        more = [np.ones([1] * len(shape), dtype)] if kind == "ScatterElements" else []
        return [values, index, *more], {"axis": axis}, 1
    index = np.zeros([2, rng.randint(1, len(shape))], np.int64)
    more = [np.zeros([2, *shape[index.shape[1] :]], dtype)] if kind == "ScatterND" else []
    return [values, index, *more], {}, 1


@drawn("Expand", "Tile")
def repeated(rng, kind):
    one, other = together(rng)
    if kind == "Expand":
        return [array(rng, other, any_type(rng)), whole(*one)], {}, 1
    return [array(rng, one, any_type(rng)), whole(*(rng.randint(0, 3) for _ in one))], {}, 1


@drawn("Pad")
def padded(rng):
    shape = sizes(rng)
    axes = rng.sample(range(len(shape)), rng.randint(1, len(shape)))
    pads = whole(*(rng.randint(-2, 3) for _ in range(2 * len(axes))))
    mode = {"mode": rng.choice(["constant", "edge", "reflect"])}
    full = len(axes) == len(shape) and rng.random() < 0.5
    return [array(rng, shape), pads, *([] if full else [None, whole(*axes)])], mode, 1


@drawn("ConstantOfShape")
def filled(rng):
    value = {"value": numpy_helper.from_array(array(rng, [1], any_type(rng)))} if rng.random() < 0.7 else {}
    return [whole(*sizes(rng, least=0))], value, 1


@drawn("Range")
def numbered(rng):
    dtype = rng.choice([np.int16, np.int32, np.int64, np.float32, np.float64])
    start, steps, step = rng.randint(-9, 9), rng.randint(-3, 30), rng.choice([1, 2, 3, 5, -1, -2])
    if np.dtype(dtype).kind == "f":
        start, step = start * rng.choice([0.1, 0.3, 1.0]), step * rng.choice([0.1, 0.3, 0.7, 1.0])
    elif dtype == np.int64 and rng.random() < 0.3:
        start = rng.choice([2**62, -(2**62), 2**53 + 1, 2**63 - 200])
    limit = start + steps * step + (rng.randint(0, abs(step) - 1) if isinstance(step, int) else 0)
    return [np.array(own, dtype) for own in (start, limit, step)], {}, 1


@drawn("OneHot", "TopK")
def ranked(rng, kind):
    shape = sizes(rng)
    axis = rng.randrange(-len(shape), len(shape))
    if kind == "OneHot":
        values = array(rng, [2], any_type(rng))
        return [np.zeros(shape, np.int64), np.array(rng.randint(1, 5)), values], {"axis": axis}, 1
    return [array(rng, shape), whole(rng.randint(0, shape[axis]))], {"axis": axis}, 2


@drawn("DepthToSpace", "SpaceToDepth")
def blocks(rng):
    return [array(rng, [1, rng.choice([4, 8, 9, 3]), *sizes(rng, 2)])], {"blocksize": rng.randint(1, 3)}, 1


@drawn("DFT")
def fourier(rng):
    """Of opset 18 and 20, of which one is refused by the other's rules."""
    inverse, onesided = rng.randint(0, 1), rng.randint(0, 1)
    shape = [1, *sizes(rng, 2), rng.choice([1, 2]) if not onesided else 1 + inverse]
    length = np.array(rng.randint(1, 9)) if rng.random() < 0.5 else None
    attributes = {"inverse": inverse, "onesided": onesided}
    if rng.random() < 0.5:
        return [array(rng, shape), *([] if length is None else [length])], attributes, 1
    return [array(rng, shape), length, np.array(rng.choice([1, 2, -2, -3]))], attributes, 1
