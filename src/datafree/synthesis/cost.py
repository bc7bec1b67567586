"""Estimates of the memory that synthesis takes, refused before it begins where it does not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models import hooks as tap_names
from ..models.network import Network

if TYPE_CHECKING:
    from ..records.record import Record
from .._core.memory import check_cost
from ..records.cost import FLOAT32, FLOAT64

__all__ = ["check_distribution", "distribution_bytes", "inversion_bytes"]


def distribution_bytes(classes: int, pixels: int, rank: int) -> int:
    """What fitting the distribution of the pixels takes: all classes' covariances (classes x pixels^2) up to three times in
    float64, and a class's own in float32 some eight times while it is fitted.
    """
    square = pixels * pixels
    return 3 * FLOAT64 * classes * square + 8 * FLOAT32 * square + 2 * FLOAT32 * classes * pixels * min(rank, pixels)


def check_distribution(network: Network, record: Record, rank: int) -> None:
    """Raises UserError where the distribution of the pixels cannot be fitted here, naming a method that can."""
    top = tap_names.layers(network)[-1]
    one = inversion_bytes(network, 1)
    instead = [("--method inception", one)]
    if any(entry.taps == (top,) for entry in record.of_kind("moments").values()):
        instead.insert(0, ("--method top", one))
    classes, pixels = len(network.spec.classes), network.spec.pixels
    what = f"the distribution of {pixels:,} pixels in each of {classes:,} classes"
    check_cost(distribution_bytes(classes, pixels, rank), what, instead)


def inversion_bytes(network: Network, images: int) -> int:
    """What one step on so many images takes: activations and their gradients, the pixels with their gradient and moments."""
    units: list[int] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        units.append(output.numel() if isinstance(output, Tensor) else 0)

    leaves = [part for part in network.module.modules() if not [*part.children()]]
    handles = [part.register_forward_hook(note) for part in leaves if not isinstance(part, torch.jit.ScriptModule)]
    try:
        network.predict(network.probes()[:1])
    finally:
        for handle in handles:
            handle.remove()
    return FLOAT32 * images * (2 * sum(units) + 6 * network.spec.pixels)
