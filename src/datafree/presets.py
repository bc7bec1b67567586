"""Ready choices of what to record, from the least to all."""

from __future__ import annotations

import math
from typing import Any

from . import taps as tap_names
from .determined import PIXELS_AT_MOST
from .errors import unknown
from .network import Network
from .stats.input import InputMoments
from .stats.moments import Moments
from .stats.spectral import SpectralAll, SpectralPairs

__all__ = ["PRESETS", "best", "paper_row", "statistics"]

Choice = list[tuple[Any, tuple[str, ...] | None]]

PRESETS = ("small", "recommended", "paper", "full")


def statistics(name: str, network: Network) -> Choice:
    """(statistic, taps) pairs; taps None means all conv and linear layers. Raises UserError for an unknown name."""
    top = (tap_names.layers(network)[-1],)
    start: Choice = [(InputMoments(), None)]
    if name == "small":
        return [*start, (Moments(covariance="full"), top)]
    if name == "recommended":
        return [*start, (Moments(covariance="full"), top), (Moments(covariance="lowrank", rank=32, conv="units"), (tap_names.INPUT,))]
    if name == "paper":
        return [*start, *_by_size(network), (SpectralAll(), None), (SpectralPairs(), None)]
    if name == "full":
        return [*statistics("paper", network), *best(network)]
    raise unknown("preset", name, PRESETS)


def best(network: Network) -> Choice:
    """What `distribution` draws its best images from: the full class covariances of the pixels, where they fit."""
    if network.spec.pixels <= PIXELS_AT_MOST:
        return [(InputMoments(), None), (Moments(covariance="full"), (tap_names.INPUT,))]
    return [(InputMoments(), None), (Moments(covariance="lowrank", rank=128, conv="units"), (tap_names.INPUT,))]


def paper_row(row: str, network: Network) -> Choice:
    """What one of the paper's objectives needs, and no more: `top`, `all`, `all-dropout`, `spectral-all`, ..."""
    start: Choice = [(InputMoments(), None)]
    if row == "top":
        return [*start, (Moments(covariance="full"), (tap_names.layers(network)[-1],))]
    if row in ("all", "all-dropout"):
        return [*start, *_by_size(network)]
    if row in ("spectral-all", "spectral-pairs"):
        return [*start, (SpectralAll() if row == "spectral-all" else SpectralPairs(), None)]
    raise unknown("objective of the paper", row, ("top", "all", "all-dropout", "spectral-all", "spectral-pairs"))


def _by_size(network: Network) -> Choice:
    """Full covariances up to 2,048 units; low rank with the variance left over above that."""
    sizes = {tap: math.prod(shape) for tap, shape in tap_names.shapes(network, tap_names.layers(network)).items()}
    small = tuple(tap for tap, size in sizes.items() if size <= 2048)
    large = tuple(tap for tap, size in sizes.items() if size > 2048)
    choice: Choice = [(Moments(covariance="full"), small)] if small else []
    return choice + ([(Moments(covariance="lowrank", rank=128), large)] if large else [])
