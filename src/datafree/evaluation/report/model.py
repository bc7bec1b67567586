"""What a report shows, as plain values: rows of the table, grids of images, curves, settings. Nothing here draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...runs.run_reader import OnlineLog
    from ..similarity import LayerMatches, Similarity

__all__ = ["Grid", "Line", "Match", "OnlineRun", "Report", "Row", "SimilarityTable", "Timeline"]


@dataclass(frozen=True)
class Row:
    """One network in the table."""

    name: str
    group: str
    """``teacher``, ``with data``, ``without data``, or any other heading."""
    accuracy: float | None
    """Percent of the test set; the mean where there are several seeds."""
    agreement: float | None
    """Percent of the test set that gets the teacher's class."""
    parameters: int
    nbytes: int
    """Size of the network's file."""
    seconds: float | None
    images: int | None
    """Training images seen or made."""
    note: str = ""
    sd: float | None = None
    """Standard deviation of the accuracy over seeds."""
    seeds: int = 1


@dataclass(frozen=True, eq=False)
class Grid:
    """The images of one source. A cell that is not finite has no image and stays blank."""

    name: str
    means: np.ndarray
    """(K, C, H, W), the mean image of each class."""
    samples: np.ndarray
    """(R, K, C, H, W), R random images of each class."""
    low: float
    high: float
    note: str = ""
    clipped: float | None = None
    """Share of the source's pixels outside [low, high]; None: counted over the pixels shown."""


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    values: list[float]
    unit: str
    """Of the y axis: ``loss, nats``, ``accuracy, %``. Lines of one unit and step share a panel."""
    step: str = "epoch"
    """Of the x axis, which counts 1, 2, ..."""


@dataclass(frozen=True)
class SimilarityTable:
    """Divergences that can be compared: by one network, in one form, of images shown in one way."""

    caption: str
    found: Sequence[Similarity]
    """The most alike first."""
    unit: str = "nats"
    """Empty where there is none."""


@dataclass(frozen=True)
class Match:
    """What the images of synthetic sets match of the statistics that one network stored, layer by layer."""

    caption: str
    found: Sequence[LayerMatches]


@dataclass(frozen=True)
class OnlineRun:
    """One online distillation."""

    name: str
    found: OnlineLog
    phases: Mapping[str, float]
    """Seconds; no second is in two of them."""
    replay: str = ""
    """Its kind of memory."""
    series: str = ""
    """The same for runs that differ in their seed alone; empty for one that is compared with none."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """What a generator made of the same latents, epoch by epoch."""

    name: str
    pixels: np.ndarray
    """(T, n, C, H, W) uint8."""
    epochs: Sequence[int]
    of: int
    """Epochs that there were, of which T are shown."""


@dataclass(frozen=True)
class Report:
    """Everything on the page. `settings` may hold dicts, each a group of its own; ``versions`` comes last."""

    title: str
    summary: str
    rows: list[Row]
    grids: list[Grid]
    """The real images first."""
    lines: list[Line]
    settings: dict[str, Any]
    warnings: list[str]
    classes: tuple[str, ...]
    scatter: Sequence[tuple[str, float, float, float]] = ()
    """Name, bytes of the record, forecast leakage (AUC), accuracy in percent."""
    likenesses: Sequence[SimilarityTable] = ()
    """How far data sets are from what a network was trained on, one for each way of measuring."""
    matches: Sequence[Match] = ()
    """One for each network that sets were made from."""
    online: Sequence[OnlineRun] = ()
    timelines: Sequence[Timeline] = ()
