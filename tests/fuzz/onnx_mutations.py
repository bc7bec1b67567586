"""Changes an ONNX file at the level of its graph: shapes, operators, attributes, weights, and what the format allows."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from datafree.releases.onnx_session.values import RULES

__all__ = ["changed_onnx"]

SIZES = (0, 1, 2, 3, 5, 7, 64, 65, 255, 1000, 1 << 16, 1 << 20, 1 << 30, (1 << 31) - 1, 1 << 31, 1 << 40, (1 << 63) - 1)
NUMBERS = (*SIZES, *(-own for own in SIZES[1:]))
FLOATS = (0.0, -0.0, -1.0, 1e-45, 1e-30, 1e20, 3e38, -3e38, float("inf"), float("-inf"), float("nan"), 0.5)
KINDS = (
    *sorted(RULES), "If", "Loop", "Scan", "SequenceMap", "ConstantOfShape", "RandomNormal", "Multinomial", "NonZero",
    "Unique", "StringNormalizer", "Bernoulli", "Optional", "SequenceConstruct", "LSTM", "Einsum", "com.evil", "",
)  # fmt: skip
ATTRIBUTES = (
    "axis", "axes", "pads", "strides", "dilations", "group", "to", "mode", "ceil_mode", "auto_pad", "keepdims",
    "num_outputs", "storage_order", "count_include_pad", "transB", "alpha", "saturate", "block_size", "output_dtype",
    "perm", "blocksize",
)  # fmt: skip
Change = Callable[[Any, random.Random], str]


def changed_onnx(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """What was done, once to three times, and the bytes of the changed file."""
    model, done = onnx.ModelProto.FromString(content), []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        try:
            done.append(rng.choice(CHANGES)(model, rng))
        except (ValueError, TypeError, IndexError):  # protobuf takes no such value, or nothing is left to change
            done.append("nothing")
    return "; ".join(done), model.SerializeToString()


def _weight(model: Any, rng: random.Random) -> Any:
    return rng.choice(model.graph.initializer)


def _dims(model: Any, rng: random.Random) -> str:
    tensor = _weight(model, rng)
    if tensor.dims and rng.random() < 0.7:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    else:
        tensor.dims.append(rng.choice(NUMBERS))
    return f"dims of {tensor.name} {list(tensor.dims)}"


def _consistent(model: Any, rng: random.Random) -> str:
    """Another shape with as many numbers as it needs."""
    tensor = _weight(model, rng)
    shape = [min(max(0, rng.choice([*tensor.dims, 1, 2, 3, 5, 64, 1000])), 1 << 12) for _ in range(rng.randint(0, 5))]
    array = numpy_helper.to_array(tensor)
    while np.prod(shape, dtype=float) > 1 << 22:
        shape.pop()
    tensor.CopyFrom(numpy_helper.from_array(np.resize(array, shape).astype(array.dtype), tensor.name))
    return f"{tensor.name} of shape {shape}"


def _values(model: Any, rng: random.Random) -> str:
    """Extreme numbers in a weight: scales of 0 or NaN, zero points and shapes beyond any."""
    tensor = _weight(model, rng)
    array = np.array(numpy_helper.to_array(tensor))
    pool = FLOATS if array.dtype.kind == "f" else NUMBERS
    value = rng.choice(pool)
    with np.errstate(all="ignore"):
        flat = array.reshape(-1)
        where = slice(None) if rng.random() < 0.5 or not len(flat) else rng.randrange(len(flat))
        flat[where] = np.array(value).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(flat.reshape(array.shape), tensor.name))
    return f"{tensor.name} = {value}"


def _type(model: Any, rng: random.Random) -> str:
    tensor = _weight(model, rng)
    tensor.data_type = rng.choice([*range(24), 99, -1, 1 << 30])
    return f"type of {tensor.name} {tensor.data_type}"


def _raw(model: Any, rng: random.Random) -> str:
    tensor = _weight(model, rng)
    tensor.raw_data = rng.choice([b"", tensor.raw_data[:-1], tensor.raw_data * 2, bytes(1 << 20)])
    return f"{len(tensor.raw_data)} bytes of {tensor.name}"


def _elsewhere(model: Any, rng: random.Random) -> str:
    tensor = _weight(model, rng)
    if rng.random() < 0.5:
        tensor.ClearField("raw_data")
    if rng.random() < 0.8:
        tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(["config.json", "/etc/passwd", "../x", ""]))
    return f"{tensor.name} elsewhere"


def _kind(model: Any, rng: random.Random) -> str:
    node = rng.choice(model.graph.node)
    before, node.op_type = node.op_type, rng.choice(KINDS)
    return f"{before} is {node.op_type}"


def _domain(model: Any, rng: random.Random) -> str:
    node = rng.choice(model.graph.node)
    node.domain = rng.choice(["ai.onnx", "com.microsoft", "ai.onnx.ml", "x", "ai.onnx.preview.training"])
    return f"domain {node.domain} of {node.op_type}"


def _attribute(model: Any, rng: random.Random) -> str:
    """A value, its type, its number, or the attribute itself."""
    nodes = [own for own in model.graph.node if own.attribute]
    node = rng.choice(nodes)
    own = rng.choice(node.attribute)
    kind = rng.choice(["value", "value", "value", "gone", "twice", "type", "name", "long"])
    if kind == "gone":
        node.attribute.remove(own)
    elif kind == "twice":
        node.attribute.append(own)
    elif kind == "type":
        own.type = rng.randint(0, 14)
    elif kind == "name":
        own.name = rng.choice(["axis", "axes", "pads", "kernel_shape", "to", "mode", "group", "x" * 300])
    elif kind == "long":
        own.ints.extend([rng.choice(NUMBERS)] * rng.choice([1, 8, 5000]))
    elif own.ints:
        own.ints[rng.randrange(len(own.ints))] = rng.choice(NUMBERS)
    elif own.type == onnx.AttributeProto.FLOAT:
        own.f = rng.choice(FLOATS)
    elif own.type == onnx.AttributeProto.STRING:
        own.s = rng.choice(
            [b"", b"SAME_UPPER", b"VALID", b"linear", b"cubic", b"reflect", b"edge", b"\xff", b"x" * 5000]
        )
    else:
        own.i = rng.choice(NUMBERS)
    return f"attribute {kind} of {node.op_type}"


def _more(model: Any, rng: random.Random) -> str:
    """An attribute that the operator may or may not know."""
    node = rng.choice(model.graph.node)
    name = rng.choice(ATTRIBUTES)
    number, real = rng.choice(NUMBERS), rng.choice(FLOATS)
    value: Any = rng.choice([number, real, "SAME_LOWER", [number] * rng.randint(1, 6), [real] * 3])
    node.attribute.append(helper.make_attribute(name, value))
    return f"attribute {name} = {str(value)[:40]} of {node.op_type}"


def _names(model: Any) -> list[str]:
    held = [own.name for own in model.graph.initializer] + ["pixels", "", "nowhere", "logits"]
    return held + [name for node in model.graph.node for name in node.output]


def _wire(model: Any, rng: random.Random) -> str:
    node = rng.choice(model.graph.node)
    ends = node.input if rng.random() < 0.8 and node.input else node.output
    kind = rng.choice(["other", "other", "more", "less"])
    if kind == "other" and ends:
        ends[rng.randrange(len(ends))] = rng.choice(_names(model))
    elif kind == "less" and ends:
        del ends[-1]
    else:
        ends.append(rng.choice(_names(model)))
    return f"{kind} end of {node.op_type}"


def _order(model: Any, rng: random.Random) -> str:
    nodes = list(model.graph.node)
    at, kind = rng.randrange(len(nodes)), rng.choice(["gone", "twice", "moved", "many"])
    if kind in ("gone", "moved"):
        node = nodes.pop(at)
        if kind == "moved":
            nodes.insert(rng.randrange(len(nodes) + 1), node)
    else:
        nodes += [nodes[at]] * (1 if kind == "twice" else 25_000)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return f"operator {at} {kind}"


def _insert(model: Any, rng: random.Random) -> str:
    """An operator between two others, with weights of its own of extreme numbers."""
    graph = model.graph
    at = rng.randrange(len(graph.node))
    node = graph.node[at]
    place = rng.randrange(len(node.input))
    kind = rng.choice([*sorted(RULES), *GROWING, *GROWING])
    held = []
    for index in range(rng.randint(0, 4)):
        name = f"held{len(graph.initializer)}"
        count = rng.choice([0, 1, 1, 2, 4, 4, 8])
        pool = [rng.choice(NUMBERS) for _ in range(count)]
        if rng.random() < 0.6:  # small, so that it may fit
            pool = [rng.choice([0, 1, 1, 2, 3, 4, -1, 1000]) for _ in range(count)]
        dtype = np.int64 if index % 2 == 0 or rng.random() < 0.5 else np.float32
        shape = () if count == 1 and rng.random() < 0.5 else (count,)
        graph.initializer.append(numpy_helper.from_array(np.array(pool, dtype).reshape(shape), name))
        held.append(name)
    inputs = [node.input[place], *held]
    if rng.random() < 0.2:
        rng.shuffle(inputs)
    made = helper.make_node(kind, inputs, [f"made{len(graph.initializer)}"])
    node.input[place] = made.output[0]
    nodes = [*graph.node[:at], made, *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(nodes)
    return f"a {kind} of {len(held)} weights before {node.op_type}"


GROWING = (
    "Expand", "Tile", "Pad", "Resize", "Concat", "Gather", "Range", "MatMul", "Reshape", "Slice", "TopK", "Conv",
    "ConstantOfShape", "OneHot", "CumSum", "ScatterND", "GatherND", "Upsample", "Split", "Where", "ConvTranspose",
)  # fmt: skip


def _doubled(model: Any, rng: random.Random) -> str:
    """A result joined with itself again and again: 2^n numbers from n operators."""
    graph, times = model.graph, rng.choice([3, 10, 30, 70])
    at = rng.randrange(len(graph.node))
    node = graph.node[at]
    kind, last, made = rng.choice(["Concat", "Add", "Mul", "Max"]), node.input[0], []
    for index in range(times):
        own = helper.make_node(kind, [last, last], [f"double{index}"], **({"axis": 1} if kind == "Concat" else {}))
        made.append(own)
        last = own.output[0]
    node.input[0] = last
    nodes = [*graph.node[:at], *made, *graph.node[at:]]
    del graph.node[:]
    graph.node.extend(nodes)
    return f"{times} times {kind} of itself"


def _ends(model: Any, rng: random.Random) -> str:
    """The input's and output's shape, type and name."""
    value = rng.choice([*model.graph.input, *model.graph.output])
    own = value.type.tensor_type
    kind = rng.choice(["size", "size", "type", "name", "rank", "twice"])
    if kind == "size" and own.shape.dim:
        own.shape.dim[rng.randrange(len(own.shape.dim))].dim_value = rng.choice(NUMBERS)
    elif kind == "type":
        own.elem_type = rng.randint(0, 20)
    elif kind == "name":
        value.name = rng.choice(_names(model))
    elif kind == "rank":
        own.shape.dim.add().dim_value = rng.choice(NUMBERS)
    else:
        rng.choice([model.graph.input, model.graph.output]).append(value)
    return f"{kind} of {value.name}"


def _version(model: Any, rng: random.Random) -> str:
    value = rng.choice([*range(30), *NUMBERS])
    if rng.random() < 0.5:
        model.ir_version = value
    elif rng.random() < 0.5:
        model.opset_import[0].version = value
    else:
        model.opset_import.append(helper.make_opsetid(rng.choice(["", "com.microsoft", "x"]), abs(value) % (1 << 62)))
    return f"version {value}"


def _subgraph(model: Any, rng: random.Random) -> str:
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice(["Loop", "If", "Scan", node.op_type])
    node.attribute.append(helper.make_attribute("body", model.graph))
    return f"a graph within {node.op_type}"


def _further(model: Any, rng: random.Random) -> str:
    """What the format has beside a graph: functions, training, sparse weights, annotations, metadata."""
    kind = rng.choice(["function", "training", "sparse", "annotation", "metadata", "value", "doc", "string"])
    if kind == "function":
        model.functions.add(name="f", domain="x").node.append(model.graph.node[0])
    elif kind == "training":
        model.training_info.add().algorithm.CopyFrom(model.graph)
    elif kind == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(model.graph.initializer[0])
    elif kind == "annotation":
        model.graph.quantization_annotation.add(tensor_name="pixels")
    elif kind == "metadata":
        for _ in range(rng.choice([1, 300_000])):
            model.metadata_props.add(key="a", value="b")
    elif kind == "value":
        model.graph.value_info.append(model.graph.output[0])
    elif kind == "string":
        model.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"x"]))
    else:
        model.graph.doc_string = "d" * rng.choice([10, 5000, 1 << 22])
    return f"a {kind}"


CHANGES: tuple[Change, ...] = (
    _dims, _consistent, _consistent, _values, _values, _values, _type, _raw, _elsewhere, _kind, _kind, _domain, _attribute,
    _attribute, _attribute, _more, _more, _wire, _wire, _order, _insert, _insert, _insert, _insert, _doubled, _ends,
    _version, _subgraph, _further,
)  # fmt: skip
