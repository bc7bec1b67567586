"""Presets: ready choices of statistics to record, from the fewest to all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist
from typing import Any

from .._core.arguments import checked
from .._core.errors import UserError, unknown
from ..data.adapters import LabelledData, as_dataset
from ..data.dataset_checks import check_classes
from ..models import hooks as tap_names
from ..models.network import Network
from .statistics.input import InputMoments
from .statistics.moments import Moments
from .statistics.spectral import SpectralAll, SpectralPairs

__all__ = [
    "LEAK",
    "PIXELS_AT_MOST",
    "PRESETS",
    "PresetStatistics",
    "best",
    "budgeted",
    "paper_row",
    "preset",
    "statistics",
]

Choice = list[tuple[Any, tuple[str, ...] | None]]

PRESETS = ("small", "safe", "sharp", "best", "paper", "full")
COARSEST = 64
LEAK = 0.6
"""Largest forecast AUC of a record of `safe`; docs/records.md explains the choice."""


class PresetStatistics(Choice):
    """The (statistic, layers) pairs of a preset, with the forecast AUC that their record must not exceed."""

    def __init__(self, statistics: Iterable[tuple[Any, tuple[str, ...] | None]], leak: float | None = None):
        super().__init__(statistics)
        self.leak = leak
        """None if the preset promises nothing."""


def statistics(name: str, network: Network, counts: Sequence[int], *, leak: float = LEAK) -> PresetStatistics:
    """(statistic, taps) pairs; taps None means all conv and linear layers. Raises UserError for an unknown name.

    `counts` are the samples of each class, which decide how much `safe` can record below a forecast of `leak`.
    """
    return PresetStatistics(_pairs(name, network, counts, leak), leak if name == "safe" else None)


def _pairs(name: str, network: Network, counts: Sequence[int], leak: float) -> Choice:
    top = (Moments(covariance="full"), (tap_names.layers(network)[-1],))
    if name == "small":
        return [(InputMoments(per="channel"), None), top]
    if name == "safe":
        return [(InputMoments(per="channel"), None), (budgeted(network, counts, leak), (tap_names.INPUT,))]
    if name == "sharp":
        sharp = Moments(covariance="lowrank", rank=32, conv="units")
        return [(InputMoments(), None), top, (sharp, (tap_names.INPUT,))]
    if name == "best":
        return best(network)
    if name == "paper":
        return [(InputMoments(), None), *_by_size(network), (SpectralAll(), None), (SpectralPairs(), None)]
    if name == "full":
        return [*_pairs("paper", network, counts, leak), *best(network)]
    raise unknown("preset", name, PRESETS)


@checked
def preset(name: str, network: Network, data: LabelledData, *, leak: float = LEAK) -> PresetStatistics:
    """The statistics of a preset, for `record(network, data, preset(...))`; `record` takes the name as well.

    `name` is `small` (only the top layer), `safe` (a forecast of at most `leak`), `sharp`, `best`, `paper` or `full`. The
    contents of `safe` depend on the number of samples per class. Raises UserError for an unknown name and for a class
    without samples. `record` raises UserError if even the smallest record of `safe` has a forecast above `leak`.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    if name != "safe" and leak != LEAK:
        raise UserError(f"leak: got {leak} beside the preset {name!r}, expected it only with 'safe'; leave it out")
    data = as_dataset(data, network)
    check_classes(network, data)
    counts = data.labels.bincount(minlength=len(data.classes)).tolist()
    if min(counts) < 1:
        raise UserError(f"no samples of class {data.classes[counts.index(0)]!r}, expected at least 1 of each; add some")
    return statistics(name, network, counts, leak=leak)


def budgeted(network: Network, counts: Sequence[int], leak: float) -> Moments:
    """The finest class means of the pixels, and the most shared directions, whose forecast stays below `leak`.

    If even the coarsest grid exceeds it, `record` refuses the result. Means take at most three fifths of the budget
    D / n = 2 Phi^-1(leak)^2, directions of the pooled covariance the remainder.
    """
    if not 0.5 < leak < 1:
        raise UserError(f"leak: got {leak}, expected above 0.5 and below 1; 0.6 is the default")
    channels, height, width = network.spec.shape
    budget = 2 * NormalDist().inv_cdf(leak) ** 2 - 2 * channels / sum(counts)
    for downsample in range(1, COARSEST + 1):
        numbers = channels * -(-height // downsample) * -(-width // downsample)
        means = numbers / min(counts)
        if means <= 0.6 * budget or downsample == COARSEST:
            rank = min(numbers, int((budget - means) * sum(counts) / numbers) - 1)
            shared = {"covariance": "lowrank", "rank": rank} if rank > 0 else {"covariance": "none"}
            return Moments(pooled=rank > 0, downsample=downsample, conv="units", **shared)  # type: ignore[arg-type]
    raise AssertionError("the coarsest grid is always taken")


def best(network: Network) -> Choice:
    """For the best images of the method `distribution`: full class covariances of the pixels, low rank if they are too
    large.
    """
    if network.spec.pixels <= PIXELS_AT_MOST:
        return [(InputMoments(), None), (Moments(covariance="full"), (tap_names.INPUT,))]
    return [(InputMoments(), None), (Moments(covariance="lowrank", rank=128, conv="units"), (tap_names.INPUT,))]


def paper_row(row: str, network: Network) -> Choice:
    """Exactly what one of the paper's objectives needs: `top`, `all`, `all-dropout`, `spectral-all`, ..."""
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


PIXELS_AT_MOST = 4096
