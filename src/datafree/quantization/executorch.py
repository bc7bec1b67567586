"""ExecuTorch: writes the converted graph as a `.pte` file for mobile devices; XNNPACK runs its integer parts."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .._core.errors import UserError
from .._core.files import write_bytes
from .._core.optional_packages import first_line, quiet, require
from ..models.network import Network
from ..releases.bits import Bits
from .annotate import parameter_of
from .capture import capture
from .onnxruntime import BATCH, Speed, least_ms

__all__ = ["check_mobile", "mobile_speed", "run_mobile", "to_mobile"]

_ops = torch.ops.quantized_decomposed
PER_TENSOR = (_ops.quantize_per_tensor.default, _ops.dequantize_per_tensor.default)


def check_mobile(bits: Bits | None) -> None:
    """Raises UserError if ExecuTorch is missing or does not support the bits; None means float."""
    require("executorch")
    if bits is not None and not bits.integer:
        raise UserError(
            f"mobile: got {bits.name}, expected weights of at most 8 bits and activations of 8, which ExecuTorch can run; "
            "change the bits, or leave `mobile` out"
        )


def to_mobile(graph: GraphModule | Network, path: Path, shape: tuple[int, int, int], bits: Bits | None = None) -> Path:
    """Writes a converted graph, or a network in float, as an ExecuTorch program for 64 images at a time.

    XNNPACK's integers are signed, so each grid 0..255 becomes -128..127 with its zero point. XNNPACK misinterprets a
    linear layer with a rounded input and a float output and silently computes wrong logits, so such a layer, usually
    the last one, stays in float. Raises UserError for weights of more than 8 bits, or activations of other than 8.
    """
    check_mobile(bits)
    with torch.no_grad(), quiet(), _silenced():
        module = capture(graph) if isinstance(graph, Network) else _signed(copy.deepcopy(graph))
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner  # pyright: ignore
        from executorch.exir import to_edge_transform_and_lower  # pyright: ignore

        import_kernels()
        try:
            program = torch.export.export(module, (torch.zeros(BATCH, *shape),))
            executable = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        except Exception as error:  # its passes raise many types
            raise UserError(f"ExecuTorch cannot write this network: {first_line(error)}; leave `mobile` out") from error
    write_bytes(path, executable.buffer)
    return path


def _signed(graph: GraphModule) -> GraphModule:
    for node in list(graph.graph.nodes):
        if node.target in PER_TENSOR:
            source, step, zero, low, high, dtype = node.args
            if dtype == torch.uint8:
                node.args = (source, step, zero - 128, low - 128, high - 128, torch.int8)
    for index, node in enumerate(list(graph.graph.nodes)):
        if node.target == torch.ops.aten.linear.default and not any(_rounded(user) for user in node.users):
            packed = node.args[1]
            if isinstance(packed, Node) and packed.target == _ops.dequantize_per_channel.default:
                values = [parameter_of(graph, entry) if isinstance(entry, Node) else entry for entry in packed.args]
                graph.register_buffer(f"in_float_{index}", _ops.dequantize_per_channel.default(*values))
                with graph.graph.inserting_before(node):
                    node.replace_input_with(packed, graph.graph.get_attr(f"in_float_{index}"))
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _rounded(node: Node) -> bool:
    """Whether a reader of a layer's output rounds it, directly or after a ReLU."""
    if node.target == torch.ops.aten.relu.default:
        return any(_rounded(user) for user in node.users)
    return node.target == PER_TENSOR[0]


def import_kernels() -> None:
    """Registers ExecuTorch's operators for the parts that XNNPACK does not run."""
    import executorch.kernels.quantized  # noqa: F401  # pyright: ignore[reportMissingImports]


class _Program:
    """An open ExecuTorch program. Keeps a reference to the program, whose memory the method reads."""

    def __init__(self, path: Path):
        require("executorch")
        with quiet(), _silenced():
            from executorch.runtime import Runtime  # pyright: ignore

            import_kernels()
            self.program = Runtime.get().load_program(path)
            self.method = self.program.load_method("forward")

    def __call__(self, pixels: Tensor) -> Tensor:
        """Logits (64, classes) of exactly 64 images, copied out of ExecuTorch's memory."""
        assert self.method is not None
        return self.method.execute([pixels])[0].clone()


def run_mobile(path: Path, pixels: Tensor) -> Tensor:
    """Logits (N, classes) of pixels (N, C, H, W) from ExecuTorch's runtime; the last batch is padded."""
    program, parts = _Program(path), []
    for batch in pixels.float().split(BATCH):
        padded = torch.cat([batch, batch[:1].expand(BATCH - len(batch), *batch.shape[1:])]).contiguous()
        parts.append(program(padded)[: len(batch)])
    return torch.cat(parts)


def mobile_speed(original: Path, quantized: Path, shape: tuple[int, int, int]) -> Speed:
    """Times both programs alternately on the same noise; ExecuTorch chooses its number of threads."""
    pixels = torch.rand(BATCH, *shape, generator=torch.Generator().manual_seed(0))
    original_ms, quantized_ms = least_ms(*(partial(_Program(path), pixels) for path in (original, quantized)))
    return Speed(BATCH, 0, original_ms, quantized_ms, *(os.path.getsize(path) for path in (original, quantized)))


@contextmanager
def _silenced() -> Iterator[None]:
    """Inside, suppresses what ExecuTorch's C++ code prints about other processors."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(1), os.dup(2)]
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        yield
    finally:
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for descriptor in (*saved, devnull):
            os.close(descriptor)
