"""Ready choices of what to record, from the least to all."""

from __future__ import annotations

from typing import Any

from . import taps as tap_names
from .errors import unknown
from .network import Network
from .stats.input import InputMoments
from .stats.moments import Moments
from .stats.spectral import SpectralAll, SpectralPairs

__all__ = ["PRESETS", "statistics"]

Choice = list[tuple[Any, tuple[str, ...] | None]]

PRESETS = ("small", "recommended", "paper", "full")


def statistics(name: str, network: Network) -> Choice:
    """(statistic, taps) pairs; taps None means all conv and linear layers. Raises UserError for an unknown name."""
    top = (tap_names.layers(network)[-1],)
    start: Choice = [(InputMoments(), None)]
    if name == "small":
        return [*start, (Moments(covariance="full"), top)]
    if name == "recommended":
        return [*start, (Moments(covariance="full"), top), (Moments(covariance="lowrank", rank=32), (tap_names.INPUT,))]
    if name == "paper":
        return [*start, *_by_size(network), (SpectralAll(), None), (SpectralPairs(), None)]
    if name == "full":
        everything = (Moments(covariance="full"), (tap_names.INPUT,))
        return [*statistics("paper", network), everything]
    raise unknown("preset", name, PRESETS)


def _by_size(network: Network) -> Choice:
    """Full covariances up to 2,048 units; low rank with the variance left over above that."""
    sizes = {tap: _units(shape) for tap, shape in tap_names.shapes(network, tap_names.layers(network)).items()}
    small = tuple(tap for tap, size in sizes.items() if size <= 2048)
    large = tuple(tap for tap, size in sizes.items() if size > 2048)
    choice: Choice = [(Moments(covariance="full"), small)] if small else []
    return choice + ([(Moments(covariance="lowrank", rank=128), large)] if large else [])


def _units(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total
