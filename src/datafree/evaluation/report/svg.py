"""From a matplotlib figure to SVG text that a page can hold: same figure, same bytes; colours follow the reader's."""

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
    "by_layer",
    "looks",
    "name_ends",
    "printable",
    "spread",
    "style",
    "svg",
]

Look = dict[str, Any]

INK = "#010203"
"""Drawn in this colour, shown in the page's text colour."""
COLOURS = ("#0077bb", "#d1620f", "#009179", "#cf3f8d", "#7d6ad0")
"""After Paul Tol's vibrant scheme, all at least 3:1 against both the white and the dark page."""
STYLES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = ("", "o", "s", "^", "D")
LEADING = 0.18
"""Inches from one name to the next."""
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_THEME = (
    ".datafree-plot{color:#1d2024}@media (prefers-color-scheme:dark){.datafree-plot{color:#e4e6ea}}"
    ".datafree-plot *{stroke-linejoin:round;stroke-linecap:butt}"
)


def _short(text: str, longest: int) -> str:
    """Its beginning; of a path its end, which tells it from others."""
    if len(text) <= longest:
        return text
    return "…" + text[1 - longest :] if "/" in text else text[: longest - 1].rstrip() + "…"


class Words:
    """Text from outside never reaches matplotlib, which reads `$` as mathematics and lacks many scripts.

    It draws a token in its place, and `svg` puts the escaped text there.
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
    """matplotlib's own defaults, whatever the user's are, with ink for all that is not data."""
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
    """One <svg> element with `label` for those who cannot see it; no prolog, comments, metadata or ids to clash."""
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
    """One look for each name: colours first, then line styles and, where `marked`, markers too."""
    found = {}
    for i, name in enumerate(dict.fromkeys(names)):
        again = i // len(COLOURS)
        look: Look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[again % len(STYLES)], "linewidth": 1.5}
        found[name] = look | ({"marker": MARKERS[again % len(MARKERS)], "markersize": 3.5} if marked else {})
    return found


def name_ends(
    axes: Axes, ends: Sequence[tuple[str, float, float]], own: dict[str, Look], height: float, words: Words,
    longest: int = 34,
) -> None:  # fmt: skip
    """The legend of axes `height` inches high: each name right of its line's end (x, y), beside a piece of the line."""
    to_axes = axes.transData + axes.transAxes.inverted()
    spots = [to_axes.transform((x, y)) for _, x, y in ends]
    places = spread([float(y) for _, y in spots], LEADING / height, 0.0, 1.0)
    inch = axes.figure.dpi / axes.bbox.width
    near, far, text = (1 + gap * inch for gap in (0.14, 0.4, 0.46))
    outside = {"transform": axes.transAxes, "clip_on": False}
    for (name, _, _), (x, y), place in zip(ends, spots, places):
        axes.plot((x, near), (y, place), color=own[name]["color"], linewidth=0.5, alpha=0.7, **outside)
        axes.plot((near, far), (place, place), **own[name], **outside)
        axes.text(text, place, words(name, longest), color=INK, va="center_baseline", transform=axes.transAxes)


def by_layer(axes: Axes, lines: Sequence[tuple[str, Sequence[float]]], own: dict[str, Look]) -> None:
    """A value for each layer, on a log axis, by the layer's number."""
    from matplotlib.ticker import MaxNLocator

    axes.set_yscale("log")
    for name, values in lines:
        alone: Look = {"marker": "o"} if len(values) == 1 else {}
        axes.plot(range(1, len(values) + 1), values, **{**alone, **own[name]})
    longest = max(len(values) for _, values in lines)
    axes.set_xlim((1, longest) if longest > 1 else (0.5, 1.5))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    axes.set_xlabel("layer, from the input on")


def printable(text: str) -> str:
    """Text that HTML, XML and UTF-8 can hold: control characters and lone surrogates become U+FFFD."""
    return _CONTROLS.sub("\ufffd", text)


def spread(wanted: list[float], gap: float, low: float, high: float) -> list[float]:
    """Places near the wanted ones, in their order, at least `gap` apart and within [low, high] where they fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    places, bound = list(wanted), low
    for i in order:
        places[i] = bound = max(wanted[i], bound)
        bound += gap
    bound = high
    for i in reversed(order):
        places[i] = bound = min(places[i], bound)
        bound -= gap
    return places
