"""Similarity of data sets to the training data: totals and by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .legend import NARROW, legend_below, legend_height
from .svg import INK, LEADING, Look, Words, looks, name_ends, plot_by_layer, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..similarity import Similarity

__all__ = ["similarity_svg"]

_LEAST = 1e-6


def similarity_svg(
    similarities: Sequence[Similarity], unit: str = "nats", salt: str = "", *, narrow: bool = False
) -> str:
    """An SVG with bars of the totals and curves by layer, on log axes, most similar first; empty without data sets.

    `unit` is empty for none; `salt` must differ between the plots of a page. In a `narrow` one, for phones,
    the curves are below the bars.
    """
    from matplotlib.figure import Figure

    if not similarities:
        return ""
    words, name_looks = Words(), looks((entry.name for entry in similarities), marked=True)
    names = [entry.name for entry in similarities]
    plot = max(2.0, 0.3 * len(similarities), LEADING * len(similarities))
    upper = max(0.5, 0.3 * len(similarities))
    total = upper + 3.6 + legend_height(names) if narrow else plot + 0.85
    with style(f"datafree similarity {salt}{' narrow' if narrow else ''}"):
        figure = Figure((NARROW if narrow else 9.6, total))
        if narrow:
            bars = figure.add_axes((0.4, 1 - (upper + 0.35) / total, 0.56, upper / total))
            curves = figure.add_axes((0.16, 1 - (upper + 3.1) / total, 0.8, 1.9 / total))
        else:
            bars = figure.add_axes((0.165, 0.5 / total, 0.285, plot / total))
            curves = figure.add_axes((0.5, 0.5 / total, 0.27, plot / total))
        _bars(bars, similarities, name_looks, words, longest=19 if narrow else 22)
        bars.set_title(f"all layers, {unit}" if unit else "all layers, no unit", loc="left", **_TITLE)
        lines = [(entry.name, [max(value, _LEAST) for value in entry.by_layer.values()]) for entry in similarities]
        plot_by_layer(curves, lines, name_looks)
        if narrow:
            legend_below(figure, names, name_looks, words, top=legend_height(names))
        else:
            ends = [(name, len(values), values[-1]) for name, values in lines if values]
            name_ends(curves, ends, name_looks, plot, words, 24)
        curves.set_title(f"by layer, {unit}" if unit else "by layer, no unit", loc="left", **_TITLE)
        label = "; ".join(f"{entry.name}: {entry.total:.4g}{f' {unit}' if unit else ''}" for entry in similarities)
        return svg(figure, words, f"divergence from the training data: {label}")


_TITLE: dict[str, Any] = {"fontsize": 9, "fontweight": "bold"}


def _bars(
    axes: Axes, similarities: Sequence[Similarity], name_looks: dict[str, Look], words: Words, longest: int
) -> None:
    places = list(range(len(similarities)))[::-1]
    totals = [max(entry.total, _LEAST) for entry in similarities]
    axes.set_xscale("log")
    low, high = min(totals) / 2, max(totals)
    axes.set_xlim(low, high * (high / low) ** 0.45)  # room for the longest number on any scale
    for place, entry, total in zip(places, similarities, totals):
        look = name_looks[entry.name]
        axes.barh(place, total, color=look["color"], height=0.7)
        axes.plot(total, place, marker=look["marker"], color=look["color"], markersize=7)
        axes.annotate(
            f"{entry.total:.4g}", (total, place), (6, 0), textcoords="offset points", va="center", color=INK, fontsize=8
        )
    axes.set_yticks(places, [words(entry.name, longest) for entry in similarities])
    axes.set_ylim(-0.6, len(similarities) - 0.4)
    axes.grid(visible=False, axis="y")
