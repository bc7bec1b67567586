"""Checks that an untrusted ONNX file is a network that can be run, from its bytes and in seconds.

CPU time for 20,000 operators on one core of a server: 0.8 s for `Neg`, 3 s for the slowest kind tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..._core.errors import UserError
from .cost import Cost, cost, has_rule
from .graph import TYPES, Graph, read

__all__ = ["BATCH", "MAX_BYTES", "MAX_NODES", "Program", "bounded", "check"]

MAX_BYTES = 1 << 30
"""Size of the file."""
MAX_PEAK = 1 << 30
"""Bytes of the results for one image. VGG-16 at 224 pixels needs 150 million."""
MAX_OPERATIONS = 1 << 36
"""Operations for one image. VGG-19 at 224 pixels takes 20e9, a ViT-L/16 61e9."""
MAX_FIXED = 1 << 32, 1 << 26, 16
"""Limits of the bytes computed from weights alone: the first value, and the second plus the third times the file's
weights.
"""
MAX_NODES = 20_000
BATCH = 64
BATCH_OPERATIONS = 1 << 38


@dataclass(frozen=True)
class Program:
    """A checked file: its graph and the number of images in a batch."""

    path: Path
    graph: Graph
    classes: int | None
    batch: int
    single: Cost
    """The cost of one image."""
    costs: dict[int, Cost] = field(default_factory=dict)

    def cost(self, images: int) -> Cost:
        """The cost of this number of images. Raises UserError if it exceeds the limits."""
        if images not in self.costs:
            self.costs[images] = _bounded(self.path, self.graph, images, self.classes)
        return self.costs[images]


def check(content: bytes, path: Path, shape: tuple[int, ...], classes: int | None) -> Program:
    """The program in an ONNX file that takes images of `shape` and returns logits of `classes` (None: any number).

    Parses the bytes as protobuf and follows shapes through the graph, without running anything or loading a package
    other than numpy. Raises UserError with the reason: external data, control flow, functions, an operator or number
    format that datafree does not write, sizes that are unknown before a run, or more memory or operations than MAX_*.
    """
    try:
        if len(content) > MAX_BYTES:
            raise UserError(f"it has {len(content):,} bytes, expected at most {MAX_BYTES:,}; use a smaller network")
        graph = read(content, has_rule)
        if len(graph.nodes) > MAX_NODES:
            raise UserError(f"it has {len(graph.nodes):,} operators, expected at most {MAX_NODES:,}")
        if graph.shape != tuple(shape):
            raise UserError(f"it takes images of shape {graph.shape}, expected {tuple(shape)} as config.json states")
    except UserError as error:
        raise _refused(path, error) from None
    single = _bounded(path, graph, 1, classes)
    double = _bounded(path, graph, 2, classes)
    fitting = 1 + (MAX_PEAK - single.peak) // max(
        1, double.peak - single.peak
    )  # work space does not depend on the number of images
    batch = min(BATCH, fitting, BATCH_OPERATIONS // max(1, single.operations))
    program = Program(path, graph, classes, max(1, batch), single, {1: single, 2: double})
    program.cost(program.batch)
    return program


def _bounded(path: Path, graph: Graph, images: int, classes: int | None) -> Cost:
    try:
        needed = bounded(graph, images)
        if (
            needed.output[:1] != (images,)
            or len(needed.output) != 2
            or needed.output[1] != (classes or needed.output[1])
        ):
            raise UserError(
                f"it returns {' x '.join(map(str, needed.output)) or 'one number'} for {_images(images)}, expected "
                f"{images} x {classes or 'classes'} logits; use the config.json that was written with it"
            )
        if needed.output_type != 1:
            raise UserError(f"its logits are of type {TYPES[needed.output_type]}, expected float32")
    except UserError as error:
        raise _refused(path, error) from None
    return needed


def bounded(graph: Graph, images: int) -> Cost:
    """The cost of this number of images. Raises UserError with only the reason if it exceeds the limits."""
    needed = cost(graph, images)
    limit, base, factor = MAX_FIXED
    if needed.fixed > min(limit, base + factor * graph.nbytes):
        raise UserError(
            f"it computes {needed.fixed:,} bytes from weights of {needed.weights:,}, expected at most "
            f"{min(limit, base + factor * graph.nbytes):,}; use a smaller network"
        )
    if needed.peak > (MAX_PEAK if images == 1 else 2 * MAX_PEAK):
        raise UserError(
            f"{_images(images)} would need {needed.peak:,} bytes, expected at most {MAX_PEAK:,}; use a smaller network"
        )
    if needed.operations > (MAX_OPERATIONS if images == 1 else 2 * BATCH_OPERATIONS):
        raise UserError(
            f"{_images(images)} would take {needed.operations:,} operations, expected at most {MAX_OPERATIONS:,}; "
            "use a smaller network"
        )
    return needed


def _images(count: int) -> str:
    return "one image" if count == 1 else f"{count} images"


def _refused(path: Path, error: UserError) -> UserError:
    reason = str(error)
    return UserError(f"{path} is not run: {reason}{'' if ';' in reason else '; get it again, or quantize again'}")
