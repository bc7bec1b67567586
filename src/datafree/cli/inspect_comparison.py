"""datafree inspect, for the folder of a comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .._core.errors import UserError
from .._core.files import read_json
from .._core.settings import first_problem
from .json_output import result

__all__ = ["inspect_comparison"]


class _Stored(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)


class _Spread(_Stored):
    mean: float
    sd: float | None
    n: int


class _Row(_Stored):
    method: str
    student: str
    control: bool
    is_best: bool
    accuracy: _Spread | None


class _Unfinished(_Stored):
    cell: str
    reason: str
    failed: bool


class _Comparison(_Stored):
    """What is shown of comparison.json."""

    format: Literal[1]
    teacher: str
    teacher_accuracy: float
    data: str
    protocol: dict[str, Any]
    rows: list[_Row]
    cells: list[dict[str, Any]]
    unfinished: list[_Unfinished]
    notes: list[str]


def inspect_comparison(folder: Path) -> None:
    """Prints the table of a comparison. Raises UserError for a damaged table, and if there is none yet."""
    from .inspect import listed

    path = folder / "comparison.json"
    if not path.is_file():
        count = sum(1 for _ in folder.glob("cells/*/*/seed-*/cell.json"))
        raise UserError(
            f"{folder} holds a comparison with {count} measured cell{'s' * (count != 1)} and no table yet: give the same "
            "`datafree compare` again to finish it"
        )
    content = read_json(path)
    try:
        table = _Comparison.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"{path}: {first_problem(error)}; give the same `datafree compare` again to write it again"
        ) from None
    result({"kind": "comparison", **content})
    measured, count = len(table.cells), len(table.cells) + len(table.unfinished)
    print(f"{folder}: comparison of students of {table.teacher}, {measured} of {count} cells measured")
    print(f"  the teacher's accuracy is {table.teacher_accuracy:.2f} % on {table.data}")
    for row in table.rows:
        kind = ", a control" if row.control else ", the best data-free method" if row.is_best else ""
        print(f"  {row.student} by {row.method}: {_accuracy(row.accuracy)}{kind}")
    for cell in table.unfinished:
        print(f"  {'failed' if cell.failed else 'not measured'}: {cell.cell}: {cell.reason}")
    for note in table.notes:
        print(f"  note: {note}")
    print(f"  protocol {table.protocol.get('start', 'unknown')} start")
    for line in listed({key: value for key, value in table.protocol.items() if key != "start"}):
        print(f"    {line}")


def _accuracy(accuracy: _Spread | None) -> str:
    """`22.00 ± 1.50 %, 3 seeds`."""
    if accuracy is None:
        return "no result"
    sd = "" if accuracy.sd is None else f" ± {accuracy.sd:.2f}"
    return f"{accuracy.mean:.2f}{sd} %, {accuracy.n} seed{'s' * (accuracy.n != 1)}"
