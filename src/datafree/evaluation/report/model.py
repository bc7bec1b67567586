"""The contents of a report as plain values: table rows, image grids, curves, settings. No drawing."""

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
    """Accuracy on the test set in %; the mean over seeds if there are several."""
    agreement: float | None
    """Share of the test set with the teacher's predicted class, in %."""
    parameters: int
    nbytes: int
    """Size of the network's file in bytes."""
    seconds: float | None
    images: int | None
    """Number of training images, real or generated."""
    note: str = ""
    sd: float | None = None
    """Standard deviation of the accuracy over seeds."""
    seeds: int = 1


@dataclass(frozen=True, eq=False)
class Grid:
    """The images of one source. A cell with non-finite values has no image and stays blank."""

    name: str
    means: np.ndarray
    """(K, C, H, W), the mean image of each class."""
    samples: np.ndarray
    """(R, K, C, H, W), R random images of each class."""
    low: float
    high: float
    note: str = ""
    clipped: float | None = None
    """Share of the source's pixels outside [low, high]; None: counted over the displayed pixels."""


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    values: list[float]
    unit: str
    """Label of the y axis, such as ``loss, nats``. Lines with the same unit and step share a panel."""
    step: str = "epoch"
    """Label of the x axis, which counts 1, 2, ..."""


@dataclass(frozen=True)
class SimilarityTable:
    """Comparable divergences: measured with one network, in one form and with one augmentation."""

    caption: str
    similarities: Sequence[Similarity]
    """Most similar first."""
    unit: str = "nats"
    """Unit of the divergences; empty for none."""


@dataclass(frozen=True)
class Match:
    """How closely images of synthetic sets match the statistics stored in one network, by layer."""

    caption: str
    layers: Sequence[LayerMatches]


@dataclass(frozen=True)
class OnlineRun:
    """One online distillation."""

    name: str
    log: OnlineLog
    phases: Mapping[str, float]
    """Seconds per phase; phases do not overlap."""
    replay: str = ""
    """Kind of replay."""
    series: str = ""
    """Key shared by runs that only differ in their seed; empty for a run without such runs."""


@dataclass(frozen=True, eq=False)
class Timeline:
    """Images that a generator made from the same latents, by epoch."""

    name: str
    pixels: np.ndarray
    """(T, n, C, H, W) uint8."""
    epochs: Sequence[int]
    total: int
    """Number of saved epochs, of which T are shown."""


@dataclass(frozen=True)
class Report:
    """All contents of the page. A dict in `settings` becomes a group; the group ``versions`` comes last."""

    title: str
    summary: str
    rows: list[Row]
    grids: list[Grid]
    """Real images first."""
    lines: list[Line]
    settings: dict[str, Any]
    warnings: list[str]
    classes: tuple[str, ...]
    scatter: Sequence[tuple[str, float, float, float]] = ()
    """Name, bytes of the record, forecast leakage (AUC), accuracy in percent."""
    similarities: Sequence[SimilarityTable] = ()
    """Divergences of data sets from a network's training data, one table per way of measuring."""
    matches: Sequence[Match] = ()
    """One per network that synthetic sets were made from."""
    online: Sequence[OnlineRun] = ()
    timelines: Sequence[Timeline] = ()
    measured_on: str = ""
    """The images that accuracy and agreement were measured on, such as ``500 test images of digits``."""
    data_notes: Sequence[str] = ()
    """Sentences about that data, such as how it was split."""
