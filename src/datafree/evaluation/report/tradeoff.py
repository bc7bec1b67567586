"""What a record costs and buys: accuracy against its bytes, coloured by how much it may leak."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .numbers import size
from .svg import INK, Words, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["tradeoff_svg"]

Point = tuple[str, float, float, float]
Box = tuple[float, float, float, float]

_WIDTH, _HEIGHT = 9.6, 4.3
_PLOT = (0.075, 0.13, 0.79, 0.8)
_LETTER, _LINE = 4.9, 12.0  # points that a letter and a line of the labels take


def tradeoff_svg(points: Sequence[Point]) -> str:
    """A scatter of (name, bytes of the record, forecast leakage AUC, accuracy in %); empty without points.

    Bytes are on a log axis, on which no record at all gets a place of its own at the left, marked 0. A point whose
    leakage is not finite is hollow; one whose accuracy or size is not finite is left out.
    """
    from matplotlib.figure import Figure

    points = [point for point in points if math.isfinite(point[3]) and math.isfinite(point[1])]
    if not points:
        return ""
    words = Words()
    with style("datafree tradeoff"):
        figure = Figure((_WIDTH, _HEIGHT))
        axes = figure.add_axes(_PLOT)
        xs = _bytes_axis(axes, [point[1] for point in points])
        _dots(axes, xs, points)
        axes.set_xlabel("size of the record (log scale)")
        axes.set_title("accuracy, %", loc="left", fontsize=9, fontweight="bold")
        _names(axes, xs, points, words)
        return svg(figure, words, _label(points))


def _bytes_axis(axes: Axes, sizes: list[float]) -> list[float]:
    """Sets log10 limits and ticks; returns where each size lies."""
    logs = [math.log10(value) for value in sizes if value >= 1]
    low, high = (min(logs), max(logs)) if logs else (3.0, 3.0)
    ticks = list(range(math.floor(low), math.ceil(high) + 1))
    step = -(-len(ticks) // 8)
    shown = [(float(tick), size(10**tick).replace(".0 ", " ")) for tick in ticks[::step]]
    nothing = low - max(0.7, (high - low) / 5)
    xs = [math.log10(value) if value >= 1 else nothing for value in sizes]
    if min(xs) == nothing:
        shown = [(nothing, "0"), *(tick for tick in shown if tick[0] > nothing + 0.3)] if logs else [(nothing, "0")]
    pad = max(0.3, (max(xs) - min(xs)) * 0.08)
    left, right = min(xs) - pad, max(xs) + pad * 2
    if not any(left <= tick <= right for tick, _ in shown):
        shown = [((left + right) / 2, size(10 ** ((left + right) / 2)))]
    axes.set_xticks([tick for tick, _ in shown], [name for _, name in shown])
    axes.set_xlim(left, right)
    return xs


def _dots(axes: Axes, xs: list[float], points: list[Point]) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm

    bounds = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    colours, norm = colormaps["viridis"].resampled(5), BoundaryNorm(bounds, 5)
    for x, (_, _, leakage, accuracy) in zip(xs, points):
        face = colours(norm(min(max(leakage, 0.5), 0.999))) if math.isfinite(leakage) else "none"
        axes.plot(x, accuracy, "o", markersize=8, markerfacecolor=face, markeredgecolor=INK, markeredgewidth=0.8)
    ys = [point[3] for point in points]
    pad = max(1.0, (max(ys) - min(ys)) * 0.12)
    axes.set_ylim(min(ys) - pad, max(ys) + pad)
    figure = axes.figure
    side = figure.add_axes((_PLOT[0] + _PLOT[2] + 0.035, _PLOT[1], 0.018, _PLOT[3]))
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=side, ticks=bounds)
    bar.set_label("forecast leakage, AUC (0.5: none)")


def _names(axes: Axes, xs: list[float], points: list[Point], words: Words) -> None:
    """Name and leakage beside each point, where nothing else lies."""
    texts = [f"{_short(name)} · {leak:.2f}" if math.isfinite(leak) else _short(name) for name, _, leak, _ in points]
    scale = 72 / axes.figure.dpi
    spots = [tuple(scale * axes.transData.transform((x, point[3]))) for x, point in zip(xs, points)]
    left, right = (scale * axes.transAxes.transform((share, 0))[0] for share in (0, 1))
    taken: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    for index in sorted(range(len(points)), key=lambda i: (-points[i][3], i)):
        box, side = _place(spots[index], len(texts[index]) * _LETTER, taken, (left, right + 8))
        taken.append(box)
        x = box[0] if side == "left" else box[2]
        offset = (x - spots[index][0], (box[1] + box[3]) / 2 - spots[index][1])
        axes.annotate(
            words(texts[index], 60), (xs[index], points[index][3]), offset, textcoords="offset points", ha=side,
            va="center_baseline", color=INK, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.35, "linewidth": 0.5, "shrinkB": 4, "shrinkA": 0}
            if abs(offset[1]) > _LINE else None,
        )  # fmt: skip


def _short(name: str) -> str:
    return name if len(name) <= 30 else name[:29].rstrip() + "…"


def _place(spot: tuple[float, float], width: float, taken: list[Box], bounds: tuple[float, float]) -> tuple[Box, str]:
    """The nearest free box to the right or left of the spot, within bounds, and which of its edges faces the spot."""
    x, y = spot
    boxes: list[tuple[Box, str]] = []
    for up in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5):
        low = y + up * _LINE - _LINE / 2
        boxes.append(((x + 9, low, x + 9 + width, low + _LINE), "left"))
        boxes.append(((x - 9 - width, low, x - 9, low + _LINE), "right"))
    inside = [own for own in boxes if own[0][0] >= bounds[0] and own[0][2] <= bounds[1]] or boxes
    return next((own for own in inside if not any(_meet(own[0], other) for other in taken)), inside[0])


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _label(points: list[Point]) -> str:
    """All points in words, for those who cannot see them."""
    told = (
        f"{name}: {accuracy:.2f}% with {size(nbytes)}, leakage "
        + (f"{leakage:.2f}" if math.isfinite(leakage) else "not measured")
        for name, nbytes, leakage, accuracy in points
    )
    return "Accuracy against the size of the record. " + "; ".join(told) + "."
