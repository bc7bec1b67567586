"""Operators that move, cut, repeat or generate numbers: the shapes of their results."""

from __future__ import annotations

import math

import numpy as np

from .elementwise import DEAR, normal
from .graph import Tensor, check_type
from .values import FLOAT, INT64, Call, Result, Value, broadcast, rule

OPEN_ENDS = (1 << 31) - 1, (1 << 63) - 1
"""Ends of a Slice that mean up to the last number, or backwards to the first, which no other end can express."""


@rule("Constant")
def constant(call: Call) -> Result:
    attributes = call.node.attributes
    if len(attributes) != 1:
        raise ValueError("one value")
    (name, value), fixed = next(iter(attributes.items())), True
    if name == "value" and isinstance(value, Tensor):
        return Result([Value(value.type, value.shape, value.values(), fixed)], 0)
    kinds = {"value_float": FLOAT, "value_floats": FLOAT, "value_int": INT64, "value_ints": INT64}
    data = np.array(value, np.float32 if kinds[name] == FLOAT else np.int64)
    return Result([Value(kinds[name], data.shape, data, fixed)], 0)


@rule("Shape")
def shape(call: Call) -> Result:
    sizes = call.take(0).shape
    rank = len(sizes)
    ends = int(call.get("start", 0)), int(call.get("end", rank))
    start, end = (max(0, end_index + rank if end_index < 0 else end_index) for end_index in ends)
    data = np.array(sizes[start:end], np.int64)
    return Result([Value(INT64, data.shape, data, call.fixed)], 0)


@rule("Size")
def size(call: Call) -> Result:
    return Result([Value(INT64, (), np.array(call.take(0).count, np.int64), call.fixed)], 0)


@rule("Cast")
def cast(call: Call) -> Result:
    type = check_type(int(call.get("to")))
    return call.computed(call.returns(call.take(0).shape, type=type), np.array)


@rule("CastLike")
def cast_like(call: Call) -> Result:
    return call.returns(call.take(0).shape, type=call.take(1).type)


@rule("Reshape")
def reshape(call: Call) -> Result:
    value, target = call.take(0), call.numbers(1)
    zero = call.flag("allowzero")
    sizes = [value.shape[axis] if size == 0 and not zero else size for axis, size in enumerate(target)]
    if -1 in sizes:
        known_size = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = value.count // known_size if known_size else 0
    if min(sizes, default=0) < 0 or math.prod(sizes) != value.count:
        raise ValueError(f"{value.shape} as {target}")
    return call.computed(call.returns(tuple(sizes)), lambda x, _: x)


@rule("Flatten")
def flatten(call: Call) -> Result:
    value, axis = call.take(0), int(call.get("axis", 1))
    axis = axis + len(value.shape) if axis < 0 else axis
    return call.returns((math.prod(value.shape[:axis]), math.prod(value.shape[axis:])))


@rule("Squeeze")
def squeeze(call: Call) -> Result:
    sizes = call.take(0).shape
    unit_axes = [axis for axis, size in enumerate(sizes) if size == 1]
    axes = normal(call.numbers(1), len(sizes)) if call.optional(1) is not None else []
    if not set(axes) <= set(unit_axes):
        raise ValueError("axes that are not 1")
    axes = axes or unit_axes
    return call.computed(
        call.returns(tuple(size for axis, size in enumerate(sizes) if axis not in axes)), lambda x, *_: x
    )


@rule("Unsqueeze")
def unsqueeze(call: Call) -> Result:
    value, positions = call.take(0), call.numbers(1)
    rank, sizes = len(value.shape) + len(positions), iter(value.shape)
    axes = normal(positions, rank)
    full = tuple(1 if axis in axes else next(sizes) for axis in range(rank))
    return call.computed(call.returns(full), lambda x, _: x)


