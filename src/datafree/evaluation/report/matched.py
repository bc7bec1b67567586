"""How closely images match a network's stored means and standard deviations, by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .legend import NARROW, legend_below, legend_height
from .svg import LEADING, Words, looks, name_ends, plot_by_layer, style, svg

if TYPE_CHECKING:
    from ..similarity import LayerMatches

__all__ = ["matched_svg"]

_LEAST = 1e-4
_GREY = "#808890"


def matched_svg(sets: Sequence[LayerMatches], salt: str = "", *, narrow: bool = False) -> str:
    """An SVG with two panels and a line per set on log axes, references in grey; empty without sets. In a `narrow` one, for
    phones, the panels are below each other.
    """
    from matplotlib.figure import Figure

    if not sets:
        return ""
    words, name_looks = Words(), looks((entry.name for entry in sets if not entry.reference), marked=True)
    name_looks |= {entry.name: {"color": _GREY, "linewidth": 1.5, "zorder": 1.5} for entry in sets if entry.reference}
    names = [entry.name for entry in sets]
    plot = 1.9 if narrow else max(2.0, LEADING * len(sets))
    total = 2 * (plot + 0.85) + legend_height(names) if narrow else plot + 0.85
    means = [(entry.name, [max(value, _LEAST) for value in entry.mean]) for entry in sets]
    spreads = [(entry.name, [max(value, _LEAST) for value in entry.spread]) for entry in sets]
    with style(f"datafree matched {salt}{' narrow' if narrow else ''}"):
        figure = Figure((NARROW if narrow else 9.6, total))
        if narrow:
            places = [(0.16, 1 - y / total, 0.8, plot / total) for y in (plot + 0.35, 2 * plot + 1.2)]
        else:
            places = [(x, 0.5 / total, 0.32, plot / total) for x in (0.065, 0.45)]
        mean_axes = figure.add_axes(places[0])
        spread_axes = figure.add_axes(places[1], sharey=mean_axes)
        plot_by_layer(mean_axes, means, name_looks)
        mean_axes.set_title("mean: (m \u2212 \u03bc) / \u03c3", loc="left", fontsize=9, fontweight="bold")
        plot_by_layer(spread_axes, spreads, name_looks)
        spread_axes.set_title("standard deviation: s / \u03c3 \u2212 1", loc="left", fontsize=9, fontweight="bold")
        if narrow:
            legend_below(figure, names, name_looks, words, top=legend_height(names))
        else:
            ends = [(name, len(values), values[-1]) for name, values in spreads]
            name_ends(spread_axes, ends, name_looks, plot, words, 24)
        return svg(figure, words, _label(sets))


def _label(sets: Sequence[LayerMatches]) -> str:
    """The plot as text, for screen readers: means over layers."""
    sentences = (
        f"{entry.name}: means off by {sum(entry.mean) / len(entry.mean):.2g} standard deviations, "
        f"standard deviations by {100 * sum(entry.spread) / len(entry.spread):.2g}%"
        for entry in sets
    )
    return f"Match of statistics, mean over layers. {'; '.join(sentences)}."
