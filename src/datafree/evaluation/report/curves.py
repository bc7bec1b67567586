"""Training curves: one panel per unit, with each name at the end of its line; below the panel in a narrow plot."""

from __future__ import annotations

import math
from textwrap import wrap
from typing import TYPE_CHECKING

from .legend import NARROW, legend_below, legend_height
from .model import Line
from .svg import LEADING, Look, Words, looks, name_ends, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["curves_svg"]

_Panels = dict[tuple[str, str], list[Line]]

_WIDTH, _LEFT, _RIGHT, _TOP, _BOTTOM = 9.6, 0.72, 2.45, 0.32, 0.5  # inches
_NARROW_LEFT, _NARROW_RIGHT = 0.5, 0.12
_TITLE = 40
"""Number of characters of a narrow panel's title that fit in a line."""


def curves_svg(lines: list[Line], *, narrow: bool = False) -> str:
    """An SVG with a panel per unit and step, in order; empty without lines. Non-finite values are gaps. A `narrow` one is
    for phones.

    The y axis is logarithmic if all values are above 0 and the largest is more than 200 times the smallest.
    """
    panels: _Panels = {}
    for line in lines:
        if any(math.isfinite(value) for value in line.values):
            panels.setdefault((line.unit, line.step), []).append(line)
    if not panels:
        return ""
    words = Words()
    name_looks = looks(line.name for lines in panels.values() for line in lines)
    with style(f"datafree curves{' narrow' if narrow else ''}"):
        draw = _narrow_panels if narrow else _wide_panels
        return svg(draw(panels, name_looks, words), words, _label(panels))


def _wide_panels(panels: _Panels, name_looks: dict[str, Look], words: Words) -> Figure:
    from matplotlib.figure import Figure

    heights = [max(2.1, LEADING * len(lines)) for lines in panels.values()]
    total = sum(heights) + len(heights) * (_TOP + _BOTTOM)
    figure, top = Figure((_WIDTH, total)), total
    for (key, lines), height in zip(panels.items(), heights):
        top -= _TOP + height
        rectangle = (_LEFT / _WIDTH, top / total, (_WIDTH - _LEFT - _RIGHT) / _WIDTH, height / total)
        axes = figure.add_axes(rectangle)
        _panel(axes, key, lines, name_looks, words)
        name_ends(axes, _ends(lines), name_looks, height, words)
        top -= _BOTTOM
    return figure


def _narrow_panels(panels: _Panels, name_looks: dict[str, Look], words: Words) -> Figure:
    """Names below each panel, from the highest end of a line to the lowest."""
    from matplotlib.figure import Figure

    names = [[end[0] for end in sorted(_ends(lines), key=lambda end: -end[2])] for lines in panels.values()]
    titles = [wrap(" ".join(unit.split()), _TITLE)[:2] or [""] for unit, _ in panels]
    height, width = 1.9, NARROW - _NARROW_LEFT - _NARROW_RIGHT
    total = sum(
        _TOP + LEADING * (len(title) - 1) + height + _BOTTOM + legend_height(panel_names) + 0.12
        for title, panel_names in zip(titles, names)
    )
    figure, top = Figure((NARROW, total)), total
    for (key, lines), title, panel_names in zip(panels.items(), titles, names):
        top -= _TOP + LEADING * (len(title) - 1) + height
        axes = figure.add_axes((_NARROW_LEFT / NARROW, top / total, width / NARROW, height / total))
        _panel(axes, key, lines, name_looks, words, title)
        top -= _BOTTOM
        legend_below(figure, panel_names, name_looks, words, top=top)
        top -= legend_height(panel_names) + 0.12
    return figure


def _panel(
    axes: Axes, key: tuple[str, str], lines: list[Line], name_looks: dict[str, Look], words: Words,
    title: list[str] | None = None,
) -> None:  # fmt: skip
    """Draws the lines. A `title` of several lines starts at the figure's left edge."""
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
    scale = " (log scale)" if log else ""
    if title is None:
        axes.set_title(words(unit + scale, 60), loc="left", fontsize=9, fontweight="bold")
    else:
        for row, text in enumerate(reversed([*title[:-1], title[-1] + scale])):
            right, up = 0.08 - _NARROW_LEFT, 0.08 + LEADING * row  # inches from the upper left corner
            axes.annotate(
                words(text, 60), (0, 1), (72 * right, 72 * up), xycoords="axes fraction",
                textcoords="offset points", fontsize=9, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
    axes.set_xlabel(words(step, 40))


def _ends(lines: list[Line]) -> list[tuple[str, float, float]]:
    """Name and position (x, y) of each line's last finite value."""
    lasts = (max(i for i, value in enumerate(line.values) if math.isfinite(value)) for line in lines)
    return [(line.name, last + 1, line.values[last]) for line, last in zip(lines, lasts)]


def _label(panels: _Panels) -> str:
    """The curves as text, for screen readers."""
    sentences = []
    for (unit, step), lines in panels.items():
        ends = (f"{line.name} from {line.values[0]:.4g} to {line.values[-1]:.4g}" for line in lines)
        sentences.append(f"{unit}, by {step}: {', '.join(ends)}.")
    return "Curves. " + " ".join(sentences)
