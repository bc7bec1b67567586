"""comparison.html: the table, accuracy against time, and images of every method, in one file without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from ...data import Dataset
from ..report.images import SHOWN
from ..report.model import Grid, Timeline
from ..report.page import figure, is_steep, plot, render_template, settings_groups, timeline_figure
from ..report.sets import real_grid, set_grid
from ..report.timelines import timeline
from .cell import Cell
from .plot import time_svg
from .result import Comparison
from .table import COLUMNS, explanations, group_of, row_values, summary, time_unit, title_of
from .workplace import Workplace

__all__ = ["page"]


EPOCHS = 3
"""Number of epochs of an online method whose images are shown."""


def page(comparison: Comparison, cells: Sequence[Cell], workplace: Workplace) -> str:
    """The page as HTML; equal comparisons give equal text."""
    classes, unit = workplace.teacher.spec.classes, time_unit(comparison)
    grids, timelines = _images(comparison, cells, workplace)
    groups = [
        (group, [(row.method, row_values(row)) for row in rows]) for group, rows in groupby(comparison.rows, group_of)
    ]
    settings = {
        "teacher": comparison.teacher, "data": comparison.data,
        **{name.replace("_", " "): value for name, value in comparison.protocol.items()},
        "device": sorted({cell.device for cell in comparison.cells}),
        "versions": dict(sorted(comparison.cells[0].versions.items())) if comparison.cells else {},
    }  # fmt: skip
    return render_template(
        "comparison.html", Path(__file__).parent, title=title_of(comparison), summary=summary(comparison), columns=COLUMNS,
        groups=groups, explanations=explanations(comparison), notes=comparison.notes, unit=unit,
        curves=plot(time_svg, comparison.cells, unit), figures=[figure(grid, classes) for grid in grids],
        heads=classes[:SHOWN], steep=is_steep(classes[:SHOWN]), timelines=[timeline_figure(images) for images in timelines],
        unfinished=comparison.unfinished, settings=settings_groups(settings),
    )  # fmt: skip


def _images(comparison: Comparison, cells: Sequence[Cell], workplace: Workplace) -> tuple[list[Grid], list[Timeline]]:
    """For each method, images of its first finished cell."""
    finished = {(cell.method, cell.student, cell.seed) for cell in comparison.cells}
    chosen: dict[str, Cell] = {}
    for cell in cells:
        if (cell.method.name, cell.student.name, cell.seed) in finished:
            chosen.setdefault(cell.method.name, cell)
    grids, timelines = [], []
    for name, cell in chosen.items():
        if cell.method.kind == "images":
            place = workplace.sets.place(cell.method, cell.seed)
            if not (place / "set.json").is_file():  # removed to save space: the numbers do not need them
                continue
            grids.append(replace(set_grid(place), name=name, note="sorted by the teacher's prediction"))
        elif cell.method.kind == "real":
            grids.append(_real(workplace.train, workplace))
        elif (images := timeline(workplace.place(cell))) is not None:
            rows = sorted({round(row * (len(images.epochs) - 1) / (EPOCHS - 1)) for row in range(EPOCHS)})
            few = {"pixels": images.pixels[rows], "epochs": [images.epochs[row] for row in rows]}
            timelines.append(replace(images, name=name, **few))
    return grids, timelines


def _real(train: Dataset | None, workplace: Workplace) -> Grid:
    assert train is not None
    return real_grid(train, workplace.teacher.spec)
