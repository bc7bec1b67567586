"""Reads ONNX files of other exporters: from any tool, of opset 7 and later, with a fixed or free number of images.

The bytes are parsed and every shape is followed as for datafree's own files, without running anything. Forms of operators of
earlier opsets are rewritten to those of opset 18, which `values.RULES` describes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from ..._core.errors import UserError
from .checking import MAX_BYTES, MAX_NODES, Program, bounded
from .cost import has_rule, result_of, start
from .fields import FOREIGN
from .graph import LARGEST, TYPES, Graph, Node, Tensor, name_of, nodes_of, tensor_of
from .values import Value
from .wire import parse

__all__ = ["External", "Foreign", "Trace", "external_names", "program", "read_foreign", "trace"]

OPSETS, IRS = (7, 26), (3, 14)
CHANNELS = (1, 3, 4)
"""Numbers of channels by which images with channels last are recognised."""
QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantize")
External = Callable[[str], memoryview]
"""Opens the file of external data of that name. Raises UserError."""
Trace = dict[str, Value]
"""What is known about every value for some number of images."""
MODERN = 18
"""The opset whose forms the rewritten operators have, unless the file's is later."""


@dataclass(frozen=True)
class Foreign:
    """The content of a file, with operators in their present forms."""

    graph: Graph
    """For any number of images."""
    original: Graph
    """For the number of images that the file states."""
    batch: int | None
    """Number of images that the file takes at a time; None for any."""
    classes: int
    opset: int
    """The opset that the file states."""
    external: tuple[str, ...]
    """Names of other files with weights."""


def read_foreign(content: bytes, external: External, shape: tuple[int, int, int] | None = None) -> Foreign:
    """The network in the bytes of an ONNX file, which takes images of `shape`; by default the shape that the file states.

    Raises UserError with only the reason.
    """
    model = _parsed(content)
    opset = _opset(model)
    graph = model.get("graph")
    if graph is None:
        raise UserError("it has no graph, expected a network; give an ONNX file")
    if len(graph.get("node", [])) > MAX_NODES:
        raise UserError(
            f"it has {len(graph['node']):,} operators, expected at most {MAX_NODES:,}; use a smaller network"
        )
    reader = _External(external)
    tensors: dict[str, Tensor] = {}
    for entry in graph.get("initializer", []):
        tensor = tensor_of(reader.filled(entry))
        if not tensor.name or tensor.name in tensors:
            raise UserError(f"it has two weights called {name_of(tensor.name)}, or one without a name; export it again")
        tensors[tensor.name] = tensor
    name, batch, shape = _input(graph, tensors, shape)
    nodes = nodes_of(graph, {name, *tensors}, _is_allowed)
    output = _output(graph, {out for node in nodes for out in node.outputs})
    rewriter = _Rewriter(opset, dict(tensors))
    nodes = tuple(rewriter.modern(node) for node in nodes)
    size = len(content) + reader.nbytes
    original = Graph(nodes, rewriter.tensors, name, shape, output, max(opset, MODERN), size)
    free = original if batch is None else _for_any_batch(original, batch)
    classes = _classes(original, batch or 1)
    if batch is not None:
        _check_any_batch(free, batch)
    for images in (1, 2):
        if _classes(free, images) != classes:
            raise UserError("it returns another number of classes for 2 images than for 1, expected the same")
    return Foreign(free, original, batch, classes, opset, tuple(reader.files))


def external_names(content: bytes) -> list[str]:
    """Names of the other files with weights of an ONNX file, without opening them. Raises UserError as `read_foreign`."""
    names: list[str] = []
    reader = _External(lambda name: names.append(name) or memoryview(b""))  # type: ignore[func-returns-value]
    for entry in (_parsed(content).get("graph") or {}).get("initializer", []):
        reader.filled(entry, check=False)
    return names


def trace(graph: Graph, images: int) -> Trace:
    """What is known about every value of the graph for this number of images."""
    values = start(graph, images)
    for node in graph.nodes:
        result = result_of(node, values, graph.opset)
        values |= {name: value for name, value in zip(node.outputs, result.values) if name}
    return values


def program(foreign: Foreign, path: Any) -> Program:
    """The file as `Process` runs it, with the number of images that it takes at a time."""
    images = foreign.batch or 1
    single = bounded(foreign.original, images)
    return Program(path, foreign.original, foreign.classes, images, single, {images: single})


