"""The legend of a narrow plot, below its axes: on a phone there is no room right of the lines' ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .svg import INK, LEADING, Look, Words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NARROW", "legend_below", "legend_height"]

NARROW = 3.75
"""Width of a narrow plot, in inches; shown at 360 px, its text has the size of the page's small print."""
_SHORT = 16
"""Names of at most this many characters fit in two columns."""
_LEFT, _SAMPLE, _GAP, _STEP = 0.12, 0.3, 0.07, LEADING * 1.1  # inches


def legend_height(names: Sequence[str]) -> float:
    """In inches."""
    return _STEP * -(-len(names) // _columns(names))


def legend_below(
    figure: Figure, names: Sequence[str], name_looks: dict[str, Look], words: Words, *, top: float
) -> None:
    """Writes the names, each after a sample of its line, from `top` inches above the figure's lower end downwards."""
    from matplotlib.lines import Line2D

    columns = _columns(names)
    rows, width = -(-len(names) // columns), (NARROW - _LEFT) / columns
    for index, name in enumerate(names):
        column, row = divmod(index, rows)
        x, y = _LEFT + column * width, top - _STEP * (row + 0.5)
        sample = Line2D((x, x + _SAMPLE), (y, y), **name_looks[name], transform=figure.dpi_scale_trans)
        figure.add_artist(sample)
        figure.text(
            x + _SAMPLE + _GAP, y, words(name), color=INK, va="center_baseline", transform=figure.dpi_scale_trans
        )


def _columns(names: Sequence[str]) -> int:
    return 2 if len(names) > 1 and max(map(len, names)) <= _SHORT else 1
