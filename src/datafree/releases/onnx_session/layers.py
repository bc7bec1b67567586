"""Layers: convolutions, products, pools, resizing, recurrent ones, and rounding to integers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .elementwise import DEAR, normal
from .graph import check_type
from .values import INT64, Call, Result, broadcast, rule

FURTHEST = 1 << 16
"""Largest kernel, stride, dilation and padding."""


def bounded(values: list[int], minimum: int) -> list[int]:
    if any(not minimum <= value <= FURTHEST for value in values):
        raise ValueError(f"{values} beyond {FURTHEST}")
    return values


def window(call: Call, sizes: tuple[int, ...], kernel: list[int], *, pool: bool = False) -> tuple[int, ...]:
    """Output sizes of a kernel that moves over maps of `sizes`; for a pool rounded as in onnxruntime."""
    rank = len(sizes)
    strides = bounded([int(value) for value in call.get("strides", [1] * rank)], 1)
    dilations = bounded([int(value) for value in call.get("dilations", [1] * rank)], 1)
    pads = bounded([int(value) for value in call.get("pads", [0] * (2 * rank))], 0)
    auto, ceil = bytes(call.get("auto_pad", b"NOTSET")), call.flag("ceil_mode")
    if not len(strides) == len(dilations) == len(kernel) == rank or len(pads) != 2 * rank:
        raise ValueError("kernel, strides, dilations and pads")
    bounded(kernel, 1)
    result = []
    for axis in range(rank):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        before, after = (0, 0) if auto == b"VALID" else (pads[axis], pads[axis + rank])
        if auto in (b"SAME_UPPER", b"SAME_LOWER"):
            count = -(-sizes[axis] // strides[axis])
            if not pool:
                result.append(count)
                continue
            padding = (
                (count - 1) * strides[axis] + kernel[axis] - sizes[axis]
            )  # independent of the dilation; may be negative
            before = int(padding / 2) if auto == b"SAME_UPPER" else int((padding + 1) / 2)
            after = padding - before
        free = sizes[axis] + before + after - reach
        if free < 0 and not pool:
            raise ValueError("a kernel larger than its maps")
        count = (-(-free // strides[axis]) if ceil or free < 0 else free // strides[axis]) + 1  # rounded towards 0
        if ceil and (count - 1) * strides[axis] >= sizes[axis] + before:
            count -= 1
        if count < 0:
            raise ValueError("a kernel larger than its maps")
        result.append(count)
    return tuple(result)


@rule("Conv")
def conv(call: Call) -> Result:
    (n, c, *sizes), (out, c_group, *kernel) = call.take(0).shape, call.take(1).shape
    group = int(call.get("group", 1))
    if c_group * group != c or out % group or list(call.get("kernel_shape", kernel)) != kernel:
        raise ValueError("channels and kernel")
    output_sizes = window(call, tuple(sizes), kernel)
    taps = c_group * math.prod(kernel)
    columns = 4 * taps * group * math.prod(output_sizes)  # bytes of one image in onnxruntime's layout
    result = call.returns((n, out, *output_sizes), cost=n * out * math.prod(output_sizes) * taps)
    return Result(result.values, result.operations, columns)


@rule("ConvTranspose")
def conv_transpose(call: Call) -> Result:
    (n, c, *sizes), (c_in, out_group, *kernel) = call.take(0).shape, call.take(1).shape
    rank, group = len(sizes), int(call.get("group", 1))
    strides = bounded([int(value) for value in call.get("strides", [1] * rank)], 1)
    dilations = bounded([int(value) for value in call.get("dilations", [1] * rank)], 1)
    pads = bounded([int(value) for value in call.get("pads", [0] * (2 * rank))], 0)
    output_padding = bounded([int(value) for value in call.get("output_padding", [0] * rank)], 0)
    if c_in != c or group < 1 or c % group or list(call.get("kernel_shape", kernel)) != kernel:
        raise ValueError("channels and kernel")
    if call.get("output_shape") is not None or bytes(call.get("auto_pad", b"NOTSET")) not in (b"NOTSET", b"VALID"):
        raise ValueError("output_shape or auto_pad")
    if not len(strides) == len(dilations) == len(output_padding) == len(kernel) == rank or len(pads) != 2 * rank:
        raise ValueError("kernel, strides, dilations and pads")
    reach = [dilation * (size - 1) + 1 for dilation, size in zip(dilations, kernel)]
    padding = [pads[axis] + pads[axis + rank] for axis in range(rank)]
    output_sizes = [
        strides[axis] * (sizes[axis] - 1) + output_padding[axis] + reach[axis] - padding[axis] for axis in range(rank)
    ]
    taps = out_group * math.prod(kernel)
    result = call.returns((n, out_group * group, *output_sizes), cost=n * c * math.prod(sizes) * taps)
    return Result(result.values, result.operations, 4 * taps * group * math.prod(sizes))


@rule("MaxPool", "AveragePool", "LpPool")
def pool(call: Call) -> Result:
    n, c, *sizes = call.take(0).shape
    kernel = [int(value) for value in call.get("kernel_shape")]
    output_sizes = window(call, tuple(sizes), kernel, pool=True)
    result = call.returns((n, c, *output_sizes), cost=n * c * math.prod(output_sizes) * math.prod(kernel))
    if len(call.node.outputs) == 2 and call.node.kind == "MaxPool":  # the second output is the index of the maximum
        return Result([*result.values, replace(result.values[0], type=INT64)], result.operations)
    return result


@rule("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(call: Call) -> Result:
    n, c, *sizes = call.take(0).shape
    return call.returns((n, c, *(1 for _ in sizes)), cost=call.take(0).count)


@rule("Gemm")
def gemm(call: Call) -> Result:
    left, right = call.take(0).shape, call.take(1).shape
    (rows, inner), (inner_too, columns) = (
        (left[::-1] if call.flag("transA") else left),
        (right[::-1] if call.flag("transB") else right),
    )
    if inner != inner_too:
        raise ValueError("sizes")
    return call.returns((rows, columns), cost=rows * columns * (inner + 1))


@rule("MatMul")
def matmul(call: Call) -> Result:
    left_shape, right_shape = list(call.take(0).shape), list(call.take(1).shape)
    left = [1, *left_shape] if len(left_shape) == 1 else left_shape
    right = [*right_shape, 1] if len(right_shape) == 1 else right_shape
    if len(left) < 2 or len(right) < 2 or left[-1] != right[-2]:
        raise ValueError("sizes")
    batch = broadcast(tuple(left[:-2]), tuple(right[:-2]))
    rows, columns = left[-2:-1] if len(left_shape) > 1 else [], right[-1:] if len(right_shape) > 1 else []
    cost = math.prod((*batch, left[-2], right[-1])) * left[-1]
    return call.returns((*batch, *rows, *columns), cost=cost)


@rule("Einsum")
def einsum(call: Call) -> Result:
    equation = bytes(call.get("equation")).decode().replace(" ", "")
    operands, _, output = equation.partition("->")
    terms, sizes = operands.split(","), {}
    if "->" not in equation or "." in equation or len(terms) != len(call.inputs) or len(terms) > 4:
        raise ValueError("equation")
    for index, term in enumerate(terms):
        if len(term) != len(call.take(index).shape):
            raise ValueError("equation")
        for letter, size in zip(term, call.take(index).shape):
            if sizes.setdefault(letter, size) != size:
                raise ValueError("equation")
    loop_size = math.prod(sizes.values())
    result = call.returns(tuple(sizes[letter] for letter in output), cost=loop_size * len(terms))
    first_letters = {letter for term in terms[:2] for letter in term}  # the intermediate result of the first two terms
    intermediate = (
        loop_size
        if len(terms) > 2
        else math.prod(sizes[letter] for letter in first_letters & set(output))
        if first_letters
        else 0
    )
    return Result(
        result.values, result.operations, 4 * (intermediate + 2 * sum(call.take(i).count for i in range(len(terms))))
    )


@rule("QuantizeLinear")
def quantize(call: Call) -> Result:
    zero, stated = call.optional(2), int(call.get("output_dtype", 0))
    type = zero.type if zero is not None else check_type(stated or 2)
    return call.returns(call.take(0).shape, type=type, cost=2 * call.take(0).count)


@rule("DequantizeLinear")
def dequantize(call: Call) -> Result:
    return call.returns(call.take(0).shape, type=call.take(1).type, cost=2 * call.take(0).count)


@rule("Resize")
def resize(call: Call) -> Result:
    value = call.take(0)
    rank = len(value.shape)
    axes = normal([int(axis) for axis in call.get("axes", range(rank))], rank)
    sizes = list(value.shape)
    if call.optional(3) is not None:
        new_sizes = call.numbers(3)
        if call.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
            raise ValueError("keep_aspect_ratio_policy")
    else:
        scales = call.content(2).ravel()
        if len(scales) != len(axes) or not all(0 < scale < FURTHEST for scale in scales):
            raise ValueError("scales")
        new_sizes = [
            math.floor(np.float32(value.shape[axis]) * scale) for axis, scale in zip(axes, scales)
        ]  # in float32: 10 * 0.7 is 7
    if len(new_sizes) != len(axes):
        raise ValueError("sizes")
    for axis, size in zip(axes, new_sizes):
        sizes[axis] = size
    count = math.prod(sizes)
    antialias = 1 if not call.flag("antialias") else max(1, value.count // max(1, count)) * DEAR
    return call.returns(tuple(sizes), cost=4 * DEAR * count * antialias)


@rule("GridSample")
def grid_sample(call: Call) -> Result:
    shape, grid = call.take(0).shape, call.take(1).shape
    return call.returns((*shape[:2], *grid[1:-1]), cost=4 * DEAR * math.prod((*shape[:2], *grid[1:-1])))


@rule("LSTM", "GRU", "RNN")
def recurrent(call: Call) -> Result:
    (steps, n, inputs), hidden = call.take(0).shape, int(call.get("hidden_size"))
    (directions, gates, features), kind = call.take(1).shape, call.node.kind
    if features != inputs or gates != hidden * {"LSTM": 4, "GRU": 3, "RNN": 1}[kind] or call.flag("layout"):
        raise ValueError("sizes")
    if not (steps and n and inputs and hidden):
        raise ValueError("no numbers")  # crashes onnxruntime
    last = (directions, n, hidden)
    states = [(steps, directions, n, hidden), last, last][: max(2, len(call.node.outputs))]
    result = call.returns(*states, cost=steps * n * directions * gates * (inputs + hidden + DEAR))
    return Result(result.values, result.operations, 4 * steps * n * directions * gates)
