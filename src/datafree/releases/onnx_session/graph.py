"""The content of an ONNX file, parsed from its bytes. A file with anything that datafree does not write is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..._core.errors import UserError
from .fields import ELSEWHERE, MODEL, SUBGRAPH
from .wire import parse, varints

__all__ = [
    "CONTROL", "SMALL", "TYPES", "Graph", "Node", "Tensor", "name_of", "nodes_of", "numpy_type", "read", "size_of",
    "tensor_of",
]  # fmt: skip

SIZES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}
"""ONNX number format -> bytes per number, for the formats that datafree writes or that arithmetic needs."""
TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}  # fmt: skip
STORED = {"float_data": (1,), "int32_data": (2, 3, 4, 5, 6, 9, 10, 16), "int64_data": (7,), "double_data": (11,)}
STORED["uint64_data"] = (12, 13)
CONTROL = ("If", "Loop", "Scan", "SequenceMap")
SMALL = 512
"""Largest tensor whose values are read: shapes, axes, scales."""
LARGEST = 1 << 31
RANK = 8
OPSETS, IRS = (18, 21), (8, 13)
VALUES = {
    1: ("f", 0.0),
    2: ("i", 0),
    3: ("s", b""),
    4: ("t", None),
    6: ("floats", []),
    7: ("ints", []),
    8: ("strings", []),
}
"""Type of an attribute -> (field with its value, default if the field is missing)."""


@dataclass(frozen=True)
class Tensor:
    """A tensor stored in the file: weights, scales, shapes."""

    name: str
    type: int
    shape: tuple[int, ...]
    stored: tuple[str, list[memoryview]]
    """The field they are in, and its parts."""

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * SIZES[self.type]

    def values(self, limit: int = SMALL) -> np.ndarray | None:
        """The numbers of a tensor of up to `limit` numbers; None for a larger one or a format that numpy lacks."""
        dtype, (field, parts) = numpy_type(self.type), self.stored
        if dtype is None or math.prod(self.shape) > limit:
            return None
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        if field == "raw_data":
            return np.frombuffer(content, dtype).reshape(self.shape)
        if field in ("float_data", "double_data"):
            return np.frombuffer(content, dtype).reshape(self.shape)
        numbers = varints(content, "TensorProto")
        if self.type == 10:  # half precision is stored as its bits
            return numbers.astype(np.uint16).view(np.float16).reshape(self.shape)
        return numbers.astype(dtype).reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """One operator: its kind, the names of its inputs and outputs, its attributes by name."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Graph:
    """Operators in execution order, weights by name, and the only input and output."""

    nodes: tuple[Node, ...]
    tensors: dict[str, Tensor]
    input: str
    shape: tuple[int, ...]
    """Shape (C, H, W) of one image, as the file states it."""
    output: str
    opset: int
    nbytes: int
    """Size of the file in bytes."""

    @cached_property
    def contents(self) -> dict[str, np.ndarray | None]:
        """The numbers of each small weight, read once."""
        return {name: tensor.values() for name, tensor in self.tensors.items()}


def read(content: bytes, is_allowed: Callable[[str], bool]) -> Graph:
    """The graph in an ONNX file; `is_allowed` returns whether an operator is allowed. Raises UserError with only the
    reason.
    """
    model = parse(content, MODEL)
    opset = _versions(model)
    graph = model.get("graph")
    if graph is None:
        raise UserError("it has no graph")
    tensors: dict[str, Tensor] = {}
    for entry in graph.get("initializer", []):
        tensor = tensor_of(entry)
        if not tensor.name or tensor.name in tensors:
            raise UserError(f"it has two weights called {name_of(tensor.name)}, or one without a name")
        tensors[tensor.name] = tensor
    name, shape = _input(graph, tensors)
    nodes = nodes_of(graph, {name, *tensors}, is_allowed)
    outputs = graph.get("output", [])
    if len(outputs) != 1:
        raise UserError(f"it has {len(outputs)} outputs, expected 1, the logits")
    output = str(outputs[0].get("name", ""))
    if output not in {out for node in nodes for out in node.outputs} or not output:
        raise UserError(f"its output {name_of(output)} is the output of no operator")
    return Graph(nodes, tensors, name, shape, output, opset, len(content))


def name_of(name: str) -> str:
    """A name from the file for a message, printable and short."""
    return ascii(name[:60])


def size_of(type: int) -> int:
    return SIZES[type]


def numpy_type(type: int) -> np.dtype | None:
    """None of bfloat16, which numpy lacks."""
    return None if type == 16 else np.dtype(TYPES[type])


def check_type(type: int) -> int:
    if type not in SIZES:
        raise UserError(
            f"it has numbers of type {TYPES.get(type, type)}, expected integers or floating point of 8 to 64 bits"
        )
    return type


def _versions(model: dict[str, Any]) -> int:
    if model.get("metadata_props") or (model.get("graph") or {}).get("metadata_props"):
        raise UserError(
            "it has metadata, which onnxruntime may interpret as settings; no file written by datafree has any"
        )
    version = model.get("ir_version")
    if not isinstance(version, int) or not IRS[0] <= version <= IRS[1]:
        raise UserError(f"it is of ONNX IR version {version}, expected {IRS[0]} to {IRS[1]}; write it again")
    imports = [(entry.get("domain", ""), entry.get("version")) for entry in model.get("opset_import", [])]
    foreign = [name for name, _ in imports if name not in ("", "ai.onnx")]
    if foreign:
        raise UserError(f"it uses operators of domain {name_of(foreign[0])}, expected only ONNX's")
    if len(imports) != 1:
        raise UserError(f"it names {len(imports)} versions of ONNX's operators, expected 1; write it again")
    opset = imports[0][1]
    if not isinstance(opset, int) or not OPSETS[0] <= opset <= OPSETS[1]:
        raise UserError(f"it is of ONNX opset {opset}, expected {OPSETS[0]} to {OPSETS[1]}; write it again")
    return opset


