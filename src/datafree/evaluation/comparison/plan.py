"""A checked comparison: its cells, and the table of those that are finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..._core.errors import UserError
from ..._core.files import claim_folder, sweep, write_json, write_text
from ..._core.files.lock import InUse, waiting_lock
from ..._core.progress import Progress, silent
from ..._core.user_code import failed_place
from ...data import sha256
from ...runs.output_folder import read_log
from ...runs.run_log import RunLog
from ...synthesis.synthetic_set import memory_hashes
from ..accuracy import chance_level, evaluate
from ..report.measured_on import measured_on
from .cell import Cell, CellResult, Student
from .data_notes import data_notes
from .methods import ComparedMethod
from .notes import notes_of
from .result import Comparison, Unfinished, comparison_rows
from .stored import stored_json
from .workplace import Workplace

__all__ = ["KIND", "ComparisonPlan"]

KIND = "comparison"
"""The kind in the folder's marker."""
UNITS = 100
"""Units of progress of a cell."""
TEACHER = "teacher.json"


@dataclass(frozen=True)
class ComparisonPlan:
    """A comparison that is checked and ready to run."""

    workplace: Workplace
    methods: tuple[ComparedMethod, ...]
    students: tuple[Student, ...]
    seeds: tuple[int, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """All cells, seed by seed, so that a stopped comparison has complete seeds."""
        return tuple(
            Cell(method, student, seed) for seed in self.seeds for student in self.students for method in self.methods
        )

    def cell(self, name: str) -> Cell:
        """The cell of a `METHOD/STUDENT/SEED`. Raises UserError if there is none."""
        cells = {cell.id: cell for cell in self.cells}
        if name not in cells:
            raise UserError(
                f"cell: got {name!r}, expected METHOD/STUDENT/SEED of one of the {len(cells)} cells, such as "
                f"{next(iter(cells))}; give such a cell"
            )
        return cells[name]

    def unfinished(self) -> list[Cell]:
        """The cells that have no result yet. Raises UserError for a result of other settings, unless it is replaced."""
        return [cell for cell in self.cells if self.workplace.finished(cell) is None]

    def run_cell(self, cell: Cell, progress: Progress = silent) -> CellResult:
        """Measures one cell, or continues it; its result if it is finished. Raises UserError if it fails."""
        self.teacher_accuracy()
        return self.workplace.run(cell, progress)

    def run(
        self,
        *,
        on_cell: Callable[[Cell, CellResult | str], object] | None = None,
        log: RunLog | None = None,
        progress: Progress = silent,
    ) -> Comparison:
        """Measures the cells that are not finished, and writes the table. A cell that fails does not stop the others.

        `on_cell` is called with each cell that this call measured, and its result or the reason why it failed. `log` is
        written to run.json; by default one of a call from Python. Raises UserError if all cells failed, with the first
        one's reason.
        """
        log = log or self._log()
        log.check(self.workplace.folder)
        self.unfinished()  # refuses what other settings left before the first cell starts
        accuracy = self.teacher_accuracy()
        cells, results, unfinished = self.cells, [], []
        for number, cell in enumerate(cells):
            result = self.workplace.finished(cell)
            if result is None:
                result = self._attempt(cell, _share(progress, number, len(cells)))
                if on_cell is not None:
                    on_cell(cell, result.reason if isinstance(result, Unfinished) else result)
            (unfinished if isinstance(result, Unfinished) else results).append(result)
            progress((number + 1) * UNITS, len(cells) * UNITS)
        for missing in [cell for cell in unfinished if not cell.failed]:  # another run may have finished it since
            result = self.workplace.finished(self.cell(missing.cell))
            if result is not None:
                unfinished.remove(missing)
                results.append(result)
        if not results and all(cell.failed for cell in unfinished):
            raise UserError(f"{unfinished[0].reason} ({unfinished[0].cell}; no cell could be measured)")
        return self._written(accuracy, results, unfinished, log)

    def protocol(self) -> dict[str, Any]:
        """Protocol, methods, students and seeds, for logs."""
        return {
            **self.workplace.protocol.settings(), "methods": [method.name for method in self.methods],
            "students": [student.name for student in self.students], "seeds": list(self.seeds),
        }  # fmt: skip

    def _log(self) -> RunLog:
        """The log of a call from Python."""
        workplace = self.workplace
        hashes = memory_hashes(workplace.teacher, workplace.sets.record)
        settings = {**self.protocol(), "device": str(workplace.teacher.device)}
        return RunLog("compare", settings, {}, workplace.test, workplace.train, hashes=hashes)

    def _attempt(self, cell: Cell, progress: Progress) -> CellResult | Unfinished:
        try:
            return self.workplace.run(cell, progress)
        except InUse as error:
            reason, failed = str(error), False
        except UserError as error:
            reason, failed = str(error), True
        except Exception as error:
            place = failed_place(error)
            if place is None:
                raise
            reason, failed = f"the code in {place} fails with {type(error).__name__}: {str(error)[:300]}", True
        return Unfinished(cell.id, cell.method.name, cell.student.name, cell.seed, reason, failed)

    def teacher_accuracy(self) -> float:
        """In %, measured once for the folder, which is claimed. Raises UserError if it is near chance, or for a folder of
        something else.
        """
        workplace, path = self.workplace, self.workplace.folder / TEACHER
        inputs = {"teacher": workplace.teacher.fingerprint(), "test images": sha256(workplace.test)}
        stored = stored_json(path, "remove that file to measure it again") if path.is_file() else {}
        accuracy = stored.get("accuracy")
        if stored.get("inputs") == inputs and isinstance(accuracy, float) and 0 <= accuracy <= 100:
            claim_folder(workplace.folder, kind=KIND)
            return accuracy
        teacher, test = workplace.teacher, workplace.test
        accuracy = evaluate(teacher, test).accuracy
        if level := chance_level(accuracy, len(test), len(teacher.spec.classes)):
            raise UserError(
                f"teacher: got {accuracy:.2f} % on {measured_on(test)}, {level}, expected a network that was trained for "
                "this data, with its classes in this order, and its mean and std; give the data that it was trained for"
            )
        claim_folder(workplace.folder, kind=KIND)
        write_json(path, {"inputs": inputs, "accuracy": accuracy})
        return accuracy

    def _data_notes(self) -> list[str]:
        learns_from_real_images = any(method.kind == "real" for method in self.methods)
        return data_notes(self.workplace.test, self.workplace.train if learns_from_real_images else None)

    def _written(
        self, accuracy: float, results: Sequence[CellResult], unfinished: Sequence[Unfinished], log: RunLog
    ) -> Comparison:
        from .page import page
        from .table import as_json

        workplace = self.workplace
        comparison = Comparison(
            workplace.teacher.name, accuracy, measured_on(workplace.test), self.protocol(),
            comparison_rows(self.cells, results, [student.name for student in self.students]), tuple(results),
            tuple(unfinished), (*self._data_notes(), *notes_of(
                self.methods, self.students, results, workplace.protocol, len(self.seeds)
            )),
            workplace.folder,
        )  # fmt: skip
        with waiting_lock(workplace.folder, file="comparison.json"):
            sweep(workplace.folder)
            write_text(workplace.folder / "comparison.html", page(comparison, self.cells, workplace))
            write_text(workplace.folder / "comparison.md", comparison.markdown())
            write_json(workplace.folder / "comparison.json", as_json(comparison))
            result = {"accuracy": {cell.id: cell.accuracy for cell in results}}
            if read_log(workplace.folder).get("result") != result:  # the same call again leaves the log as it is
                log.write(workplace.folder, result)
        return comparison


def _share(progress: Progress, number: int, count: int) -> Progress:
    """Progress of cell `number` of `count`."""
    return lambda done, total: progress(number * UNITS + min(UNITS, UNITS * done // max(total, 1)), count * UNITS)
