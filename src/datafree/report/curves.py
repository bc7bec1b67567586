"""Training curves: one panel for each unit, every line named where it ends."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .model import Line
from .svg import COLOURS, INK, STYLES, Words, spread, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves_svg"]

Look = dict[str, Any]

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 9.6, 0.72, 2.45, 0.32, 0.5  # inches
_LEADING = 0.18


def curves_svg(lines: list[Line]) -> str:
    """An SVG with a panel for each unit (and kind of step), in their order; empty without lines. Gaps where not finite.

    The y axis is logarithmic where all values are above 0 and the largest is more than 200 times the smallest.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if any(math.isfinite(value) for value in line.values):
            panels.setdefault((line.unit, line.step), []).append(line)
    if not panels:
        return ""
    words = Words()
    heights = [max(2.1, _LEADING * len(own)) for own in panels.values()]
    total = sum(heights) + len(heights) * (_TOP + _BOTTOM)
    with style("datafree curves"):
        figure, top = Figure((_WIDTH, total)), total
        looks = _looks(own for lines in panels.values() for own in lines)
        for (key, own), height in zip(panels.items(), heights):
            top -= _TOP + height
            box = (_LEFT / _WIDTH, top / total, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, height / total)
            _panel(figure.add_axes(box), key, own, looks, height, words)
            top -= _BOTTOM
        return svg(figure, words, _label(panels))


def _looks(lines: Iterable[Line]) -> dict[str, Look]:
    """One look for each name, in every panel the same."""
    names = dict.fromkeys(line.name for line in lines)
    return {
        name: {
            "color": COLOURS[i % len(COLOURS)],
            "linestyle": STYLES[i // len(COLOURS) % len(STYLES)],
            "linewidth": 1.5,
        }
        for i, name in enumerate(names)
    }


def _panel(
    axes: Axes, key: tuple[str, str], lines: list[Line], looks: dict[str, Look], height: float, words: Words
) -> None:
    from matplotlib.ticker import MaxNLocator

    unit, step = key
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    log = min(finite) > 0 and max(finite) > 200 * min(finite)
    if log:
        axes.set_yscale("log")
    for line in lines:
        alone = sum(math.isfinite(value) for value in line.values) == 1
        axes.plot(
            range(1, len(line.values) + 1), line.values, marker="o" if alone else "", markersize=4, **looks[line.name]
        )
    longest = max(len(line.values) for line in lines)
    axes.set_xlim(1 if longest > 1 else 0.5, longest if longest > 1 else 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_title(words(unit + (" (log scale)" if log else ""), 60), loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel(words(step, 40))
    _names(axes, lines, looks, height, words)


def _names(axes: Axes, lines: list[Line], looks: dict[str, Look], height: float, words: Words) -> None:
    """The legend: each name to the right of the line's end, in the page's ink beside a piece of the line."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = []
    for line in lines:
        last = max(i for i, value in enumerate(line.values) if math.isfinite(value))
        ends.append(to_axes.transform((last + 1, line.values[last])))
    places = spread([float(y) for _, y in ends], _LEADING / height, 0.0, 1.0)
    outside = {"transform": axes.transAxes, "clip_on": False}
    for line, (x, y), place in zip(lines, ends, places):
        look = looks[line.name]
        axes.plot((x, 1.022), (y, place), color=look["color"], linewidth=0.5, alpha=0.7, **outside)
        axes.plot((1.022, 1.062), (place, place), **look, **outside)
        axes.text(1.072, place, words(line.name), color=INK, va="center_baseline", transform=axes.transAxes)


def _label(panels: dict[tuple[str, str], list[Line]]) -> str:
    """All curves in one sentence each, for those who cannot see them."""
    sentences = []
    for (unit, step), lines in panels.items():
        ends = (f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
        sentences.append(f"{unit}, by {step}: {', '.join(ends)}.")
    return "Curves. " + " ".join(sentences)
