"""Writes a checked ONNX graph again in the form that onnx2torch converts: opset 17, with constants worked out and names that
are safe in generated code.

Nothing of the file is copied unread: every operator, number and name is made anew from the parsed graph.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from .._core.errors import UserError
from .onnx_layers import Expand, Pad, Reshape, Scatter, Select, Slice, Split
from .onnx_session.foreign import Foreign, trace
from .onnx_session.graph import LARGEST, Node, Tensor, name_of, numpy_type

__all__ = ["Lowered", "lower"]

OPSET, IR = 17, 8
LONGEST = 60
PADS = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}
IGNORED = {
    "Cast": ("saturate", "round_mode"),
    "LayerNormalization": ("stash_type",),
    "Resize": ("antialias", "keep_aspect_ratio_policy"),
}
"""Attributes that opset 17 lacks. Their effect shows when the logits are compared with onnxruntime's."""
TAKEN = frozenset(dir(nn.Module())) | {"code", "graph", "initializers", "meta", "print_readable", "recompile"}
"""Names that a part of a module cannot have."""


@dataclass
class Lowered:
    """The rewritten network."""

    model: Any
    """An `onnx.ModelProto`."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Operator by the name of its node."""
    layers: dict[str, nn.Module] = field(default_factory=dict)
    """Modules to use instead of onnx2torch's, by the name of the node: their arguments are known."""


def lower(foreign: Foreign) -> Lowered:
    """The network as onnx2torch takes it. Raises UserError with only the reason for an operator that has no such form."""
    return _Lowering(foreign).run()


