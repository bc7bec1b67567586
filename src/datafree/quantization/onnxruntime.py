"""Running ONNX files that this process has written, in onnxruntime: logits, speed beside the original, what runs in
integers. Needs no torchao."""

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
    """An onnxruntime session on the CPU, in this process, for a file, or the bytes of one, that it has written itself (a
    stranger's file is run by `onnxfile.Process`); `optimised` is where onnxruntime writes the graph that it will run.

    Raises UserError for a file that does not take one input of any number of images.
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
        own = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"onnxruntime cannot run {name}: {first_line(error)}; write it again") from error
    if len(own.get_inputs()) != 1:
        raise UserError(
            f"{name} is no network that takes pixels: it has {len(own.get_inputs())} inputs, wanted 1; get or write it again"
        )
    count = (own.get_inputs()[0].shape or [None])[0]
    if isinstance(count, int):
        raise UserError(f"{name} takes exactly {count} images at a time, wanted any number; write it again so")
    return own


def run(own: Any, pixels: Tensor) -> Tensor:
    """Logits of a session, a batch at a time. Raises RuntimeError where it cannot take the images."""
    name = own.get_inputs()[0].name
    try:
        parts = [torch.from_numpy(own.run(None, {name: part.numpy()})[0]) for part in pixels.split(BATCH)]
    except Exception as error:  # onnxruntime's own, which share no base but Exception
        raise RuntimeError(f"onnxruntime: {first_line(error)}") from error
    return torch.cat(parts)


def integer_operators(path: Path) -> dict[str, int]:
    """Operators that onnxruntime runs in integers, by kind, and under "other" how many it does not."""
    import onnx

    optimised = path.with_name(
        f".{path.name}.optimised"
    )  # not in a shared folder, where a kill would leave the network
    try:
        session(path, optimised=optimised)
        kinds = Counter(node.op_type for node in onnx.load(optimised).graph.node)
    finally:
        optimised.unlink(missing_ok=True)
    found = {kind: count for kind, count in sorted(kinds.items()) if kind.startswith(INTEGER)}
    return {**found, "other": sum(kinds.values()) - sum(found.values())}


@dataclass(frozen=True)
class Check:
    """Two forms of one network on the same images: the largest difference of logits, and of how many argmax is equal."""

    images: int
    largest: float
    equal: float
    """In %."""


def check(one: Tensor, other: Tensor) -> Check:
    """Compares logits (N, classes). Raises UserError for NaN and infinity in them."""
    for logits in (one, other):
        check_finite("one of the two forms", logits)
    equal = 100 * float((one.argmax(1) == other.argmax(1)).double().mean())
    return Check(len(one), float((one - other).abs().max()), equal)


@dataclass(frozen=True)
class Speed:
    """Least milliseconds a batch of several rounds, both in one run, turn by turn; bytes of the files."""

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
    """Runs both ONNX files on the same noise."""
    pixels = np.random.Generator(np.random.PCG64(0)).random((batch, *shape), dtype=np.float32)
    both = [session(path, threads=threads) for path in (original, quantized)]
    before, after = least_ms(*(partial(own.run, None, {own.get_inputs()[0].name: pixels}) for own in both))
    return Speed(batch, threads, before, after, *(os.path.getsize(path) for path in (original, quantized)))


def least_ms(*calls: Callable[[], object]) -> list[float]:
    """The least milliseconds of each over several rounds, turn by turn, so that other work falls on all alike."""
    best = [math.inf] * len(calls)
    for _ in range(ROUNDS):
        for index, call in enumerate(calls):
            began = time.perf_counter()
            call()
            best[index] = min(best[index], 1e3 * (time.perf_counter() - began))
    return best
