"""Estimates of the memory that synthesis needs, checked before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._core import memory
from .._core.errors import UserError
from .._core.memory import check_cost
from ..models import hooks as tap_names
from ..models.input_spec import InputSpec
from ..models.network import Network
from ..records.cost import FLOAT32, FLOAT64

if TYPE_CHECKING:
    from ..records.record import Record

__all__ = [
    "check_chunk",
    "check_distribution",
    "check_images",
    "classes_at_a_time",
    "distribution_bytes",
    "inversion_bytes",
]

FIT_COPIES = 8
"""float32 copies of a class's covariance while it is fitted; the eigendecomposition needs most of them."""


def check_images(count: int, spec: InputSpec) -> None:
    """Raises UserError if `count` new images do not fit in memory twice: in parts and joined."""
    needed, available = 2 * FLOAT32 * count * spec.pixels, memory.available()
    if available is not None and needed > available:
        raise UserError(
            f"images: got {count:,}, which need {needed:,} bytes, expected at most the {available:,} bytes of memory "
            "available; give a smaller count"
        )


def check_chunk(count: int, spec: InputSpec) -> None:
    """Raises UserError if the target classes, pixels and a copy of the pixels of a chunk of images do not fit in memory."""
    needed, available = count * (8 + 2 * FLOAT32 * spec.pixels), memory.available()
    if available is not None and needed > available:
        raise UserError(
            f"chunk: got {count:,}, which needs about {memory.in_words(needed)} of memory, expected at most the "
            f"{memory.in_words(available)} available; give a smaller chunk"
        )


def distribution_bytes(classes: int, pixels: int, rank: int, covariances: int | None = None) -> int:
    """Bytes needed to fit the distribution of the pixels.

    `covariances` (pixels x pixels) in float64, by default three per class; the matrices of the fit of one class; and the
    factors.
    """
    square, covariances = pixels * pixels, 3 * classes if covariances is None else covariances
    return (
        FLOAT64 * covariances * square
        + FIT_COPIES * FLOAT32 * square
        + 2 * FLOAT32 * classes * pixels * min(rank, pixels)
    )


def classes_at_a_time(workers: int, pixels: int) -> int:
    """How many classes' pixels to fit at the same time: `workers`, or fewer if they need over half of the memory left."""
    free = memory.available()
    return workers if free is None else max(1, min(workers, free // (2 * FIT_COPIES * FLOAT32 * pixels * pixels)))


def check_distribution(network: Network, record: Record, rank: int) -> None:
    """Raises UserError if there is too little memory to fit the distribution; it names a method that fits."""
    top = tap_names.layers(network)[-1]
    inversion = inversion_bytes(network, 1)
    alternatives = [("the method 'inception'", inversion)]
    if any(entry.taps == (top,) for entry in record.of_kind("moments").values()):
        alternatives.insert(0, ("the method 'top'", inversion))
    classes, pixels = len(network.spec.classes), network.spec.pixels
    description = f"the distribution of {pixels:,} pixels in each of {classes:,} classes"
    covariances = _covariances(record, classes)
    check_cost(distribution_bytes(classes, pixels, rank, covariances), description, alternatives)


def _covariances(record: Record, classes: int) -> int:
    """Number of float64 covariances of the pixels that exist at the same time."""
    for entry in record.of_kind("moments").values():
        if entry.taps == (tap_names.INPUT,):
            groups = 1 if entry.statistic.pooled else classes
            return groups if entry.statistic.downsample == 1 else 2 * groups  # one more while it is upsampled
    return 3 * classes  # also the first layer's, and their product with its inverse


def inversion_bytes(network: Network, images: int) -> int:
    """Bytes of one inversion step on `images` images: activations and pixels, with gradients and Adam's moments."""
    units: list[int] = []

    def count_output(_: nn.Module, __: Any, output: Any) -> None:
        units.append(output.numel() if isinstance(output, Tensor) else 0)

    leaves = [module for module in network.module.modules() if not [*module.children()]]
    handles = [
        module.register_forward_hook(count_output)
        for module in leaves
        if not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        network.predict(network.probes()[:1])
    finally:
        for handle in handles:
            handle.remove()
    return FLOAT32 * images * (2 * sum(units) + 6 * network.spec.pixels)
