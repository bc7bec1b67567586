"""How like the training data each data set is: totals, and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .svg import INK, LEADING, Look, Words, by_layer, looks, name_ends, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..similarity import Similarity

__all__ = ["similarity_svg"]

_LEAST = 1e-6


def similarity_svg(found: Sequence[Similarity], unit: str = "nats", salt: str = "") -> str:
    """Bars of the totals and curves by layer, both on log axes, the most alike at the top; empty without data sets.

    `unit` is empty where there is none; `salt` tells one picture of a page from another.
    """
    from matplotlib.figure import Figure

    if not found:
        return ""
    words, own = Words(), looks((one.name for one in found), marked=True)
    plot = max(2.0, 0.3 * len(found), LEADING * len(found))
    total = plot + 0.85
    with style(f"datafree similarity {salt}"):
        figure = Figure((9.6, total))
        bars = figure.add_axes((0.165, 0.5 / total, 0.285, plot / total))
        curves = figure.add_axes((0.5, 0.5 / total, 0.27, plot / total))
        _bars(bars, found, own, words)
        bars.set_title(f"all layers, {unit}" if unit else "all layers, no unit", loc="left", **_TITLE)
        lines = [(one.name, [max(value, _LEAST) for value in one.by_layer.values()]) for one in found]
        by_layer(curves, lines, own)
        name_ends(curves, [(name, len(values), values[-1]) for name, values in lines if values], own, plot, words, 24)
        curves.set_title(f"by layer, {unit}" if unit else "by layer, no unit", loc="left", **_TITLE)
        label = "; ".join(f"{one.name}: {one.total:.4g}{f' {unit}' if unit else ''}" for one in found)
        return svg(figure, words, f"divergence from the training data: {label}")


_TITLE: dict[str, Any] = {"fontsize": 9, "fontweight": "bold"}


def _bars(axes: Axes, found: Sequence[Similarity], own: dict[str, Look], words: Words) -> None:
    places = list(range(len(found)))[::-1]
    totals = [max(one.total, _LEAST) for one in found]
    axes.set_xscale("log")
    low, high = min(totals) / 2, max(totals)
    axes.set_xlim(low, high * (high / low) ** 0.45)  # room for the longest number, whatever the scale spans
    for place, one, total in zip(places, found, totals):
        look = own[one.name]
        axes.barh(place, total, color=look["color"], height=0.7)
        axes.plot(total, place, marker=look["marker"], color=look["color"], markersize=7)
        axes.annotate(
            f"{one.total:.4g}", (total, place), (6, 0), textcoords="offset points", va="center", color=INK, fontsize=8
        )
    axes.set_yticks(places, [words(one.name, 22) for one in found])
    axes.set_ylim(-0.6, len(found) - 0.4)
    axes.grid(visible=False, axis="y")
