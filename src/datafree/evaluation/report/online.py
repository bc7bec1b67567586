"""Online distillation in the report: curves, stability figures, and a table with one row per run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..stability import FIGURES, HALF, Spread, Stability, over_seeds, stability
from . import numbers
from .model import Line, OnlineRun

if TYPE_CHECKING:
    from ...runs.run_reader import OnlineLog

__all__ = ["OTHER", "facts", "figures", "online_lines", "online_run"]

OTHER = "monitoring and other"
"""Phase for the time that no other phase counts."""
_LISTED = 5
"""Maximum number of rollbacks that are listed."""
_ACCURACY, _AGREEMENT = "test accuracy, %", "agreement with the teacher on generated probes, %"


def online_run(name: str, log: OnlineLog, replay: str = "", series: str = "") -> OnlineRun:
    """An OnlineRun from the log in a run.json; runs with the same `series` only differ in their seed."""
    phases = {key: seconds for key, seconds in log.phases.items() if seconds > 0}
    if "student" in phases and "memory" in phases:  # memory writes happen in student steps and count in both
        phases["student"] = max(0.0, phases["student"] - phases["memory"])
    other = math.fsum(log.seconds) - math.fsum(phases.values())
    if other > 0:
        phases[OTHER] = other
    return OnlineRun(name, log, phases, replay, series)


def online_lines(name: str, log: OnlineLog) -> list[Line]:
    """The run's curves by epoch, with separate lines for the moving average of the student."""
    average = f"average: {name}"  # a prefix, because the end of a long name is cut off
    lines = [
        Line(name, list(log.loss), "loss of the student"),
        Line(name, list(log.scores), _ACCURACY),
        Line(average, list(log.average_scores), _ACCURACY),
        Line(name, list(log.agreement), _AGREEMENT),
        Line(average, list(log.average_agreement), _AGREEMENT),
        Line(name, [health.classes for health in log.health], "classes that the teacher predicts for generated images"),
    ]
    return [line for line in lines if line.values]


# -- tables -------------------------------------------------------------------------------------------------------


def figures(runs: Sequence[OnlineRun]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Groups of rows, one row per curve and window: a group per run, then one per series of at least two seeds."""
    groups, series = [], dict[str, list[OnlineRun]]()
    for run in runs:
        rows = [
            _row(*key, {name: _cell(getattr(stability, name)) for name in FIGURES})
            for key, stability in _by_window(run).items()
        ]
        groups += [(run.name, rows)] if rows else []
        if run.series and rows:
            series.setdefault(run.series, []).append(run)
    for seeds in series.values():
        if len(seeds) > 1:
            names = ", ".join(run.name for run in seeds)
            groups.append((f"mean and standard deviation over {len(seeds)} seeds: {names}", _over_seeds(seeds)))
    return groups


def _by_window(run: OnlineRun) -> dict[tuple[str, str], Stability]:
    """Stability by the names of curve and window."""
    curves = _curves(run.log)
    return {(curve, window): stability for curve, values in curves for window, stability in _windows(values)}


def _over_seeds(runs: Sequence[OnlineRun]) -> list[dict[str, Any]]:
    """Rows for the curves and windows that all runs have."""
    measured, rows = [_by_window(run) for run in runs], []
    for key in measured[0]:
        if all(key in figures for figures in measured):
            spreads = over_seeds([figures[key] for figures in measured])
            rows.append(_row(*key, {name: _spread(spreads.get(name)) for name in FIGURES}))
    return rows


def _row(curve: str, window: str, cells: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    return {"curve": curve, "window": window, "cells": [cells[name] for name in FIGURES]}


def _cell(value: float | None) -> tuple[str, str]:
    return ("" if value is None else f"{value:.2f}", "")


def _spread(spread: Spread | None) -> tuple[str, str]:
    return ("", "") if spread is None or spread.sd is None else (f"{spread.mean:.2f}", f"± {spread.sd:.2f}")


def facts(runs: Sequence[OnlineRun]) -> list[dict[str, Any]]:
    """A table row per run: memory, images and speed, diversity of the last generated images, rollbacks."""
    rows = []
    for run in runs:
        log = run.log
        seconds, health = math.fsum(log.seconds), log.health[-1] if log.health else None
        reasons = [
            *log.rollbacks[:_LISTED],
            *([f"{len(log.rollbacks) - _LISTED:,} more"] if log.rollbacks[_LISTED:] else []),
        ]
        rows.append(
            {
                "name": run.name,
                "replay": run.replay,
                "memory": numbers.NOT_MEASURED if log.memory_bytes is None else numbers.size(log.memory_bytes),
                "bytes": f"{log.memory_bytes:,} bytes" if log.memory_bytes else "",
                "images": numbers.count(log.images),
                "rate": f"{log.images / seconds:,.0f} per second" if log.images and seconds > 0 else "",
                "time": numbers.duration(seconds if log.seconds else None),
                "classes": numbers.NOT_MEASURED if health is None else f"{health.classes:.1f}",
                "duplicates": numbers.NOT_MEASURED if health is None else numbers.share(health.duplicates),
                "rollbacks": len(log.rollbacks),
                "reasons": "; ".join(reasons),
            }
        )
    return rows


def _curves(log: OnlineLog) -> list[tuple[str, tuple[float, ...]]]:
    curves = [
        ("test accuracy", log.scores), ("test accuracy of the average", log.average_scores),
        ("agreement on probes", log.agreement), ("agreement of the average", log.average_agreement),
    ]  # fmt: skip
    return [(name, values) for name, values in curves if values]


def _windows(values: Sequence[float]) -> list[tuple[str, Stability]]:
    """Stability over the whole curve and over its second half."""
    half = stability(values, HALF)
    windows = [(f"all {len(values)}" if len(values) > 1 else "1", stability(values))]
    return [*windows, (f"last {half.epochs}", half)] if len(values) > 1 else windows
