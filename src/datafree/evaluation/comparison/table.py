"""The table of a comparison as text: Markdown, JSON, and the values of the page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...runs.run_log import versions
from ..report import numbers
from ..stability import Spread
from .result import Comparison, ComparisonRow

__all__ = [
    "COLUMNS", "NARROW_COLUMNS", "as_json", "explanations", "group_of", "markdown", "narrow_values", "row_values",
    "summary", "time_unit", "title_of",
]  # fmt: skip

COLUMNS = (
    ("accuracy, %", ""),
    ("difference, points", "to the best data-free method"),
    ("best epoch, %", "needs test data; not attainable without it"),
    ("agreement, %", "with the teacher; no accuracy"),
    ("time", ""),
    ("images", ""),
    ("steps", ""),
    ("seeds", ""),
)
"""Each with what has to be said about it."""
FORMAT = 1


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The content of comparison.json."""
    return {
        "format": FORMAT,
        "teacher": comparison.teacher,
        "teacher_accuracy": comparison.teacher_accuracy,
        "data": comparison.data,
        "protocol": comparison.protocol,
        "rows": [asdict(row) for row in comparison.rows],
        "cells": [cell.model_dump(mode="json") for cell in comparison.cells],
        "unfinished": [asdict(cell) for cell in comparison.unfinished],
        "notes": list(comparison.notes),
        "versions": versions(),
    }


def markdown(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    heads = [f"{name} ({about})" if about else name for name, about in COLUMNS]
    lines = [
        f"# {_text(title_of(comparison))}", "", _text(summary(comparison)), "",
        f"| student | method | {' | '.join(heads)} |", f"|---|---|{'---:|' * len(COLUMNS)}",
    ]  # fmt: skip
    for row in comparison.rows:
        name = f"{row.method} (control)" if row.control else row.method
        lines.append(f"| {' | '.join(_text(text) for text in (row.student, name, *row_values(row)))} |")
    lines += ["", *(f"- {_text(line)}." for line in (*explanations(comparison), *comparison.notes))]
    if comparison.unfinished:
        lines += ["", "Without a result:", ""]
        lines += [f"- {_text(cell.cell)}: {_text(cell.reason)}" for cell in comparison.unfinished]
    return "\n".join(lines) + "\n"


def title_of(comparison: Comparison) -> str:
    """The heading."""
    return f"Students of {comparison.teacher}, by method"


def summary(comparison: Comparison) -> str:
    """The teacher's accuracy and the best data-free method of every student."""
    parts = [f"Teacher: {comparison.teacher_accuracy:.2f} % on {comparison.data}."]
    for row in comparison.rows:
        if row.is_best:
            parts.append(f"Best data-free method for {row.student}: {row.method}, {_spread(row.accuracy)} %.")
    return " ".join(parts)


def explanations(comparison: Comparison) -> list[str]:
    """What the columns mean."""
    protocol, unit = comparison.protocol, time_unit(comparison)
    amount = f"{protocol['steps']:,} student steps" if "steps" in protocol else f"{protocol['budget']:g} s of {unit}"
    return [
        f"accuracy is that after the last epoch; ± is the standard deviation over seeds. Every cell has {amount}"
        f"{', rounded up to whole epochs' if 'steps' in protocol else ''}",
        "difference: seed by seed, to the best data-free method with the same student",
        "agreement: share of the test images for which student and teacher choose the same class; it is no accuracy",
        f"time: {unit} for making images and training, without evaluation",
        "controls are no data-free methods and are not ranked: real learns from training images, noise from Gaussian noise",
    ]


def time_unit(comparison: Comparison) -> str:
    """What the cells' seconds are of: CPU time, or on a GPU wall-clock time."""
    on_gpu = any(not cell.device.startswith("CPU") for cell in comparison.cells)
    return "wall-clock time" if on_gpu else "CPU time"


def group_of(row: ComparisonRow) -> str:
    """The heading of the row's group."""
    return f"{row.student}: controls" if row.control else f"{row.student}: data-free methods"


def row_values(row: ComparisonRow) -> tuple[str, ...]:
    """The columns' values as text."""
    return (
        _spread(row.accuracy), _difference(row), _spread(row.best), _spread(row.agreement), _time(row.seconds),
        _count(row.images), _count(row.steps), str(row.n),
    )  # fmt: skip


NARROW_COLUMNS = ("accuracy, %", "to the best", "agreement, %", "time", "seeds")


def narrow_values(row: ComparisonRow) -> tuple[str, ...]:
    """The values of NARROW_COLUMNS, for a terminal."""
    return _spread(row.accuracy), _difference(row), _spread(row.agreement), _time(row.seconds), str(row.n)


def _spread(spread: Spread | None, sign: str = "") -> str:
    if spread is None:
        return numbers.NOT_MEASURED
    return f"{spread.mean:{sign}.2f}" + ("" if spread.sd is None else f" ± {spread.sd:.2f}")


def _difference(row: ComparisonRow) -> str:
    return "best" if row.is_best else _spread(row.to_best and row.to_best.spread, "+")


def _time(spread: Spread | None) -> str:
    return numbers.duration(None if spread is None else spread.mean)


def _count(spread: Spread | None) -> str:
    return numbers.count(None if spread is None else round(spread.mean))


def _text(text: str) -> str:
    """Text that Markdown shows as it is, within a cell of a table."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