def _input(graph: dict[str, Any], tensors: dict[str, Tensor]) -> tuple[str, tuple[int, ...]]:
    inputs = graph.get("input", [])
    if len(inputs) != 1:
        raise UserError(f"it has {len(inputs)} inputs, expected 1, the pixels")
    name, tensor = str(inputs[0].get("name", "")), inputs[0].get("type", {}).get("tensor_type", {})
    if not name or name in tensors:
        raise UserError(f"its input {name_of(name)} is also a weight, or has no name")
    if tensor.get("elem_type") != 1:
        raise UserError(f"its input is of type {TYPES.get(tensor.get('elem_type'), 'none')}, expected float32")
    sizes = [entry.get("dim_value") for entry in tensor.get("shape", {}).get("dim", [])]
    if sizes and sizes[0] is not None:
        raise UserError(f"it takes exactly {sizes[0]} images at a time, expected any number; write it again so")
    if len(sizes) != 4 or not all(isinstance(size, int) and 0 < size <= LARGEST for size in sizes[1:]):
        size_names = ", ".join("any" if size is None else str(size) for size in sizes)
        raise UserError(f"its input has shape ({size_names}), expected (images, channels, height, width)")
    return name, tuple(int(size) for size in sizes[1:])


def nodes_of(graph: dict[str, Any], names: set[str], is_allowed: Callable[[str], bool]) -> tuple[Node, ...]:
    """The operators, whose inputs are `names` and the outputs of operators before. Raises UserError with only the reason."""
    nodes = []
    for entry in graph.get("node", []):
        kind, domain = str(entry.get("op_type", "")), entry.get("domain", "")
        if domain not in ("", "ai.onnx"):
            raise UserError(f"it uses the operator {name_of(kind)} of domain {name_of(domain)}, expected ONNX's")
        if kind in CONTROL:
            raise UserError(SUBGRAPH)
        if entry.get("overload") or not is_allowed(kind):
            raise UserError(f"it uses the operator {name_of(kind)}, which is not among those that datafree writes")
        for name in entry.get("input", []):
            if name and name not in names:
                raise UserError(f"{kind} takes {name_of(name)}, which nothing before it makes")
        outputs = tuple(entry.get("output", []))
        for name in outputs:
            if name in names:
                raise UserError(f"{name_of(name)} is the output of two operators")
            names.update({name} - {""})
        if not any(outputs):
            raise UserError(f"an operator {kind} has no output")
        nodes.append(Node(kind, tuple(entry.get("input", [])), outputs, _attributes(kind, entry.get("attribute", []))))
    if not nodes:
        raise UserError("it has no operator")
    return tuple(nodes)


def _attributes(kind: str, stored: list[dict[str, Any]]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for entry in stored:
        name, field = entry.get("name", ""), VALUES.get(entry.get("type", 0))
        if not name or name in attributes:
            raise UserError(f"{kind} has two attributes {name_of(name)}, or one without a name")
        if field is None or entry.keys() - {"name", "type", "doc_string", field[0]}:
            raise UserError(f"attribute {name_of(name)} of {kind} has no value, or several of different types")
        value = entry.get(field[0], field[1])
        if field[0] == "t":
            value = tensor_of(value or {})
        elif field[0] in ("s", "strings"):
            value = bytes(value) if field[0] == "s" else [bytes(part) for part in value]
        attributes[name] = value
    return attributes


def tensor_of(entry: dict[str, Any]) -> Tensor:
    """The checked tensor of a parsed TensorProto. Raises UserError with only the reason."""
    if entry.get("data_location", 0) != 0:
        raise UserError(ELSEWHERE)
    name, type, shape = entry.get("name", ""), check_type(entry.get("data_type", 0)), tuple(entry.get("dims", []))
    if len(shape) > RANK or any(not 0 <= size <= LARGEST for size in shape) or math.prod(shape) > LARGEST:
        raise UserError(f"weight {name_of(name)} has shape {str(shape[:RANK])[:80]}, expected up to 2^31 numbers")
    fields = [field for field in ("raw_data", *STORED) if field in entry]
    count = math.prod(shape)
    if len(fields) > 1 or (not fields and count):
        raise UserError(f"weight {name_of(name)} holds {len(fields)} kinds of numbers, expected 1")
    field = fields[0] if fields else "raw_data"
    parts = entry.get(field, b"") if field != "raw_data" else [entry.get(field, memoryview(b""))]
    stored = sum(len(part) for part in parts)
    if field == "raw_data":
        numbers = stored / SIZES[type]
    elif type not in STORED[field]:
        raise UserError(f"weight {name_of(name)} of type {TYPES[type]} is stored as {field}, expected raw_data")
    elif field in ("float_data", "double_data"):
        numbers = stored / SIZES[type]
    else:  # the last byte of a number has its highest bit unset
        numbers = sum(int((np.frombuffer(part, np.uint8) < 128).sum()) for part in parts)
    if numbers != count:
        raise UserError(f"weight {name_of(name)} of shape {shape} holds {numbers:g} numbers, expected {count:,}")
    return Tensor(name, type, shape, (field, list(parts)))
