"""How like the training data each data set is: totals, and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .svg import COLOURS, INK, STYLES, Words, style, svg

if TYPE_CHECKING:
    from ..likeness import Similarity

__all__ = ["similarity_svg"]

_LEAST = 1e-6


def similarity_svg(found: Sequence[Similarity]) -> str:
    """Bars of the totals and curves by layer, both on log axes, the most alike at the top; empty without data sets."""
    from matplotlib.figure import Figure

    if not found:
        return ""
    words = Words()
    with style("datafree similarity"):
        figure = Figure((9.6, 0.9 + 0.34 * max(len(found), 6)))
        bars, curves = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1, 1.3]})
        figure.subplots_adjust(left=0.2, right=0.98, top=0.88, bottom=0.17, wspace=0.22)
        places = list(range(len(found)))[::-1]
        for place, own, colour in zip(places, found, _colours(len(found))):
            bars.barh(place, max(own.total, _LEAST), color=colour, height=0.7)
            bars.annotate(f" {own.total:.4g}", (max(own.total, _LEAST), place), va="center", color=INK, fontsize=8)
        totals = [max(own.total, _LEAST) for own in found]
        bars.set_xscale("log")
        bars.set_xlim(min(totals) / 2, max(totals) * 6)
        bars.set_yticks(places, [words(own.name, 26) for own in found])
        bars.set_title("divergence, all layers", loc="left", fontsize=9, fontweight="bold")
        for index, (own, colour) in enumerate(zip(found, _colours(len(found)))):
            values = [max(value, _LEAST) for value in own.by_layer.values()]
            line = STYLES[index // len(COLOURS) % len(STYLES)]
            curves.plot(range(1, len(values) + 1), values, color=colour, linestyle=line, linewidth=1.4)
        curves.set_yscale("log")
        curves.set_xlabel("layer, from the input on")
        curves.set_title("by layer", loc="left", fontsize=9, fontweight="bold")
        label = "; ".join(f"{own.name}: {own.total:.4g}" for own in found)
        return svg(figure, words, f"divergence from the training data: {label}")


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
