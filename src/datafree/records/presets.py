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
from .statistics.moments import UNITS_AT_MOST, Moments
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
MEANS = 2**22
"""Largest number of class means and of covariances of the last layer in a preset: 17 MB in a file."""
COVARIANCES = 2**27
"""Largest number of class covariances of the pixels in a preset: 537 MB in a file."""
DIRECTIONS = 2**25
"""The same for class means, variances and directions: 134 MB."""
SMALLEST_SIDE = 32
"""Images are averaged down to this side, not further, before one covariance serves all classes."""
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
    if name == "small":
        return [(InputMoments(per="channel"), None), _top(network)]
    if name == "safe":
        return [(InputMoments(per="channel"), None), (budgeted(network, counts, leak), (tap_names.INPUT,))]
    if name == "sharp":
        return [(InputMoments(), None), _top(network), (_low_rank(network, 32), (tap_names.INPUT,))]
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
    channels = network.spec.shape[0]
    budget = 2 * NormalDist().inv_cdf(leak) ** 2 - 2 * channels / sum(counts)
    for downsample in range(1, COARSEST + 1):
        numbers = _numbers(network, downsample)
        means = numbers / min(counts)
        if means <= 0.6 * budget or downsample == COARSEST:
            rank = min(numbers, int((budget - means) * sum(counts) / numbers) - 1)
            shared = {"covariance": "lowrank", "rank": rank} if rank > 0 else {"covariance": "none"}
            return Moments(pooled=rank > 0, downsample=downsample, conv="units", **shared)  # type: ignore[arg-type]
    raise AssertionError("the coarsest grid is always taken")


def best(network: Network) -> Choice:
    """For the best images of the method `distribution`: full class covariances of the pixels, low rank if they are too
    large, and one for all classes if those are too many.
    """
    pixels = network.spec.pixels
    full = pixels <= PIXELS_AT_MOST and len(network.spec.classes) * pixels**2 <= COVARIANCES
    moments = Moments(covariance="full") if full else _low_rank(network, 128)
    return [(InputMoments(), None), (moments, (tap_names.INPUT,))]


def _top(network: Network) -> tuple[Moments, tuple[str, ...]]:
    """The last layer's covariance of each class, or of all if those are too many numbers."""
    layer = tap_names.layers(network)[-1]
    units = tap_names.shapes(network, (layer,))[layer][0]
    if units > UNITS_AT_MOST:
        return Moments(covariance="lowrank", pooled=True), (layer,)
    return Moments(covariance="full", pooled=len(network.spec.classes) * units**2 > MEANS), (layer,)


def _low_rank(network: Network, rank: int) -> Moments:
    """Means and up to `rank` directions of each class on the finest grid of pixels on which they are at most `DIRECTIONS`.

    If that grid is too coarse even with 16 directions, all classes share `rank` of them.
    """
    classes, side = len(network.spec.classes), min(network.spec.shape[1:])
    for fewer in (count for count in (rank, 64, 32, 16) if count <= rank):
        downsample = _downsample(network, DIRECTIONS // (classes * (fewer + 2)))
        if -(-side // downsample) >= min(SMALLEST_SIDE, side):
            return Moments(covariance="lowrank", rank=fewer, conv="units", downsample=downsample)
    downsample = _downsample(network, MEANS // classes)
    return Moments(covariance="lowrank", rank=rank, conv="units", pooled=True, downsample=downsample)


def _downsample(network: Network, most: int) -> int:
    """The finest grid with at most `most` numbers, or the coarsest one."""
    return next((count for count in range(1, COARSEST) if _numbers(network, count) <= most), COARSEST)


def _numbers(network: Network, downsample: int) -> int:
    channels, height, width = network.spec.shape
    return channels * -(-height // downsample) * -(-width // downsample)


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
