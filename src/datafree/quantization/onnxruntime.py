"""Runs this process's own ONNX files in onnxruntime: logits, speed, and integer operators. Needs no torchao."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.errors import UserError
from .._core.optional_packages import first_line, require
from ..models.behaviour import check_finite

__all__ = ["Check", "Speed", "check", "integer_operators", "least_ms", "run", "session", "speed"]

BATCH = 64
ROUNDS = 15
INTEGER = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "DynamicQuantize")


def session(path: Path | bytes, *, threads: int = 1, optimised: Path | None = None) -> Any:
    """An onnxruntime session on the CPU for a file, or its bytes, that this process wrote.

    Other files are run by `releases.onnx_session.Process`, in a separate process. `optimised` is where onnxruntime
    writes its optimised graph. Raises UserError for a file that does not take one input with any number of images.
    """
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    content, name = (path, "the file") if isinstance(path, bytes) else (str(path), str(path))
    try:
        opened = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"onnxruntime cannot run {name}: {first_line(error)}; write it again") from error
    if len(opened.get_inputs()) != 1:
        raise UserError(f"{name} has {len(opened.get_inputs())} inputs, expected 1, the pixels; get or write it again")
    count = (opened.get_inputs()[0].shape or [None])[0]
    if isinstance(count, int):
        raise UserError(
            f"{name} takes exactly {count} images at a time, expected any number; write it again for any number"
        )
    return opened


def run(session: Any, pixels: Tensor) -> Tensor:
    """Logits (N, classes) of pixels (N, C, H, W), in batches of 64. Raises RuntimeError if the session fails."""
    name = session.get_inputs()[0].name
    try:
        parts = [torch.from_numpy(session.run(None, {name: batch.numpy()})[0]) for batch in pixels.split(BATCH)]
    except Exception as error:  # onnxruntime's errors share no base class but Exception
        raise RuntimeError(f"onnxruntime: {first_line(error)}") from error
    return torch.cat(parts)


def integer_operators(path: Path) -> dict[str, int]:
    """Number of operators by kind that onnxruntime runs in integers, and the number of others under "other"."""
    import onnx

    # next to the file: a killed process must not leave the network in a shared folder
    optimised = path.with_name(f".{path.name}.optimised")
    try:
        session(path, optimised=optimised)
        kinds = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    finally:
        optimised.unlink(missing_ok=True)
    integer = {kind: count for kind, count in sorted(kinds.items()) if kind.startswith(INTEGER)}
    return {**integer, "other": sum(kinds.values()) - sum(integer.values())}


@dataclass(frozen=True)
class Check:
    """Comparison of two forms of a network on the same images: largest difference of logits, share of equal argmax."""

    images: int
    largest: float
    equal: float
    """Share of images with equal argmax, in %."""
    largest_logit: float
    """Largest logit of the expected form, regardless of its sign: the scale of `largest`."""


def check(expected: Tensor, logits: Tensor) -> Check:
    """Compares logits (N, classes) of two forms of a network. Raises UserError for NaN or infinity."""
    for form_logits in (expected, logits):
        check_finite("one of the two forms", form_logits)
    equal = 100 * float((expected.argmax(1) == logits.argmax(1)).double().mean())
    return Check(len(expected), float((expected - logits).abs().max()), equal, float(expected.abs().max()))


@dataclass(frozen=True)
class Speed:
    """Minimum milliseconds per batch over several rounds, measured alternately in one run; sizes of the files."""

    batch: int
    threads: int
    original_ms: float
    quantized_ms: float
    original_bytes: int
    quantized_bytes: int

    @property
    def faster(self) -> float:
        return self.original_ms / self.quantized_ms

    @property
    def smaller(self) -> float:
        """The quantized file's size as a share of the original's."""
        return self.quantized_bytes / self.original_bytes


def speed(original: Path, quantized: Path, shape: tuple[int, int, int], *, batch: int = 64, threads: int = 1) -> Speed:
    """Times both ONNX files alternately on the same noise."""
    pixels = np.random.Generator(np.random.PCG64(0)).random((batch, *shape), dtype=np.float32)
    sessions = [session(path, threads=threads) for path in (original, quantized)]
    original_ms, quantized_ms = least_ms(
        *(partial(opened.run, None, {opened.get_inputs()[0].name: pixels}) for opened in sessions)
    )
    return Speed(batch, threads, original_ms, quantized_ms, *(os.path.getsize(path) for path in (original, quantized)))


def least_ms(*calls: Callable[[], object]) -> list[float]:
    """Minimum milliseconds of each call over several rounds; calls alternate, so other load affects all equally."""
    best = [math.inf] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[index] = min(best[index], 1e3 * (time.perf_counter() - start))
    return best