def _parsed(content: bytes) -> dict[str, Any]:
    """The fields of the file. Raises UserError with only the reason."""
    try:
        return parse(content, FOREIGN)
    except UserError as error:
        text = str(error).replace("which no file written by datafree has", "which ONNX does not have")
        raise UserError(f"{text}; give an ONNX file, or get it again" if ";" not in text else text) from None


class _External:
    """Weights in other files, each opened once."""

    def __init__(self, opened: External):
        self.opened = opened
        self.files: dict[str, memoryview] = {}
        self.nbytes = 0

    def filled(self, entry: dict[str, Any], *, check: bool = True) -> dict[str, Any]:
        """A parsed TensorProto with its numbers. Raises UserError for a place outside of its file."""
        if not entry.get("external_data") and not entry.get("data_location"):
            return entry
        keys = {part.get("key", ""): bytes(part.get("value", b"")) for part in entry.get("external_data", [])}
        try:
            place = keys["location"].decode()
            offset, length = (int(keys[key]) if key in keys else None for key in ("offset", "length"))
        except (KeyError, ValueError):
            raise UserError(
                f"weight {name_of(entry.get('name', ''))} names no place of its data; export it again"
            ) from None
        if PurePosixPath(place).name != place or "\\" in place or not place.isprintable() or place in (".", ".."):
            raise UserError(
                f"it reads weights from {name_of(place)}, expected a file in its own folder; put all weights in one file"
            )
        if place not in self.files:
            self.files[place] = self.opened(place)
            self.nbytes += len(self.files[place])
            if self.nbytes > MAX_BYTES:
                raise UserError(
                    f"its weights have {self.nbytes:,} bytes, expected at most {MAX_BYTES:,}; use a smaller network"
                )
        data, begin = self.files[place], offset or 0
        end = len(data) if length is None else begin + length
        if check and not 0 <= begin <= end <= len(data):
            raise UserError(
                f"weight {name_of(entry.get('name', ''))} is at bytes {begin:,} to {end:,} of {name_of(place)}, which has "
                f"{len(data):,}; get the file again"
            )
        fields = {key: value for key, value in entry.items() if key not in ("external_data", "data_location")}
        return {**fields, "raw_data": data[begin:end]}


def _opset(model: dict[str, Any]) -> int:
    version = model.get("ir_version")
    if not isinstance(version, int) or not IRS[0] <= version <= IRS[1]:
        raise UserError(
            f"it is of ONNX IR version {version}, expected {IRS[0]} to {IRS[1]}; give an ONNX file, or export it again"
        )
    imports = [entry for entry in model.get("opset_import", []) if entry.get("domain", "") in ("", "ai.onnx")]
    versions = list(dict.fromkeys(entry.get("version") for entry in imports))
    if len(versions) != 1 or not isinstance(versions[0], int) or not OPSETS[0] <= versions[0] <= OPSETS[1]:
        got = ", ".join(map(str, versions)) or "none"
        raise UserError(f"it is of ONNX opset {got}, expected {OPSETS[0]} to {OPSETS[1]}; export it again")
    return versions[0]


def _is_allowed(kind: str) -> bool:
    if kind.startswith(QUANTIZED):
        raise UserError(
            f"it is a quantized network (operator {name_of(kind)}), whose layers cannot be read; give the original in "
            "float32"
        )
    if not has_rule(kind) and kind != "Dropout":
        raise UserError(
            f"it uses the operator {name_of(kind)}, which is not supported; give the network as Python code"
        )
    return True


