"""Accuracy against the time for images and training: a panel per student, a line per method, a light one per seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..report.legend import NARROW, legend_below, legend_height
from ..report.numbers import duration
from ..report.svg import LEADING, Look, Words, looks, name_ends, style, svg
from .cell import CellResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["time_svg"]

Curve = Sequence[tuple[float, float]]
_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM, _HEIGHT = 9.6, 0.72, 2.45, 0.32, 0.55, 3.0  # inches
_NARROW_LEFT, _NARROW_RIGHT, _NARROW_HEIGHT = 0.5, 0.16, 2.3
LOG_FROM = 20
"""Ratio of the latest to the earliest time from which the axis is logarithmic."""


def time_svg(results: Sequence[CellResult], unit: str, *, narrow: bool = False) -> str:
    """An SVG with a panel per student; empty without results. `unit` names the time, such as `CPU time`."""
    from matplotlib.figure import Figure

    if not results:
        return ""
    students = list(dict.fromkeys(result.student for result in results))
    names = list(dict.fromkeys(result.method for result in results))
    words, name_looks = Words(), looks(names)
    width, left, right, height = (
        (NARROW, _NARROW_LEFT, _NARROW_RIGHT, _NARROW_HEIGHT) if narrow else (_WIDTH, _LEFT, _RIGHT, _HEIGHT)
    )
    legend = legend_height(names) + 0.12 if narrow else 0.0
    height = height if narrow else max(height, LEADING * len(names))
    total = len(students) * (_TOP + height + _BOTTOM + legend)
    with style(f"datafree comparison{' narrow' if narrow else ''}"):
        figure, top = Figure((width, total)), total
        for student in students:
            curves = _curves([result for result in results if result.student == student])
            top -= _TOP + height
            axes = figure.add_axes((left / width, top / total, (width - left - right) / width, height / total))
            _panel(axes, curves, name_looks, unit, most_ticks=4 if narrow else 8)
            axes.set_title(words(f"{student}: accuracy, %", 40), loc="left", fontsize=9, fontweight="bold")
            ends = [(name, *_mean(seeds)[-1]) for name, seeds in curves.items()]
            if narrow:
                legend_below(figure, [end[0] for end in ends], name_looks, words, top=top - _BOTTOM)
            else:
                name_ends(axes, ends, name_looks, height, words)
            top -= _BOTTOM + legend
        return svg(figure, words, _label(results))


def _curves(results: Sequence[CellResult]) -> dict[str, list[Curve]]:
    """Method -> the curves of its seeds."""
    curves: dict[str, list[Curve]] = {}
    for result in results:
        curves.setdefault(result.method, []).append(result.curve)
    return curves


def _mean(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Mean time and accuracy by epoch, as far as all seeds go."""
    return [
        (statistics.fmean(time for time, _ in points), statistics.fmean(value for _, value in points))
        for points in zip(*curves)
    ]


def _panel(axes: Axes, curves: dict[str, list[Curve]], name_looks: dict[str, Look], unit: str, most_ticks: int) -> None:
    times = [max(time, 1e-3) for seeds in curves.values() for curve in seeds for time, _ in curve]
    log = max(times) > LOG_FROM * min(times)
    if log:
        axes.set_xscale("log")
    for name, seeds in curves.items():
        look = name_looks[name]
        for curve in seeds if len(seeds) > 1 else ():
            axes.plot(*zip(*curve), color=look["color"], linewidth=0.6, alpha=0.35)
        mean = _mean(seeds)
        axes.plot(*zip(*mean), marker="o" if len(mean) == 1 else "", markersize=4, **look)
    _time_axis(axes, log, min(times), max(times), most_ticks)
    axes.set_xlabel(f"{unit} for images and training{' (log scale)' if log else ''}")


TICKS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18000, 36000, 86400,
    172800, 432000,
)  # fmt: skip
"""Round times in seconds."""


def _time_axis(axes: Axes, log: bool, first: float, last: float, most: int) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator

    low, high = (first / 1.1, last * 1.1) if log else (0.0, last * 1.03)
    axes.set_xlim(low, high)
    if log:
        ticks = [tick for tick in TICKS if low <= tick <= high]
        ticks = ticks[:: -(-len(ticks) // most)] if ticks else [last]
    else:
        step = next((tick for tick in TICKS if tick * most >= high), high / most)
        ticks = [step * count for count in range(int(high / step) + 1)]
    axes.set_xticks(ticks, [_short(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(seconds: float) -> str:
    """`0.5 s`, `20 s`, `2 min`, `1 h`."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes = seconds / 60
    return f"{minutes:g} min" if minutes < 60 else f"{minutes / 60:g} h"


def _label(results: Sequence[CellResult]) -> str:
    """The plot as text, for screen readers."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for result in results:
        groups.setdefault((result.student, result.method), []).append(result)
    sentences = [
        f"{student} by {method}: {statistics.fmean(cell.accuracy for cell in cells):.2f} % after "
        f"{duration(statistics.fmean(cell.seconds for cell in cells))}"
        for (student, method), cells in groups.items()
    ]
    return f"Accuracy against time. {'; '.join(sentences)}."
