"""The result of a comparison: a row for each method and student, over seeds, with paired differences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..stability import Spread
from .cell import Cell, CellResult
from .methods import REAL

__all__ = ["FEW_SEEDS", "Comparison", "ComparisonRow", "Difference", "Unfinished", "comparison_rows"]

FEW_SEEDS = 3
"""Number of seeds below which the table says that they are few."""


@dataclass(frozen=True)
class Unfinished:
    """A cell without a result, and why."""

    cell: str
    """`METHOD/STUDENT/SEED`."""
    method: str
    student: str
    seed: int
    reason: str
    failed: bool
    """False for a cell that was not run, or that another process is running."""


@dataclass(frozen=True)
class Difference:
    """Accuracy minus that of another method, seed by seed, in points."""

    to: str
    spread: Spread


@dataclass(frozen=True)
class ComparisonRow:
    """One method with one student, over seeds. Figures are None if no seed is finished."""

    method: str
    student: str
    control: bool
    """Whether it is `real` or `noise`, which are no data-free methods and are not ranked."""
    n: int
    """Number of finished seeds."""
    accuracy: Spread | None
    """Test accuracy after the last epoch, in %."""
    best: Spread | None
    """Accuracy of each seed's best epoch, in %; choosing it needs test data."""
    agreement: Spread | None
    """Agreement with the teacher on the test images, in %; it is not accuracy."""
    seconds: Spread | None
    """Time for images and training, without evaluation."""
    images: Spread | None
    steps: Spread | None
    to_best: Difference | None
    """To the best data-free method with this student: of those with the most finished seeds, the highest mean accuracy."""
    to_real: Difference | None
    is_best: bool
    """Whether it is the data-free method that `to_best` of the others refers to."""


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured. comparison.json, comparison.md and comparison.html in `folder` show the same."""

    teacher: str
    teacher_accuracy: float
    data: str
    """What accuracies were measured on, such as `500 test images of digits`."""
    protocol: dict[str, Any]
    rows: tuple[ComparisonRow, ...]
    """By student: data-free methods by accuracy, then controls."""
    cells: tuple[CellResult, ...]
    unfinished: tuple[Unfinished, ...]
    notes: tuple[str, ...]
    """What is not equal for all methods, and what limits the numbers."""
    folder: Path

    @property
    def failed(self) -> tuple[Unfinished, ...]:
        """The cells that failed."""
        return tuple(cell for cell in self.unfinished if cell.failed)

    def markdown(self) -> str:
        """The table, with what it was measured on, as Markdown."""
        from .table import markdown

        return markdown(self)


def comparison_rows(
    cells: Sequence[Cell], results: Sequence[CellResult], students: Sequence[str]
) -> tuple[ComparisonRow, ...]:
    """The rows of all methods and students, also of those without a result."""
    rows: list[ComparisonRow] = []
    for student in students:
        methods = {cell.method.name: cell.method for cell in cells if cell.student.name == student}
        by_method = {
            name: {result.seed: result for result in results if (result.method, result.student) == (name, student)}
            for name in methods
        }
        means = {name: _mean(list(seeds.values())) for name, seeds in by_method.items() if seeds}
        ranked = sorted(
            (name for name in means if not methods[name].control),
            key=lambda name: (-len(by_method[name]), -means[name]),
        )
        best = ranked[0] if ranked else None
        order = [*ranked, *(name for name in methods if name not in ranked and not methods[name].control)]
        order += [name for name, method in methods.items() if method.control]
        for name in order:
            rows.append(_row(name, student, methods[name].control, by_method, best))
    return tuple(rows)


def _mean(results: Sequence[CellResult]) -> float:
    return statistics.fmean(result.accuracy for result in results)


def _row(
    name: str, student: str, control: bool, by_method: dict[str, dict[int, CellResult]], best: str | None
) -> ComparisonRow:
    results = [by_method[name][seed] for seed in sorted(by_method[name])]

    def figure(field: str) -> Spread | None:
        return _spread([float(getattr(result, field)) for result in results])

    return ComparisonRow(
        name, student, control, len(results), figure("accuracy"), figure("best_accuracy"), figure("agreement"),
        figure("seconds"), figure("images"), figure("steps"), _difference(by_method, name, best),
        _difference(by_method, name, REAL), name == best,
    )  # fmt: skip


def _difference(by_method: dict[str, dict[int, CellResult]], name: str, other: str | None) -> Difference | None:
    """None for the method itself, and without a seed that both have."""
    if other is None or other == name or other not in by_method:
        return None
    seeds = sorted(by_method[name].keys() & by_method[other].keys())
    values = [by_method[name][seed].accuracy - by_method[other][seed].accuracy for seed in seeds]
    spread = _spread(values)
    return None if spread is None else Difference(other, spread)


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))