def _input(
    graph: dict[str, Any], tensors: dict[str, Tensor], shape: tuple[int, int, int] | None
) -> tuple[str, int | None, tuple[int, int, int]]:
    """Name of the input, number of images at a time (None for any), and shape of an image."""
    inputs = [entry for entry in graph.get("input", []) if entry.get("name", "") not in tensors]
    if len(inputs) != 1:
        names = ", ".join(name_of(str(entry.get("name", ""))) for entry in inputs[:8]) or "none"
        raise UserError(f"it has {len(inputs)} inputs ({names}), expected 1, the pixels; export it with one input")
    name, tensor = str(inputs[0].get("name", "")), inputs[0].get("type", {}).get("tensor_type", {})
    if tensor.get("elem_type") != 1:
        got = TYPES.get(tensor.get("elem_type"), "none")
        raise UserError(
            f"its input {name_of(name)} is of type {got}, expected float32; export it in float32, without the conversion "
            "of pixels"
        )
    stated = [entry.get("dim_value") for entry in tensor.get("shape", {}).get("dim", [])]
    sizes = [size if isinstance(size, int) and size > 0 else None for size in stated]
    words = f"({', '.join('any' if size is None else str(size) for size in sizes)})"
    if len(sizes) != 4 or any(size is not None and size > LARGEST for size in sizes):
        raise UserError(f"its input {name_of(name)} has shape {words}, expected (images, channels, height, width)")
    if sizes[3] in CHANNELS and sizes[1] not in CHANNELS:
        raise UserError(
            f"its input {name_of(name)} has shape {words}, channels last, expected (images, channels, height, width); "
            "export it with channels first"
        )
    if shape is None:
        if None in sizes[1:]:
            raise UserError(
                f"its input {name_of(name)} has shape {words}, expected a shape of its images; give `shape` as channels, "
                "height and width"
            )
        shape = tuple(sizes[1:])  # type: ignore[assignment]
    assert shape is not None
    if any(size not in (None, expected) for size, expected in zip(sizes[1:], shape)):
        raise UserError(
            f"its input {name_of(name)} has shape {words}, and got a shape of {tuple(shape)}; leave the shape out"
        )
    return name, sizes[0], shape


def _output(graph: dict[str, Any], results: set[str]) -> str:
    outputs = [str(entry.get("name", "")) for entry in graph.get("output", [])]
    if len(outputs) != 1:
        names = ", ".join(map(name_of, outputs[:8])) or "none"
        raise UserError(
            f"it has {len(outputs)} outputs ({names}), expected 1, the logits; export it with the logits alone"
        )
    if outputs[0] not in results or not outputs[0]:
        raise UserError(f"its output {name_of(outputs[0])} is the output of no operator; export it again")
    return outputs[0]


class _Rewriter:
    """Rewrites operators of earlier opsets to the forms of opset 18."""

    def __init__(self, opset: int, tensors: dict[str, Tensor]):
        self.opset, self.tensors = opset, tensors
        self.constants: dict[str, Tensor] = {}

    def numbers(self, values: Any, type: int = 7) -> str:
        """The name of a new weight with these numbers."""
        array = np.array(values, np.int64 if type == 7 else np.float32)
        name = f"datafree:{len(self.tensors)}"
        self.tensors[name] = Tensor(name, type, array.shape, ("raw_data", [memoryview(array.tobytes())]))
        return name

    def modern(self, node: Node) -> Node:
        kind, attributes = node.kind, dict(node.attributes)
        if kind == "Constant" and isinstance(attributes.get("value"), Tensor):
            self.constants[node.outputs[0]] = attributes["value"]
        if kind == "Dropout":
            return self.dropout(node)
        if kind == "BatchNormalization":
            return self.batch_norm(node)
        if kind in ("Squeeze", "Unsqueeze", "ReduceSum") and "axes" in attributes:
            return self.moved(node, "axes")
        if kind == "Split" and "split" in attributes:
            return self.moved(node, "split")
        if kind == "TopK" and "k" in attributes:
            return self.moved(node, "k", [attributes["k"]])
        if kind == "Slice" and "starts" in attributes:
            names = [self.numbers(attributes.pop(key)) for key in ("starts", "ends", "axes") if key in attributes]
            return replace(node, inputs=(*node.inputs, *names), attributes=attributes)
        if kind == "Pad" and "pads" in attributes:
            names = [self.numbers(attributes.pop("pads")), self.numbers(attributes.pop("value", 0.0), type=1)]
            return replace(node, inputs=(*node.inputs, *names), attributes=attributes)
        if kind == "Clip" and self.opset < 11:
            low, high = attributes.pop("min", -3.4028234e38), attributes.pop("max", 3.4028234e38)
            names = [self.numbers(low, type=1), self.numbers(high, type=1)]
            return replace(node, inputs=(*node.inputs, *names), attributes=attributes)
        if kind == "Resize" and self.opset < 11:
            raise UserError(
                "it uses the operator 'Resize' of opset 10, which is not supported; export it with opset 13"
            )
        return node

    def moved(self, node: Node, attribute: str, numbers: Any = None) -> Node:
        """The operator with an attribute as an input."""
        attributes = dict(node.attributes)
        values = attributes.pop(attribute)
        return replace(
            node, inputs=(*node.inputs, self.numbers(values if numbers is None else numbers)), attributes=attributes
        )

    def dropout(self, node: Node) -> Node:
        if len(node.inputs) > 2 and node.inputs[2]:
            mode = self.tensors.get(node.inputs[2], self.constants.get(node.inputs[2]))
            values = None if mode is None else mode.values()
            if values is None or bool(values.any()):
                raise UserError(_in_training("a dropout", node))
        return Node("Identity", node.inputs[:1], node.outputs[:1], {})

    def batch_norm(self, node: Node) -> Node:
        attributes = dict(node.attributes)
        if attributes.pop("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
            raise UserError(_in_training("a batch norm", node))
        if not attributes.pop("spatial", 1):
            raise UserError(
                "it has a batch norm for every pixel (spatial 0), which is not supported; use another network"
            )
        attributes.pop("momentum", None)
        attributes.pop("consumed_inputs", None)
        return Node(node.kind, node.inputs, node.outputs[:1], attributes)


def _in_training(operator: str, node: Node) -> str:
    output = next(name for name in node.outputs if name)
    return (
        f"it has {operator} in training mode (that makes {name_of(output)}), expected eval mode; call eval() and export it "
        "with training=torch.onnx.TrainingMode.PRESERVE"
    )


def _for_any_batch(graph: Graph, batch: int) -> Graph:
    """The graph without the number of images in the targets of Reshape. Weights that are joined to images, such as a
    transformer's token of the class, are repeated for each.
    """
    values, rewriter = trace(graph, batch), _Rewriter(MODERN, dict(graph.tensors))
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.kind == "Reshape" and len(node.inputs) == 2:
            value, target = values[node.inputs[0]], values[node.inputs[1]].data
            sizes = [] if target is None else [int(size) for size in target.ravel()]
            if sizes and sizes[0] == batch and not value.fixed and math.prod(value.shape):
                keeps = value.shape[:1] == (batch,)
                if keeps or -1 not in sizes:
                    attributes = {key: entry for key, entry in node.attributes.items() if key != "allowzero"}
                    name = rewriter.numbers([0 if keeps else -1, *sizes[1:]])
                    node = replace(node, inputs=(node.inputs[0], name), attributes=attributes)
        if node.kind == "Concat" and batch == 1:
            node = _repeated(graph, node, values, rewriter, nodes)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), tensors=rewriter.tensors)


