"""Converts the simulated network to what runs: torchao's converted graph, and ONNX."""

from __future__ import annotations

import copy
import importlib.util
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node

from .._core.errors import UserError
from .._core.files import write_bytes
from .._core.optional_packages import any_number, first_line, quiet, require
from ..models.network import Network
from .annotate import BATCH_NORM
from .capture import capture, compare
from .onnxruntime import run, session
from .plain_operators import plain_pools
from .post_training import Quantized

__all__ = ["convert", "onnx_content", "to_onnx"]

_ops = torch.ops.quantized_decomposed
RANGES = {torch.uint8: (0, 255), torch.int8: (-128, 127), torch.uint16: (0, 65535), torch.int16: (-32768, 32767)}


def convert(quantized: Quantized) -> GraphModule:
    """torchao's converted graph: integer weights, quantize and dequantize operators, and nothing unused.

    torchao keeps float weights next to the integers; they are removed. Grids narrower than their number format get a
    clamp, because ONNX's QuantizeLinear only knows the format's range and would silently exceed them.
    """
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    with torch.no_grad(), quiet():
        copied = copy.deepcopy(quantized.graph)
        for node in copied.graph.nodes:
            if node.target == BATCH_NORM[0]:
                node.target = batch_norm
        graph = convert_pt2e(copied)
    for node in graph.graph.nodes:
        if node.target is batch_norm:
            node.target = BATCH_NORM[0]
    for node in list(graph.graph.nodes):
        if node.target == _ops.quantize_per_tensor.default:
            _clamp(graph, node)
    graph.graph.eliminate_dead_code()
    targets = {str(node.target) for node in graph.graph.nodes if node.op in ("get_attr", "call_module")}
    for name, _ in [*graph.named_parameters(), *graph.named_buffers()]:
        if name not in targets:
            place, _, tensor = name.rpartition(".")
            delattr(graph.get_submodule(place), tensor)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


def batch_norm(*args: Any) -> Any:
    """Replaces a batch norm while torchao converts, which would search 20 s for training patterns."""
    return BATCH_NORM[0](*args)


def _clamp(graph: GraphModule, node: Node) -> None:
    source, step, zero, low, high, dtype = node.args
    if (low, high) == RANGES.get(dtype):  # type: ignore[arg-type]
        return
    assert isinstance(step, float) and isinstance(zero, int) and isinstance(low, int) and isinstance(high, int)
    with graph.graph.inserting_before(node):
        limits = (low - zero) * step, (high - zero) * step
        clamped = graph.graph.call_function(torch.ops.aten.clamp.default, (source, *limits))
        clamped.meta = dict(source.meta)  # type: ignore[union-attr]
    node.replace_input_with(source, clamped)  # type: ignore[arg-type]


OPERATOR = re.compile(
    r"OpOverload\(op='((?:aten|prims)\.\w+)'|(?:overload for|ops\.)\s*((?:aten|prims)\.\w+)", re.IGNORECASE
)
"""An operator's name in an error message of the exporter."""


def to_onnx(graph: GraphModule | Network, path: Path, shape: tuple[int, int, int]) -> Path:
    """Writes a graph, or a network with its normalisation, as ONNX; see `onnx_content`. Returns the path."""
    write_bytes(path, onnx_content(graph, shape))
    return path


def onnx_content(graph: GraphModule | Network, shape: tuple[int, int, int]) -> bytes:
    """The bytes of an ONNX file: input `pixels` (N, C, H, W) in the spec's range, output `logits` (N, classes), any N.

    Source locations that the exporter adds are removed. Raises UserError for an operator that it cannot write, for a
    file that `open_quantized` would refuse, and for a network that onnxruntime, if installed, cannot run or runs
    differently.
    """
    require("onnx", "onnxscript")
    import onnx

    module = plain_pools(capture(graph) if isinstance(graph, Network) else graph)
    try:
        with torch.no_grad(), quiet():
            program = torch.onnx.export(
                module, (torch.zeros(2, *shape),), dynamo=True, dynamic_shapes=any_number(), verbose=False,
                input_names=["pixels"], output_names=["logits"], opset_version=21 if _wide(module) else 18,
            )  # fmt: skip
    except Exception as error:
        raise UserError(
            f"this network cannot be written as ONNX: {_cause(error)}; write that part of it with other operators"
        ) from error
    assert program is not None
    model = program.model_proto
    _strip(model.graph)
    del model.functions[:]
    onnx.checker.check_model(model)
    content = model.SerializeToString()
    check_written(content, shape)
    if isinstance(graph, Network) and importlib.util.find_spec("onnxruntime"):
        _check_logits(content, graph)
    return content


def _check_logits(content: bytes, network: Network) -> None:
    """Raises UserError if onnxruntime cannot run the network's file, or its logits on noise differ."""
    images = network.probes()
    try:
        logits = run(session(content), images)
    except (UserError, RuntimeError) as error:
        reason = first_line(error.__cause__ or error)
        raise UserError(
            f"onnxruntime cannot run {network.name} as ONNX: {reason}; compute that part in float32, or with other "
            "operators"
        ) from None
    expected = network.predict(images.clone())
    compare(
        network.name,
        expected,
        logits,
        ("onnxruntime", "write the part that it computes differently with other operators"),
    )


def check_written(content: bytes, shape: tuple[int, int, int]) -> None:
    """Raises UserError for a file that `open_quantized` would refuse."""
    from ..releases.onnx_session import check

    path = Path("model.onnx")
    try:
        check(content, path, shape, None)
    except UserError as error:
        reason = str(error).removeprefix(f"{path} is not run: ").partition(";")[0]
        advice = "write that part of it with other operators"
        if reason.startswith("its logits are of type"):
            advice = "return them as float32, with .float()"
        raise UserError(
            f"this network cannot be written as ONNX that can be opened again: {reason}; {advice}"
        ) from None


def _wide(module: nn.Module) -> bool:
    """Whether a tensor has 16-bit integers, which ONNX can quantize to only since opset 21."""
    graph = getattr(module, "graph", None)
    types = {
        argument for node in getattr(graph, "nodes", ()) for argument in node.args if isinstance(argument, torch.dtype)
    }
    return not types.isdisjoint({torch.int16, torch.uint16})


def _cause(error: BaseException) -> str:
    """The original reason: the exporter wraps it in banners. For an operator without an ONNX form, its name."""
    while error.__cause__ is not None:
        error = error.__cause__
    if operator := OPERATOR.search(str(error)):
        return f"torch's operator {operator[1] or operator[2]} has no ONNX form here"
    return first_line(error)


def _strip(graph: Any) -> None:
    """Removes metadata that no runtime reads."""
    del graph.metadata_props[:]
    del graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.initializer):
        del value.metadata_props[:]