class _Lowering:
    def __init__(self, foreign: Foreign):
        self.foreign, self.graph = foreign, foreign.graph
        self.two, self.three = trace(self.graph, 2), trace(self.graph, 3)
        self.arrays: dict[str, np.ndarray] = {}
        """Weights and results that are the same for all images, by name."""
        self.alias: dict[str, str] = {}
        self.names: dict[str, str] = {}
        """Name in the file -> name in the new file."""
        self.taken: set[str] = set()
        self.stored: dict[str, Any] = {}
        self.nodes: list[Any] = []
        self.lowered = Lowered(None)

    def run(self) -> Lowered:
        from onnx import TensorProto, helper

        for name, tensor in self.graph.tensors.items():
            self.arrays[name] = _array(tensor)
        for node in self.graph.nodes:
            self.node(node)
        shape = self.graph.shape
        pixels = helper.make_tensor_value_info(self.value(self.graph.input), TensorProto.FLOAT, ["images", *shape])
        logits = helper.make_tensor_value_info(
            self.value(self.graph.output), TensorProto.FLOAT, ["images", self.foreign.classes]
        )
        sizes_of_values = [
            helper.make_tensor_value_info(self.names[name], value.type, self.sizes(name, "images"))
            for name, value in self.two.items()
            if name in self.names and name not in (self.graph.input, self.graph.output) and name not in self.stored
        ]
        graph = helper.make_graph(
            self.nodes, "network", [pixels], [logits], list(self.stored.values()), value_info=sizes_of_values
        )
        opset = helper.make_opsetid("", OPSET)
        self.lowered.model = helper.make_model(graph, opset_imports=[opset], ir_version=IR)
        return self.lowered

    def sizes(self, name: str, free: Any) -> list[Any]:
        """Sizes of a value; `free` where one depends on the number of images."""
        two, three = self.two[name].shape, self.three[name].shape
        return [size if size == other else free for size, other in zip(two, three)]

    def fixed_sizes(self, name: str) -> list[int] | None:
        """Sizes of a value with -1 for the one that depends on the number of images; None if several do."""
        sizes = self.sizes(name, -1)
        return sizes if sizes.count(-1) <= 1 and (-1 not in sizes or 0 not in sizes) else None

    def constant(self, name: str) -> np.ndarray | None:
        """The content of a value if it is the same for all images."""
        if name in self.arrays:
            return self.arrays[name]
        two, three = self.two[name], self.three[name]
        if (
            two.data is None
            or three.data is None
            or two.shape != three.shape
            or not np.array_equal(two.data, three.data)
        ):
            return None
        return two.data

    def numbers(self, name: str) -> list[int] | None:
        content = self.constant(self.alias.get(name, name)) if name else None
        return None if content is None else [int(number) for number in np.atleast_1d(content).ravel()]

    def value(self, name: str) -> str:
        """The new name of a value. A dot keeps it apart from the names of nodes."""
        name = self.alias.get(name, name)
        if name not in self.names:
            self.names[name] = f"value.{len(self.names)}"
            content = self.constant(name)
            if content is not None:
                from onnx import numpy_helper

                self.stored[name] = numpy_helper.from_array(np.ascontiguousarray(content), self.names[name])
        return self.names[name]

    def stored_array(self, content: np.ndarray) -> str:
        """The name, as of the file's own values, of a new constant."""
        name = f"datafree:array {len(self.arrays)}"
        self.arrays[name] = content
        return name

    def node(self, node: Node) -> None:
        outputs = [name for name in node.outputs if name]
        kind, inputs = node.kind, [self.alias.get(name, name) for name in node.inputs]
        if self.graph.output not in outputs:
            if all(self.constant(name) is not None for name in outputs):
                return
            if kind == "Identity":
                self.alias[outputs[0]] = inputs[0]
                return
            if (folded := self.folded(node, inputs)) is not None:
                self.arrays[outputs[0]] = folded
                return
        method = getattr(self, f"_{kind.lower()}", None)
        if kind in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            self._reshape(node, inputs)
        elif kind.startswith("Reduce"):
            self._reduce(node, inputs)
        elif kind in ("Softmax", "LogSoftmax"):
            self._softmax(node, inputs)
        elif method is not None:
            method(node, inputs)
        else:
            ignored = IGNORED.get(kind, ())
            self.emit(node, inputs, {key: entry for key, entry in node.attributes.items() if key not in ignored})

    def folded(self, node: Node, inputs: list[str]) -> np.ndarray | None:
        """The result of an operator that only moves the numbers of weights."""
        if node.kind == "Constant" and isinstance(node.attributes.get("value"), Tensor):
            return _array(node.attributes["value"])
        content = self.arrays.get(inputs[0]) if inputs else None
        if content is None:
            return None
        if node.kind == "Transpose":
            return content.transpose([int(axis) for axis in node.attributes.get("perm", range(content.ndim)[::-1])])
        if node.kind in ("Reshape", "Squeeze", "Unsqueeze", "Flatten"):
            return content.reshape(self.two[node.outputs[0]].shape)
        dtype = numpy_type(self.two[node.outputs[0]].type)
        return content.astype(dtype) if node.kind == "Cast" and dtype is not None else None

    def emit(
        self,
        node: Node,
        inputs: list[str],
        attributes: dict[str, Any],
        *,
        kind: str | None = None,
        outputs: list[str] | None = None,
        layer: nn.Module | None = None,
    ) -> None:
        """Writes an operator with the name of `node`; `layer` computes it in torch."""
        from onnx import helper, numpy_helper

        names = [self.value(name) if name else "" for name in inputs]
        while names and not names[-1]:
            names.pop()
        output_names = [self.value(name) if name else "" for name in (outputs or node.outputs)]
        while output_names and not output_names[-1]:
            output_names.pop()
        kind = kind or node.kind
        name = self.name(node, kind)
        values = {
            key: numpy_helper.from_array(_array(entry)) if isinstance(entry, Tensor) else entry
            for key, entry in attributes.items()
            if not (isinstance(entry, list) and not entry)
        }
        written = helper.make_node(kind, names, output_names, name=name)
        written.attribute.extend(helper.make_attribute(key, entry) for key, entry in values.items())
        self.nodes.append(written)
        self.lowered.kinds[name] = kind
        if layer is not None:
            self.lowered.layers[name] = layer

    def name(self, node: Node, kind: str) -> str:
        """A name of letters, digits and _ alone: it becomes part of Python code."""
        output = next(name for name in node.outputs if name)
        words = re.sub(r"[^A-Za-z0-9]+", "_", output).strip("_")[:LONGEST].removesuffix("_output_0")
        words = words if words and not words[0].isdigit() else f"{kind}_{words}".strip("_")
        words = f"{words}_{kind}" if words in TAKEN or words.startswith(("onnx_", "input_", "value")) else words
        name, count = words, 1
        while name in self.taken:
            count += 1
            name = f"{words}_{count}"
        self.taken.add(name)
        return name

    def _reshape(self, node: Node, inputs: list[str]) -> None:
        sizes = self.fixed_sizes(node.outputs[0])
        if node.kind == "Flatten" and int(node.attributes.get("axis", 1)) == 1:
            self.emit(node, inputs, {"axis": 1})
        elif sizes is None:
            raise UserError(
                f"it has a {node.kind} of which several sizes depend on the number of images; export it again"
            )
        else:
            target = self.stored_array(np.array(sizes, np.int64))
            self.emit(node, [inputs[0], target], {}, kind="Reshape", layer=Reshape(sizes))

    def _expand(self, node: Node, inputs: list[str]) -> None:
        sizes = self.fixed_sizes(node.outputs[0])
        for images, values in ((2, self.two), (3, self.three)):
            if sizes is not None and -1 in sizes and values[node.outputs[0]].shape[sizes.index(-1)] != images:
                sizes = None
        self.emit(node, inputs, {}, layer=None if sizes is None else Expand(sizes))

    def _slice(self, node: Node, inputs: list[str]) -> None:
        sizes = self.sizes(inputs[0], None)
        starts, ends, axes, steps = (self.numbers(inputs[i]) if len(inputs) > i else None for i in (1, 2, 3, 4))
        if starts is None or ends is None:
            raise UserError("it has a Slice whose range depends on the number of images; export it again")
        axes = list(range(len(starts))) if axes is None else [axis % len(sizes) for axis in axes]
        steps = [1] * len(starts) if steps is None else steps
        ranges: list[tuple[int, int, int, int]] = []
        flipped = []
        for axis, start, end, step in zip(axes, starts, ends, steps):
            size = sizes[axis]
            if size is None:
                if step == 1 and start == 0 and end >= LARGEST - 1:
                    continue
                raise UserError("it has a Slice of the images in a batch; export it with a dynamic batch")
            low, high, stride = slice(start, end, step).indices(size)
            if stride < 0:  # the numbers from low down to high, from the other end
                flipped.append(axis)
                low, high, stride = size - 1 - low, size - 1 - high, -stride
            ranges.append((axis, low, high, stride))
        self.emit(node, inputs, {}, layer=Slice(ranges, flipped))

    def _split(self, node: Node, inputs: list[str]) -> None:
        axis = int(node.attributes.get("axis", 0)) % len(self.two[inputs[0]].shape)
        if self.sizes(inputs[0], None)[axis] is None:
            raise UserError("it has a Split of the images in a batch; export it with a dynamic batch")
        parts = [self.two[name].shape[axis] for name in node.outputs if name]
        if len(parts) != len(node.outputs):
            raise UserError("it has a Split with an output that has no name; export it again")
        sizes = self.stored_array(np.array(parts, np.int64))
        self.emit(node, [inputs[0], sizes], {"axis": axis}, layer=Split(parts, axis))

    def _pad(self, node: Node, inputs: list[str]) -> None:
        rank, pads = len(self.two[inputs[0]].shape), self.numbers(inputs[1])
        mode = PADS.get(bytes(node.attributes.get("mode", b"constant")))
        value = 0.0
        if len(inputs) > 2 and inputs[2]:
            content = self.constant(inputs[2])
            value = math.nan if content is None else float(np.ravel(content)[0])
        axes = self.numbers(inputs[3]) if len(inputs) > 3 else None
        if pads is None or mode is None or math.isnan(value):
            raise UserError(
                "it has a Pad whose mode, sizes or value are not supported; give the network as Python code"
            )
        places = list(range(rank)) if axes is None else [axis % rank for axis in axes]
        before, after = [0] * rank, [0] * rank
        for position, axis in enumerate(places):
            before[axis], after[axis] = pads[position], pads[position + len(places)]
        sizes = [size for pair in zip(before[::-1], after[::-1]) for size in pair]
        sizes = sizes[: 2 * (rank - 2)] if mode != "constant" else sizes
        full = self.stored_array(np.array([*before, *after], np.int64))
        self.emit(
            node, [inputs[0], full], {"mode": node.attributes.get("mode", b"constant")}, layer=Pad(sizes, mode, value)
        )

    def _gather(self, node: Node, inputs: list[str]) -> None:
        shape, index = self.two[inputs[0]].shape, self.constant(inputs[1])
        axis = int(node.attributes.get("axis", 0)) % len(shape)
        layer = None
        if index is not None and index.ndim == 0 and -shape[axis] <= int(index) < shape[axis]:
            layer = Select(int(index), axis)
        self.emit(node, inputs, {"axis": axis}, layer=layer)

    def _reduce(self, node: Node, inputs: list[str]) -> None:
        attributes = {key: entry for key, entry in node.attributes.items() if key != "noop_with_empty_axes"}
        axes = self.numbers(inputs[1]) if len(inputs) > 1 else [int(axis) for axis in node.attributes.get("axes", [])]
        if not axes and node.attributes.get("noop_with_empty_axes"):
            self.emit(node, inputs[:1], {}, kind="Identity")
            return
        if axes is None:
            raise UserError(f"it has a {node.kind} whose axes depend on the number of images; export it again")
        rank = len(self.two[inputs[0]].shape)
        axes = sorted(axis % rank for axis in axes) or list(range(rank))
        if node.kind == "ReduceSum":
            self.emit(node, [inputs[0], self.stored_array(np.array(axes, np.int64))], attributes)
        else:
            self.emit(node, inputs[:1], {**attributes, "axes": axes})

    def _softmax(self, node: Node, inputs: list[str]) -> None:
        """Before opset 13 the axis and all after it were one."""
        shape, is_old = self.two[inputs[0]].shape, self.foreign.opset < 13
        axis = int(node.attributes.get("axis", 1 if is_old else -1)) % len(shape)
        if is_old and math.prod(shape[axis + 1 :]) != 1:
            raise UserError(
                f"it has a {node.kind} over several axes, as before opset 13, which is not supported; export it with "
                "opset 13"
            )
        self.emit(node, inputs, {"axis": axis})

    def _averagepool(self, node: Node, inputs: list[str]) -> None:
        attributes = dict(node.attributes)
        if any(step != 1 for step in attributes.pop("dilations", [])):
            raise UserError(
                "it has an AveragePool with dilations, which is not supported; give the network as Python code"
            )
        self.emit(node, inputs, attributes)

    def _clip(self, node: Node, inputs: list[str]) -> None:
        limits = []
        for index, limit in ((1, np.finfo(np.float32).min), (2, np.finfo(np.float32).max)):
            stated = inputs[index] if len(inputs) > index else ""
            limits.append(stated or self.stored_array(np.array(limit, np.float32)))
        self.emit(node, [inputs[0], *limits], {})

    def _scatternd(self, node: Node, inputs: list[str]) -> None:
        plain = bytes(node.attributes.get("reduction", b"none")) == b"none"
        self.emit(node, inputs, node.attributes, layer=Scatter() if plain else None)

    def _gelu(self, node: Node, inputs: list[str]) -> None:
        """x * (1 + erf(x / sqrt(2))) / 2."""
        if bytes(node.attributes.get("approximate", b"none")) != b"none":
            raise UserError(
                "it has a Gelu that is approximated by tanh, which is not supported; give the network as Python code"
            )
        number = {value: self.stored_array(np.array(value, np.float32)) for value in (math.sqrt(2), 1.0, 0.5)}
        parts = [self.new_value(inputs[0]) for _ in range(4)]
        self.emit(node, [inputs[0], number[math.sqrt(2)]], {}, kind="Div", outputs=parts[:1])
        self.emit(node, parts[:1], {}, kind="Erf", outputs=parts[1:2])
        self.emit(node, [parts[1], number[1.0]], {}, kind="Add", outputs=parts[2:3])
        self.emit(node, [inputs[0], parts[2]], {}, kind="Mul", outputs=parts[3:4])
        self.emit(node, [parts[3], number[0.5]], {}, kind="Mul")

    def new_value(self, like: str) -> str:
        """The name of a new value with the shape of another."""
        name = f"datafree:value {len(self.two)}"
        self.two[name], self.three[name] = self.two[like], self.three[like]
        return name


def _array(tensor: Tensor) -> np.ndarray:
    """All numbers of a weight. Raises UserError for a format that numpy lacks."""
    content = tensor.values(LARGEST)
    if content is None:
        raise UserError(
            f"weight {name_of(tensor.name)} is in bfloat16, expected float32; export the network in float32"
        )
    return content.copy() if not content.flags.writeable else content
