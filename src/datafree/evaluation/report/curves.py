"""Training curves: one panel per unit, with each name at the end of its line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .model import Line
from .svg import LEADING, Look, Words, looks, name_ends, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curves_svg"]

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 9.6, 0.72, 2.45, 0.32, 0.5  # inches


def curves_svg(lines: list[Line]) -> str:
    """An SVG with a panel per unit and step, in order; empty without lines. Non-finite values are gaps.

    The y axis is logarithmic if all values are above 0 and the largest is more than 200 times the smallest.
    """
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        if any(math.isfinite(value) for value in line.values):
            panels.setdefault((line.unit, line.step), []).append(line)
    if not panels:
        return ""
    words = Words()
    heights = [max(2.1, LEADING * len(panel_lines)) for panel_lines in panels.values()]
    total = sum(heights) + len(heights) * (_TOP + _BOTTOM)
    with style("datafree curves"):
        figure, top = Figure((_WIDTH, total)), total
        name_looks = looks(line.name for lines in panels.values() for line in lines)
        for (key, panel_lines), height in zip(panels.items(), heights):
            top -= _TOP + height
            rectangle = (_LEFT / _WIDTH, top / total, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, height / total)
            _panel(figure.add_axes(rectangle), key, panel_lines, name_looks, height, words)
            top -= _BOTTOM
        return svg(figure, words, _label(panels))


def _panel(
    axes: Axes, key: tuple[str, str], lines: list[Line], name_looks: dict[str, Look], height: float, words: Words
) -> None:
    from matplotlib.ticker import MaxNLocator

    unit, step = key
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    log = min(finite) > 0 and max(finite) > 200 * min(finite)
    if log:
        axes.set_yscale("log")
    for line in lines:
        single = sum(math.isfinite(value) for value in line.values) == 1
        axes.plot(
            range(1, len(line.values) + 1),
            line.values,
            marker="o" if single else "",
            markersize=4,
            **name_looks[line.name],
        )
    longest = max(len(line.values) for line in lines)
    axes.set_xlim(1 if longest > 1 else 0.5, longest if longest > 1 else 1.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_title(words(unit + (" (log scale)" if log else ""), 60), loc="left", fontsize=9, fontweight="bold")
    axes.set_xlabel(words(step, 40))
    name_ends(axes, _ends(lines), name_looks, height, words)


def _ends(lines: list[Line]) -> list[tuple[str, float, float]]:
    """Name and position (x, y) of each line's last finite value."""
    lasts = (max(i for i, value in enumerate(line.values) if math.isfinite(value)) for line in lines)
    return [(line.name, last + 1, line.values[last]) for line, last in zip(lines, lasts)]


def _label(panels: dict[tuple[str, str], list[Line]]) -> str:
    """The curves as text, for screen readers."""
    sentences = []
    for (unit, step), lines in panels.items():
        ends = (f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
        sentences.append(f"{unit}, by {step}: {', '.join(ends)}.")
    return "Curves. " + " ".join(sentences)
