"""Online distillation on the page: figures of its curves, where its time went, and its generator's images over time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datafree.errors import UserError
from datafree.robustness import FIGURES, Robustness, Spread, over_seeds, robustness

from . import numbers
from .images import SHOWN, grid_png
from .model import Grid, Line, Played, Timeline
from .svg import COLOURS, INK, LEADING, Words, style, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from datafree.finished import Online

__all__ = ["FILE", "facts", "figures", "online_lines", "phases_svg", "played", "timeline", "timeline_png"]

FILE = "generated.safetensors"
"""Beside a student: `pixels` (T, n, C, H, W) uint8, the same n latents in T epochs, whose numbers are in `epochs`."""
ROWS = 12
"""Epochs shown at most."""
_MOST_EPOCHS, _MOST_BYTES, _MOST_SIDE, _MOST_CHANNELS = 10_000, 1 << 28, 2048, 16
_TOLD = 5
"""Rollbacks that are told in words."""
_REST = "watching and the rest"
_COLUMNS = 4
_ACCURACY, _AGREEMENT = "test accuracy, %", "agreement with the teacher on generated probes, %"


def played(name: str, found: Online, replay: str = "", series: str = "") -> Played:
    """What a run.json says of one online run; runs of one `series` differ in their seed alone."""
    spent = {key: seconds for key, seconds in found.phases.items() if seconds > 0}
    if "student" in spent and "memory" in spent:  # written within the student's steps, and counted in both
        spent["student"] = max(0.0, spent["student"] - spent["memory"])
    rest = math.fsum(found.seconds) - math.fsum(spent.values())
    if rest > 0:
        spent[_REST] = rest
    return Played(name, found, spent, replay, series)


def online_lines(name: str, found: Online) -> list[Line]:
    """Its curves by epoch; the moving average of the student has a line of its own."""
    average = f"average: {name}"  # first, since the end of a long name is cut off
    lines = [
        Line(name, list(found.loss), "loss of the student"),
        Line(name, list(found.scores), _ACCURACY),
        Line(average, list(found.average_scores), _ACCURACY),
        Line(name, list(found.agreement), _AGREEMENT),
        Line(average, list(found.average_agreement), _AGREEMENT),
        Line(name, [own.classes for own in found.health], "classes that the teacher sees in generated images"),
    ]
    return [line for line in lines if line.values]


# -- tables -------------------------------------------------------------------------------------------------------


def figures(runs: Sequence[Played]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A group of rows for every run, one for each curve and window, then a group for every series of two seeds or more."""
    groups, series = [], dict[str, list[Played]]()
    for run in runs:
        rows = [
            _row(*key, {name: _cell(getattr(own, name)) for name in FIGURES}) for key, own in _measured(run).items()
        ]
        groups += [(run.name, rows)] if rows else []
        if run.series and rows:
            series.setdefault(run.series, []).append(run)
    for several in series.values():
        if len(several) > 1:
            names = ", ".join(run.name for run in several)
            groups.append((f"mean and standard deviation over {len(several)} seeds: {names}", _together(several)))
    return groups


def _measured(run: Played) -> dict[tuple[str, str], Robustness]:
    """By curve and window, both in words."""
    curves = _curves(run.found)
    return {(curve, window): own for curve, values in curves for window, own in _windows(values)}


def _together(several: Sequence[Played]) -> list[dict[str, Any]]:
    """Of the curves and windows that all of them have."""
    found, rows = [_measured(run) for run in several], []
    for key in found[0]:
        if all(key in own for own in found):
            spreads = over_seeds([own[key] for own in found])
            rows.append(_row(*key, {name: _spread(spreads.get(name)) for name in FIGURES}))
    return rows