def _repeated(graph: Graph, node: Node, values: Trace, rewriter: _Rewriter, nodes: list[Node]) -> Node:
    """A Concat, after operators in `nodes` that repeat its weights for every image."""
    axis = int(node.attributes.get("axis", 0)) % max(1, len(values[node.inputs[0]].shape))
    is_fixed = [values[name].fixed for name in node.inputs]
    if axis == 0 or all(is_fixed) or not any(is_fixed):
        return node
    inputs = []
    for index, name in enumerate(node.inputs):
        shape = values[name].shape
        if is_fixed[index] and len(shape) > 1 and shape[0] == 1:
            prefix = f"datafree:repeated {len(nodes)}"
            target = (f"{prefix} images", rewriter.numbers(list(shape[1:])))
            nodes.append(Node("Shape", (graph.input,), target[:1], {"start": 0, "end": 1}))
            nodes.append(Node("Concat", target, (f"{prefix} sizes",), {"axis": 0}))
            nodes.append(Node("Expand", (name, f"{prefix} sizes"), (prefix,), {}))
            name = prefix
        inputs.append(name)
    return replace(node, inputs=tuple(inputs))


def _check_any_batch(graph: Graph, batch: int) -> None:
    """Raises UserError if the operators of a file for `batch` images do not take another number."""
    try:
        output = bounded(graph, batch + 1).output
    except UserError as error:
        reason = f" ({error})" if "does not fit" in str(error) else ""
    else:
        if output[:1] == (batch + 1,):
            return
        reason = ""
    raise UserError(
        f"it takes exactly {batch} image{'s' * (batch > 1)} at a time{reason}, expected any number; export it with a "
        "dynamic batch"
    )


def _classes(graph: Graph, images: int) -> int:
    """Number of logits. Raises UserError for other outputs, and for a file that needs too much."""
    needed = bounded(graph, images)
    output = needed.output
    words = " x ".join(map(str, output)) or "one number"
    if len(output) != 2 or output[0] != images:
        raise UserError(
            f"its output has shape {words} for {images} image{'s' * (images > 1)}, expected {images} x classes; export it "
            "with logits as its output"
        )
    if needed.output_type != 1:
        raise UserError(
            f"its output is of type {TYPES[needed.output_type]}, expected float32, the logits; export it again"
        )
    return output[1]
