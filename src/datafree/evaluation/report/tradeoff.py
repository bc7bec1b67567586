"""Scatter plot of accuracy against the record's size, coloured by its forecast leakage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .legend import NARROW
from .numbers import size
from .svg import INK, Words, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["tradeoff_svg"]

Point = tuple[str, float, float, float]
Box = tuple[float, float, float, float]

_WIDTH, _HEIGHT = 9.6, 4.3
_PLOT = (0.075, 0.13, 0.79, 0.8)
_BAR = (0.9, 0.13, 0.018, 0.8)
_NARROW_HEIGHT = 3.8
_NARROW_PLOT = (0.13, 0.31, 0.83, 0.62)
_NARROW_BAR = (0.13, 0.12, 0.83, 0.03)
_LETTER, _LINE = 4.9, 12.0  # width of a letter and height of a line in labels, in points


def tradeoff_svg(points: Sequence[Point], *, narrow: bool = False) -> str:
    """A scatter of (name, bytes of the record, forecast leakage AUC, accuracy in %); empty without points.

    The size axis is logarithmic, with a separate position 0 at the left for no record. Points with a non-finite leakage
    are hollow; points with a non-finite accuracy or size are omitted. A `narrow` one is for phones.
    """
    from matplotlib.figure import Figure

    points = [point for point in points if math.isfinite(point[3]) and math.isfinite(point[1])]
    if not points:
        return ""
    words = Words()
    with style(f"datafree tradeoff{' narrow' if narrow else ''}"):
        figure = Figure((NARROW, _NARROW_HEIGHT) if narrow else (_WIDTH, _HEIGHT))
        axes = figure.add_axes(_NARROW_PLOT if narrow else _PLOT)
        xs = _bytes_axis(axes, [point[1] for point in points], most=4 if narrow else 8)
        _dots(axes, xs, points, narrow)
        axes.set_xlabel("size of the record (log scale)")
        axes.set_title("accuracy, %", loc="left", fontsize=9, fontweight="bold")
        _names(axes, xs, points, words, longest=14 if narrow else 30)
        return svg(figure, words, _label(points))


def _bytes_axis(axes: Axes, sizes: list[float], most: int) -> list[float]:
    """Sets log10 limits and at most `most` ticks. Returns the x position of each size."""
    logs = [math.log10(value) for value in sizes if value >= 1]
    low, high = (min(logs), max(logs)) if logs else (3.0, 3.0)
    ticks = list(range(math.floor(low), math.ceil(high) + 1))
    step = -(-len(ticks) // most)
    ticks_shown = [(float(tick), size(10**tick).replace(".0 ", " ")) for tick in ticks[::step]]
    zero_x = low - max(0.7, (high - low) / 5)
    xs = [math.log10(value) if value >= 1 else zero_x for value in sizes]
    if min(xs) == zero_x:
        ticks_shown = (
            [(zero_x, "0"), *(tick for tick in ticks_shown if tick[0] > zero_x + 0.3)] if logs else [(zero_x, "0")]
        )
    pad = max(0.3, (max(xs) - min(xs)) * 0.08)
    x_min, x_max = min(xs) - pad, max(xs) + pad * 2
    if not any(x_min <= tick <= x_max for tick, _ in ticks_shown):
        ticks_shown = [((x_min + x_max) / 2, size(10 ** ((x_min + x_max) / 2)))]
    axes.set_xticks([tick for tick, _ in ticks_shown], [name for _, name in ticks_shown])
    axes.set_xlim(x_min, x_max)
    return xs


def _dots(axes: Axes, xs: list[float], points: list[Point], narrow: bool) -> None:
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
    bar_axes = figure.add_axes(_NARROW_BAR if narrow else _BAR)
    orientation = "horizontal" if narrow else "vertical"
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=bar_axes, ticks=bounds, orientation=orientation)
    bar.set_label("forecast leakage, AUC (0.5: none)")


def _names(axes: Axes, xs: list[float], points: list[Point], words: Words, longest: int) -> None:
    """Writes name and leakage next to each point, without overlaps."""
    short = [_short(name, longest) for name, _, _, _ in points]
    texts = [f"{name} · {leak:.2f}" if math.isfinite(leak) else name for name, (_, _, leak, _) in zip(short, points)]
    scale = 72 / axes.figure.dpi
    spots = [tuple(scale * axes.transData.transform((x, point[3]))) for x, point in zip(xs, points)]
    x_min, x_max = (scale * axes.transAxes.transform((share, 0))[0] for share in (0, 1))
    title_x, title_y = (scale * place for place in axes.transAxes.transform((0, 1)))
    occupied: list[Box] = [(x - 5, y - 5, x + 5, y + 5) for x, y in spots]
    occupied.append((title_x, title_y, title_x + 14 * _LETTER, title_y + 1.5 * _LINE))
    for index in sorted(range(len(points)), key=lambda i: (-points[i][3], i)):
        label_box, side = _free_box(spots[index], len(texts[index]) * _LETTER, occupied, (x_min, x_max + 8))
        occupied.append(label_box)
        x = label_box[0] if side == "left" else label_box[2]
        offset = (x - spots[index][0], (label_box[1] + label_box[3]) / 2 - spots[index][1])
        axes.annotate(
            words(texts[index], 60), (xs[index], points[index][3]), offset, textcoords="offset points", ha=side,
            va="center_baseline", color=INK, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": INK, "alpha": 0.35, "linewidth": 0.5, "shrinkB": 4, "shrinkA": 0}
            if abs(offset[1]) > _LINE else None,
        )  # fmt: skip


def _short(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1].rstrip() + "…"


def _free_box(
    point: tuple[float, float], width: float, occupied: list[Box], bounds: tuple[float, float]
) -> tuple[Box, str]:
    """The nearest free box right or left of the point, within bounds, and the edge that faces the point."""
    x, y = point
    boxes: list[tuple[Box, str]] = []
    for up in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5):
        low = y + up * _LINE - _LINE / 2
        boxes.append(((x + 9, low, x + 9 + width, low + _LINE), "left"))
        boxes.append(((x - 9 - width, low, x - 9, low + _LINE), "right"))
    inside = [
        candidate for candidate in boxes if candidate[0][0] >= bounds[0] and candidate[0][2] <= bounds[1]
    ] or boxes
    return next(
        (candidate for candidate in inside if not any(_overlap(candidate[0], other) for other in occupied)), inside[0]
    )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label(points: list[Point]) -> str:
    """The plot as text, for screen readers."""
    sentences = (
        f"{name}: {accuracy:.2f}% with {size(nbytes)}, leakage "
        + (f"{leakage:.2f}" if math.isfinite(leakage) else "not measured")
        for name, nbytes, leakage, accuracy in points
    )
    return "Accuracy against the size of the record. " + "; ".join(sentences) + "."