@rule("Transpose")
def transpose(call: Call) -> Result:
    value = call.take(0)
    order = [int(axis) for axis in call.get("perm", range(len(value.shape))[::-1])]
    if sorted(order) != list(range(len(value.shape))):
        raise ValueError("perm")
    return call.computed(call.returns(tuple(value.shape[axis] for axis in order)), lambda x: x.transpose(order))


@rule("Concat")
def concat(call: Call) -> Result:
    values = [call.take(index) for index in range(len(call.inputs))]
    axis = normal([int(call.get("axis"))], len(values[0].shape))[0]
    other_sizes = {(*value.shape[:axis], *value.shape[axis + 1 :]) for value in values}
    if len(other_sizes) != 1:
        raise ValueError("shapes")
    sizes = list(values[0].shape)
    sizes[axis] = sum(value.shape[axis] for value in values)
    return call.computed(call.returns(tuple(sizes)), lambda *parts: np.concatenate(parts, axis))


@rule("Split")
def split(call: Call) -> Result:
    value, count = call.take(0), len(call.node.outputs)
    axis = normal([int(call.get("axis", 0))], len(value.shape))[0]
    length = value.shape[axis]
    if call.optional(1) is not None:
        parts = call.numbers(1)
    else:
        if int(call.get("num_outputs", count)) != count:
            raise ValueError("num_outputs")
        part_length = -(-length // count)
        parts = [min(part_length, length - part_length * index) for index in range(count)]
    if len(parts) != count or min(parts) < 0 or sum(parts) != length:
        raise ValueError("parts")
    return call.returns(*((*value.shape[:axis], part, *value.shape[axis + 1 :]) for part in parts))


@rule("Slice")
def cut(call: Call) -> Result:
    value = call.take(0)
    starts, ends = call.numbers(1), call.numbers(2)
    axes = call.numbers(3) if call.optional(3) is not None else list(range(len(starts)))
    steps = call.numbers(4) if call.optional(4) is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise ValueError("starts and ends")
    ranges = [slice(None)] * len(value.shape)
    for axis, start, end, step in zip(normal(axes, len(value.shape)), starts, ends, steps):
        size = value.shape[axis]
        low, high = (0, size) if step > 0 else (-1, size - 1)
        if end in OPEN_ENDS:
            end = size if step > 0 else -1
        else:
            end = min(max(end + size if end < 0 else end, low), size)
        start = min(max(start + size if start < 0 else start, 0), high)
        ranges[axis] = slice(start, None if end < 0 else end, step)
    sizes = tuple(len(range(*part.indices(size))) for part, size in zip(ranges, value.shape))
    return call.computed(call.returns(sizes), lambda x, *_: x[tuple(ranges)])


@rule("Gather")
def gather(call: Call) -> Result:
    value, index = call.take(0), call.take(1)
    axis = normal([int(call.get("axis", 0))], len(value.shape))[0]
    result = call.returns((*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]))
    return call.computed(result, lambda x, indices: np.take(x, indices, axis))


@rule("GatherElements")
def gather_elements(call: Call) -> Result:
    return call.returns(call.take(1).shape)


@rule("GatherND")
def gather_nd(call: Call) -> Result:
    value, index, batch_dims = call.take(0), call.take(1), int(call.get("batch_dims", 0))
    return call.returns((*index.shape[:-1], *value.shape[batch_dims + index.shape[-1] :]))


@rule("ScatterElements", "ScatterND")
def scatter(call: Call) -> Result:
    return call.returns(call.take(0).shape, cost=call.take(0).count + 4 * call.take(2).count)


@rule("Expand")
def expand(call: Call) -> Result:
    shape = broadcast(call.take(0).shape, tuple(call.numbers(1)))
    return call.computed(call.returns(shape), lambda x, _: np.broadcast_to(x, shape))


@rule("Tile")
def tile(call: Call) -> Result:
    value, repeats = call.take(0), call.numbers(1)
    if len(repeats) != len(value.shape):
        raise ValueError("repeats")
    return call.computed(
        call.returns(tuple(a * b for a, b in zip(value.shape, repeats))), lambda x, _: np.tile(x, repeats)
    )


