"""Online distillation on the page: its curves, their figures, and what is known of a run in a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..stability import FIGURES, HALF, Robustness, Spread, over_seeds, robustness
from . import numbers
from .model import Line, OnlineRun

if TYPE_CHECKING:
    from ...runs.run_reader import OnlineLog

__all__ = ["REST", "facts", "figures", "online_lines", "online_run"]

REST = "watching and the rest"
"""The phase that is what no other phase counted."""
_TOLD = 5
"""Rollbacks that are told in words."""
_ACCURACY, _AGREEMENT = "test accuracy, %", "agreement with the teacher on generated probes, %"


def online_run(name: str, found: OnlineLog, replay: str = "", series: str = "") -> OnlineRun:
    """What a run.json says of one online run; runs of one `series` differ in their seed alone."""
    spent = {key: seconds for key, seconds in found.phases.items() if seconds > 0}
    if "student" in spent and "memory" in spent:  # written within the student's steps, and counted in both
        spent["student"] = max(0.0, spent["student"] - spent["memory"])
    rest = math.fsum(found.seconds) - math.fsum(spent.values())
    if rest > 0:
        spent[REST] = rest
    return OnlineRun(name, found, spent, replay, series)


def online_lines(name: str, found: OnlineLog) -> list[Line]:
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


def figures(runs: Sequence[OnlineRun]) -> list[tuple[str, list[dict[str, Any]]]]:
    """A group of rows for every run, one for each curve and window, then a group for every series of two seeds or more."""
    groups, series = [], dict[str, list[OnlineRun]]()
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


def _measured(run: OnlineRun) -> dict[tuple[str, str], Robustness]:
    """By curve and window, both in words."""
    curves = _curves(run.found)
    return {(curve, window): own for curve, values in curves for window, own in _windows(values)}


def _together(several: Sequence[OnlineRun]) -> list[dict[str, Any]]:
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


def facts(runs: Sequence[OnlineRun]) -> list[dict[str, Any]]:
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


def _curves(found: OnlineLog) -> list[tuple[str, tuple[float, ...]]]:
    named = [
        ("test accuracy", found.scores), ("test accuracy of the average", found.average_scores),
        ("agreement_on_probes", found.agreement), ("agreement of the average", found.average_agreement),
    ]  # fmt: skip
    return [(name, values) for name, values in named if values]


def _windows(values: Sequence[float]) -> list[tuple[str, Robustness]]:
    """The whole curve, and its second half."""
    half = robustness(values, HALF)
    own = [(f"all {len(values)}" if len(values) > 1 else "1", robustness(values))]
    return [*own, (f"last {half.epochs}", half)] if len(values) > 1 else own