def _row(curve: str, window: str, cells: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {"curve": curve, "window": window, "cells": [cells[name] for name in FIGURES]}


def _cell(value: float | None) -> tuple[str, str]:
    return ("" if value is None else f"{value:.2f}", "")


def _spread(own: Spread | None) -> tuple[str, str]:
    return ("", "") if own is None or own.sd is None else (f"{own.mean:.2f}", f"± {own.sd:.2f}")


def facts(runs: Sequence[Played]) -> list[dict[str, Any]]:
    """A row for every run: its memory, how much it made in what time, how its generator ended, what was rolled back."""
    rows = []
    for run in runs:
        found = run.found
        seconds, health = math.fsum(found.seconds), found.health[-1] if found.health else None
        told = [
            *found.rollbacks[:_TOLD],
            *([f"{len(found.rollbacks) - _TOLD:,} more"] if found.rollbacks[_TOLD:] else []),
        ]
        rows.append(
            {
                "name": run.name,
                "replay": run.replay,
                "memory": numbers.NOT_MEASURED if found.memory_bytes is None else numbers.size(found.memory_bytes),
                "bytes": f"{found.memory_bytes:,} bytes" if found.memory_bytes else "",
                "images": numbers.count(found.images),
                "rate": f"{found.images / seconds:,.0f} a second" if found.images and seconds > 0 else "",
                "time": numbers.duration(seconds if found.seconds else None),
                "classes": numbers.NOT_MEASURED if health is None else f"{health.classes:.1f}",
                "doubles": numbers.NOT_MEASURED if health is None else numbers.share(health.duplicates),
                "rollbacks": len(found.rollbacks),
                "told": "; ".join(told),
            }
        )
    return rows


def _curves(found: Online) -> list[tuple[str, tuple[float, ...]]]:
    named = [
        ("test accuracy", found.scores), ("test accuracy of the average", found.average_scores),
        ("agreement on probes", found.agreement), ("agreement of the average", found.average_agreement),
    ]  # fmt: skip
    return [(name, values) for name, values in named if values]


def _windows(values: Sequence[float]) -> list[tuple[str, Robustness]]:
    """The whole curve, and the second half of one that has four epochs or more."""
    half = len(values) // 2
    own = [(f"all {len(values)}" if len(values) > 1 else "1", robustness(values))]
    return [*own, (f"last {half}", robustness(values, half))] if len(values) >= 4 else own


# -- where the time went ------------------------------------------------------------------------------------------


def phases_svg(runs: Sequence[Played]) -> str:
    """A stacked bar of seconds for each run, in the order of the phases; empty where no run counted any."""
    from matplotlib.figure import Figure

    runs = [run for run in runs if math.fsum(run.phases.values()) > 0]
    if not runs:
        return ""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.phases) if name != _REST]
    names += [_REST] if any(_REST in run.phases for run in runs) else []
    words, plot = Words(), max(0.6, 0.34 * len(runs))
    legend = LEADING * 1.4 * -(-len(names) // _COLUMNS)
    total = plot + legend + 0.75
    with style("datafree phases"):
        figure = Figure((9.6, total))
        axes = figure.add_axes((0.2, 0.5 / total, 0.72, plot / total))
        _stack(axes, runs, names, words)
        for index, name in enumerate(names):
            row, column = divmod(index, _COLUMNS)
            x, y = column / _COLUMNS, 1 + (0.14 + LEADING * 1.4 * row) / plot
            outside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
            axes.plot(x + 0.01, y, "s", color=_colour(index, name), markersize=7, **outside)
            axes.text(x + 0.025, y, words(name, 26), color=INK, va="center_baseline", transform=axes.transAxes)
        return svg(figure, words, _phases_label(runs))


def _stack(axes: Axes, runs: Sequence[Played], names: Sequence[str], words: Words) -> None:
    """Bars from the left, in the unit of the largest; a share is written where it has room."""
    longest = max(math.fsum(run.phases.values()) for run in runs)
    unit, per = ("hours", 3600) if longest >= 2 * 3600 else ("minutes", 60) if longest >= 120 else ("seconds", 1)
    for index, name in enumerate(names):
        colour = _colour(index, name)
        for place, run in enumerate(reversed(runs)):
            own, total = run.phases.get(name, 0.0), math.fsum(run.phases.values())
            left = math.fsum(run.phases.get(before, 0.0) for before in names[:index])
            axes.barh(place, own / per, left=left / per, height=0.62, color=colour)
            if own > 0.06 * longest:
                middle = (left + own / 2) / per
                axes.text(
                    middle, place, f"{100 * own / total:.0f} %", ha="center", va="center", color="#ffffff", fontsize=8
                )
    for place, run in enumerate(reversed(runs)):
        whole = math.fsum(run.phases.values())
        axes.annotate(
            numbers.duration(whole), (whole / per, place), (5, 0), textcoords="offset points", va="center", color=INK,
            fontsize=8,
        )  # fmt: skip
    axes.set_xlim(0, 1.1 * longest / per)
    axes.set_ylim(-0.5, len(runs) - 0.5)
    axes.set_yticks(range(len(runs)), [words(run.name, 28) for run in reversed(runs)])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(unit)


def _colour(index: int, name: str) -> str:
    return "#808890" if name == _REST else COLOURS[index % len(COLOURS)]


def _phases_label(runs: Sequence[Played]) -> str:
    """All bars in words, for those who cannot see them."""
    told = (
        f"{run.name}: {', '.join(f'{name} {numbers.duration(own)}' for name, own in run.phases.items())}"
        for run in runs
    )
    return f"Where the time went. {'; '.join(told)}."


# -- images over time ---------------------------------------------------------------------------------------------


def timeline(folder: Path) -> Timeline | None:
    """The generator's images over time in `folder`, None where it has none. Raises UserError for a file that is off.

    What the file says of itself is checked before any of its data is read.
    """
    from datafree.files import read_header, read_tensors  # imports torch

    path = folder / FILE
    if not path.is_file():
        return None
    table, header = read_header(path, kind="generated")
    _check(path, table, header)
    pixels = read_tensors(path, kind="generated", expect=table)[0]["pixels"].numpy()
    rows = _rows(len(pixels))
    return Timeline(folder.name, pixels[rows, :SHOWN], [header["epochs"][row] for row in rows], len(pixels))


def timeline_png(found: Timeline) -> bytes:
    """Rows are epochs, columns latents."""
    return grid_png(Grid(found.name, found.pixels[0], found.pixels[1:], 0, 255))


def _rows(count: int) -> list[int]:
    """At most ROWS of them, the first and the last too, as far apart as can be."""
    if count <= ROWS:
        return list(range(count))
    return [round(row * (count - 1) / (ROWS - 1)) for row in range(ROWS)]


def _check(path: Path, table: Mapping[str, tuple[Any, tuple[int, ...]]], header: Mapping[str, Any]) -> None:
    def off(got: str, wanted: str) -> UserError:
        return UserError(f"{path} has {got}, wanted {wanted}; get the folder again, or remove that file")

    if table.keys() != {"pixels"}:
        raise off(f"{len(table)} tensors", "pixels alone")
    dtype, shape = table["pixels"]
    if str(dtype) != "torch.uint8" or len(shape) != 5 or min(shape) < 1:
        raise off(f"pixels {shape} of {dtype}", "uint8 (epochs, images, C, H, W)")
    epochs, _, channels, *sides = shape
    if epochs > _MOST_EPOCHS or channels > _MOST_CHANNELS or max(sides) > _MOST_SIDE or math.prod(shape) > _MOST_BYTES:
        raise off(f"pixels {shape}", f"at most {_MOST_EPOCHS:,} epochs and {numbers.size(_MOST_BYTES)}")
    told = header.get("epochs")
    if not isinstance(told, list) or len(told) != epochs or any(type(own) is not int or own < 0 for own in told):
        raise off("no list of epochs", f"{epochs} whole numbers, one for each row of images")