@rule("Pad")
def pad(call: Call) -> Result:
    value, pads = call.take(0), call.numbers(1)
    axes = normal(call.numbers(3), len(value.shape)) if call.optional(3) is not None else range(len(value.shape))
    if len(pads) != 2 * len(axes):
        raise ValueError("pads")
    sizes = list(value.shape)
    for position, axis in enumerate(axes):
        sizes[axis] += pads[position] + pads[position + len(axes)]
    return call.returns(tuple(sizes))


@rule("ConstantOfShape")
def filled(call: Call) -> Result:
    attribute = call.get("value")
    type = attribute.type if isinstance(attribute, Tensor) else FLOAT
    content = attribute.values() if isinstance(attribute, Tensor) else np.zeros(1, np.float32)
    result = call.returns(tuple(call.numbers(0)), type=type)
    return call.computed(result, lambda _: np.full(result.values[0].shape, content.ravel()[0]))  # type: ignore[union-attr]


@rule("Range")
def numbered(call: Call) -> Result:
    start, limit, step = (float(call.content(index)) for index in range(3))
    count = max(0, math.ceil((limit - start) / step))

    def numbers(start: np.ndarray, _: np.ndarray, step: np.ndarray) -> np.ndarray:
        return np.cumsum([start, *[step] * (count - 1)], dtype=start.dtype)[:count]  # rounded at every step

    return call.computed(call.returns((count,)), numbers)


@rule("OneHot")
def one_hot(call: Call) -> Result:
    index, depth = call.take(0), call.numbers(1)[0]
    axis = normal([int(call.get("axis", -1))], len(index.shape) + 1)[0]
    return call.returns((*index.shape[:axis], depth, *index.shape[axis:]), type=call.take(2).type)


@rule("DepthToSpace", "SpaceToDepth")
def blocks(call: Call) -> Result:
    (n, c, h, w), block = call.take(0).shape, int(call.get("blocksize"))
    if block < 1 or (c % (block * block) if call.node.kind == "DepthToSpace" else h % block or w % block):
        raise ValueError("blocksize")
    if call.node.kind == "DepthToSpace":
        return call.returns((n, c // (block * block), h * block, w * block))
    return call.returns((n, c * block * block, h // block, w // block))


@rule("TopK")
def topk(call: Call) -> Result:
    value, count = call.take(0), call.numbers(1)[0]
    axis = normal([int(call.get("axis", -1))], len(value.shape))[0]
    if not 0 <= count <= value.shape[axis]:
        raise ValueError("k")
    sizes = (*value.shape[:axis], count, *value.shape[axis + 1 :])
    values = [Value(type, sizes, None, call.fixed) for type in (value.type, INT64)]
    return Result(values, 64 * value.count)


@rule("DFT")
def fourier(call: Call) -> Result:
    value, sizes = call.take(0), list(call.take(0).shape)
    axis_number = (
        call.numbers(2)[0] if call.optional(2) is not None else int(call.get("axis", 1 if call.opset < 20 else -2))
    )
    axis = normal([axis_number], len(sizes))[0]
    inverse, onesided = call.flag("inverse"), call.flag("onesided")
    if axis == len(sizes) - 1 or sizes[-1] not in ((1 + inverse,) if onesided else (1, 2)):
        raise ValueError("real and imaginary parts")
    if call.optional(1) is not None:
        sizes[axis] = call.numbers(1)[0]
        if sizes[axis] < 1:
            raise ValueError("dft_length")
    elif onesided and inverse:  # half of the spectrum of an even number of values
        sizes[axis] = 2 * (sizes[axis] - 1)
    if onesided and not inverse:
        sizes[axis] = sizes[axis] // 2 + 1
    parts = 1 if onesided and inverse else 2
    return call.returns((*sizes[:-1], parts), cost=4 * DEAR * DEAR * (value.count + 2 * math.prod(sizes)))
