"""Time by phase of online runs, as stacked bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import numbers
from .legend import NARROW
from .model import OnlineRun
from .online import OTHER
from .svg import COLOURS, INK, LEADING, Words, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["phases_svg"]


def phases_svg(runs: Sequence[OnlineRun], *, narrow: bool = False) -> str:
    """An SVG with a stacked bar of seconds per run, in the order of the phases; empty if no run measured any. A `narrow` one
    is for phones.
    """
    from matplotlib.figure import Figure

    runs = [run for run in runs if math.fsum(run.phases.values()) > 0]
    if not runs:
        return ""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.phases) if name != OTHER]
    names += [OTHER] if any(OTHER in run.phases for run in runs) else []
    words, plot = Words(), max(0.6, 0.34 * len(runs))
    columns, width, left, share = (2, NARROW, 0.37, 0.57) if narrow else (4, 9.6, 0.2, 0.72)
    legend = LEADING * 1.4 * -(-len(names) // columns)
    total = plot + legend + 0.75
    with style(f"datafree phases{' narrow' if narrow else ''}"):
        figure = Figure((width, total))
        axes = figure.add_axes((left, 0.5 / total, share, plot / total))
        _stack(axes, runs, names, words, narrow)
        first, step = (0.02 - left / share, 0.5 / share) if narrow else (0.0, 1 / columns)
        for index, name in enumerate(names):
            row, column = divmod(index, columns)
            x, y = first + column * step, 1 + (0.14 + LEADING * 1.4 * row) / plot
            outside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
            axes.plot(x + 0.072 / (share * width), y, "s", color=_colour(index, name), markersize=7, **outside)
            axes.text(
                x + 0.175 / (share * width),
                y,
                words(name, 26),
                color=INK,
                va="center_baseline",
                transform=axes.transAxes,
            )
        return svg(figure, words, _phases_label(runs))


def _stack(axes: Axes, runs: Sequence[OnlineRun], names: Sequence[str], words: Words, narrow: bool) -> None:
    """Draws the bars in a unit that suits the largest. A share is written in its bar if there is room."""
    longest = max(math.fsum(run.phases.values()) for run in runs)
    unit, per = ("hours", 3600) if longest >= 2 * 3600 else ("minutes", 60) if longest >= 120 else ("seconds", 1)
    for index, name in enumerate(names):
        colour = _colour(index, name)
        for place, run in enumerate(reversed(runs)):
            seconds, total = run.phases.get(name, 0.0), math.fsum(run.phases.values())
            start = math.fsum(run.phases.get(earlier, 0.0) for earlier in names[:index])
            axes.barh(place, seconds / per, left=start / per, height=0.62, color=colour)
            if seconds > (0.17 if narrow else 0.06) * longest:
                middle = (start + seconds / 2) / per
                axes.text(
                    middle,
                    place,
                    f"{100 * seconds / total:.0f} %",
                    ha="center",
                    va="center",
                    color="#ffffff",
                    fontsize=8,
                )
    for place, run in enumerate(reversed(runs)):
        total = math.fsum(run.phases.values())
        axes.annotate(
            numbers.duration(total), (total / per, place), (5, 0), textcoords="offset points", va="center", color=INK,
            fontsize=8,
        )  # fmt: skip
    axes.set_xlim(0, (1.3 if narrow else 1.1) * longest / per)
    axes.set_ylim(-0.5, len(runs) - 0.5)
    axes.set_yticks(range(len(runs)), [words(run.name, 19 if narrow else 28) for run in reversed(runs)])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(unit)


def _colour(index: int, name: str) -> str:
    return "#808890" if name == OTHER else COLOURS[index % len(COLOURS)]


def _phases_label(runs: Sequence[OnlineRun]) -> str:
    """The plot as text, for screen readers."""
    sentences = (
        f"{run.name}: {', '.join(f'{name} {numbers.duration(seconds)}' for name, seconds in run.phases.items())}"
        for run in runs
    )
    return f"Where the time went. {'; '.join(sentences)}."
