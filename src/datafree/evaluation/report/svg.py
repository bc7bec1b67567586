"""Converts matplotlib figures to reproducible SVG text that follows the page's colours."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "INK",
    "STYLES",
    "Look",
    "Words",
    "looks",
    "name_ends",
    "plot_by_layer",
    "printable",
    "spread",
    "style",
    "svg",
]

Look = dict[str, Any]

INK = "#010203"
"""Placeholder colour that is replaced by the page's text colour."""
COLOURS = ("#0077bb", "#d1620f", "#009179", "#cf3f8d", "#7d6ad0")
"""After Paul Tol's vibrant scheme; contrast is at least 3:1 on the light and the dark page."""
STYLES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = ("", "o", "s", "^", "D")
LEADING = 0.18
"""Distance between two names, in inches."""
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_THEME = (
    ".datafree-plot{color:#1d2024}@media (prefers-color-scheme:dark){.datafree-plot{color:#e4e6ea}}"
    ".datafree-plot *{stroke-linejoin:round;stroke-linecap:butt}"
)


def _short(text: str, longest: int) -> str:
    """The beginning of a text, or the end of a path, of at most `longest` characters."""
    if len(text) <= longest:
        return text
    return "…" + text[1 - longest :] if "/" in text else text[: longest - 1].rstrip() + "…"


class Words:
    """Keeps user text away from matplotlib, which reads `$` as mathematics and lacks many scripts.

    matplotlib draws a token instead, and `svg` replaces the token by the escaped text.
    """

    def __init__(self):
        self.texts: list[str] = []

    def __call__(self, text: str, longest: int = 34) -> str:
        text = " ".join(text.split())
        self.texts.append(_short(text, longest))
        return f"@{len(self.texts) - 1}@"

    def put(self, text: str) -> str:
        return re.sub(r"@(\d+)@", lambda token: html.escape(self.texts[int(token[1])]), text)


@contextmanager
def style(salt: str) -> Iterator[None]:
    """matplotlib's defaults, regardless of the user's settings, with INK for everything that is not data."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
            "svg.hashsalt": salt, "svg.fonttype": "none", "font.size": 9, "axes.linewidth": 0.6, "grid.color": INK,
            "grid.alpha": 0.14, "grid.linewidth": 0.5, "axes.grid": True, "axes.axisbelow": True,
            "axes.spines.top": False, "axes.spines.right": False, "xtick.major.size": 0, "ytick.major.size": 0,
            "xtick.minor.size": 0, "ytick.minor.size": 0, "axes.unicode_minus": True,
        })  # fmt: skip
        yield


def svg(figure: Figure, words: Words, label: str) -> str:
    """One <svg> element with `label` for screen readers; no prolog, comments, metadata or clashing ids."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", f"<style>{_THEME}</style>", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", text)
    text = text.replace(INK, "currentColor")
    text = words.put(re.sub(r"\n\s*", "\n", text))
    text = text.replace("<svg ", f'<svg class="datafree-plot" role="img" aria-label="{html.escape(label)}" ', 1)
    return printable(text).strip()


def looks(names: Iterable[str], marked: bool = False) -> dict[str, Look]:
    """A distinct look per name: colours first, then line styles and, if `marked`, markers."""
    result = {}
    for i, name in enumerate(dict.fromkeys(names)):
        again = i // len(COLOURS)
        look: Look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[again % len(STYLES)], "linewidth": 1.5}
        result[name] = look | ({"marker": MARKERS[again % len(MARKERS)], "markersize": 3.5} if marked else {})
    return result


def name_ends(
    axes: Axes, ends: Sequence[tuple[str, float, float]], name_looks: dict[str, Look], height: float, words: Words,
    longest: int = 34,
) -> None:  # fmt: skip
    """The legend of axes `height` inches high: each name right of its line's end (x, y), with a sample of the line."""
    to_axes = axes.transData + axes.transAxes.inverted()
    spots = [to_axes.transform((x, y)) for _, x, y in ends]
    places = spread([float(y) for _, y in spots], LEADING / height, 0.0, 1.0)
    inch = axes.figure.dpi / axes.bbox.width
    sample_start, sample_end, text = (1 + gap * inch for gap in (0.14, 0.4, 0.46))
    outside = {"transform": axes.transAxes, "clip_on": False}
    for (name, _, _), (x, y), place in zip(ends, spots, places):
        axes.plot((x, sample_start), (y, place), color=name_looks[name]["color"], linewidth=0.5, alpha=0.7, **outside)
        axes.plot((sample_start, sample_end), (place, place), **name_looks[name], **outside)
        axes.text(text, place, words(name, longest), color=INK, va="center_baseline", transform=axes.transAxes)


def plot_by_layer(axes: Axes, lines: Sequence[tuple[str, Sequence[float]]], name_looks: dict[str, Look]) -> None:
    """Plots one value per layer on a log axis."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale("log")
    for name, values in lines:
        single: Look = {"marker": "o"} if len(values) == 1 else {}
        axes.plot(range(1, len(values) + 1), values, **{**single, **name_looks[name]})
    longest = max(len(values) for _, values in lines)
    axes.set_xlim((1, longest) if longest > 1 else (0.5, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("layer, from the input")


def printable(text: str) -> str:
    """Text that is valid in HTML, XML and UTF-8: control characters and lone surrogates become U+FFFD."""
    return _CONTROLS.sub("\ufffd", text)


def spread(positions: list[float], gap: float, low: float, high: float) -> list[float]:
    """Moves positions to be at least `gap` apart within [low, high], keeping their order; a smaller gap if they do not
    fit.
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    gap = min(gap, (high - low) / max(len(positions) - 1, 1))
    places, bound = list(positions), low
    for i in order:
        places[i] = bound = max(positions[i], bound)
        bound += gap
    bound = high
    for i in reversed(order):
        places[i] = bound = min(places[i], bound)
        bound -= gap
    return places
