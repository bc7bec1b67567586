"""What images match of the statistics that a network stored: means and standard deviations, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .svg import LEADING, Words, by_layer, looks, name_ends, style, svg

if TYPE_CHECKING:
    from ..similarity import LayerMatches

__all__ = ["matched_svg"]

_LEAST = 1e-4
_GREY = "#808890"


def matched_svg(found: Sequence[LayerMatches], salt: str = "") -> str:
    """Two panels with a line for each set on log axes, references in grey; empty without sets."""
    from matplotlib.figure import Figure

    if not found:
        return ""
    words, own = Words(), looks((one.name for one in found if not one.reference), marked=True)
    own |= {one.name: {"color": _GREY, "linewidth": 1.5, "zorder": 1.5} for one in found if one.reference}
    plot = max(2.0, LEADING * len(found))
    total = plot + 0.85
    means = [(one.name, [max(value, _LEAST) for value in one.mean]) for one in found]
    spreads = [(one.name, [max(value, _LEAST) for value in one.spread]) for one in found]
    with style(f"datafree matched {salt}"):
        figure = Figure((9.6, total))
        left = figure.add_axes((0.065, 0.5 / total, 0.32, plot / total))
        right = figure.add_axes((0.45, 0.5 / total, 0.32, plot / total), sharey=left)
        by_layer(left, means, own)
        left.set_title("mean: (m \u2212 \u03bc) / \u03c3", loc="left", fontsize=9, fontweight="bold")
        by_layer(right, spreads, own)
        right.set_title("standard deviation: s / \u03c3 \u2212 1", loc="left", fontsize=9, fontweight="bold")
        name_ends(right, [(name, len(values), values[-1]) for name, values in spreads], own, plot, words, 24)
        return svg(figure, words, _label(found))


def _label(found: Sequence[LayerMatches]) -> str:
    """All lines in words, for those who cannot see them: the mean over layers."""
    told = (
        f"{one.name}: means off by {sum(one.mean) / len(one.mean):.2g} standard deviations, "
        f"standard deviations by {100 * sum(one.spread) / len(one.spread):.2g}%"
        for one in found
    )
    return f"Statistics matched and missed, mean over layers. {'; '.join(told)}."
