"""datafree compare"""

# Annotations are evaluated: the options are a class that is made from settings.

import dataclasses
import shlex
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from .._core.errors import UserError
from .._core.unused import unused
from ..runs.command_line import ARGV
from .arguments import Data, RecordedModel, Run, Start, Whole, settings_of
from .flags import in_flags
from .json_output import result
from .loading import code_of, code_of_settings, inputs_of, load_data, load_record, load_teacher, say_fit
from .method_options import of_settings, values
from .progress_bar import bar
from .settings_source import SettingsText, read

if TYPE_CHECKING:
    from ..evaluation.comparison import Comparison, ComparisonPlan

__all__ = ["compare"]

TRAINING = Group("Training, the same for every method", sort_key=1)
SCHEDULING = Group("One cell at a time", sort_key=2)
SEEDS, IMAGES = 3, 400
"""As in `evaluation.comparison`, which imports torch; a test compares the signatures."""
INCOMPLETE = 1
"""Exit code if the table is written, but some cells have no result."""
FAST = (
    "Without --learning-rate, --optimizer and --warmup, every student has Muon, 0.02 (0.002 with --start teacher) and a "
    "warm-up of 0.1."
)
"""Their defaults here, as in `evaluation.comparison.training`: those of `Distillation` hold if one of the three is given."""


def _training(text: SettingsText) -> SettingsText:
    """With the default of the learning rate as it is in a comparison."""
    fields = (
        dataclasses.replace(field, help=f"Peak learning rate of the optimizer. {FAST}")
        if field.name == "learning_rate"
        else field
        for field in text.fields
    )
    return dataclasses.replace(text, fields=tuple(fields))


Settings = of_settings(
    _training(read("datafree.distillation.schedule", "Distillation")), without=["epochs"], group=TRAINING
)


def compare(
    teacher: str,
    /,
    *,
    out: Path,
    methods: str | None = None,
    students: str | None = None,
    seeds: Whole = SEEDS,
    images: Whole = IMAGES,
    steps: Whole | None = None,
    budget: str | None = None,
    start: Start = "random",
    controls: bool = True,
    settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    replace: Annotated[bool, Parameter(negative="")] = False,
    print_cells: Annotated[bool, Parameter(negative="", group=SCHEDULING)] = False,
    cell: Annotated[str | None, Parameter(group=SCHEDULING)] = None,
    workers: Whole | None = None,
    data: Data | None = None,
    source: RecordedModel | None = None,
    run: Run | None = None,
) -> int:
    """Compare methods on one teacher under one protocol: a table over seeds, with controls, as Markdown, JSON and a page.

    Every method trains the same students with the same number of steps, or in the same time. The same command continues a
    stopped comparison, and measures nothing again. The exit code is 1 if some cells have no result.

    Example: datafree compare teacher --data digits --out comparison

    Example: datafree compare teacher --data digits --methods inception,online,online:vae --steps 1000 --out comparison

    Example: datafree compare teacher --data digits --budget 60s --out timed

    Example (on many processors): datafree compare teacher --data digits --out comparison --print-cells

    Parameters
    ----------
    teacher
        Release folder. With --weights or --record, those are used instead of its own.
    out
        Folder for the cells, comparison.md, comparison.json and comparison.html.
    methods
        Methods with commas between: those of datafree synthesize, file.py:Class, online, online:MEMORY, online:PRESET. By
        default those that need nothing but this teacher and its record.
    students
        Students with commas between: zoo names, half, shallow, or file.py:function; by default half of the teacher.
    seeds
        Number of seeds, from --seed on.
    images
        Number of images of each synthesis method, made once for every seed; with --budget, the most.
    steps
        Number of student steps, rounded up to whole epochs; 200 by default.
    budget
        Time of a cell for making images and training, instead of --steps: 90s, 10m or 2h. CPU time, or wall time on a GPU.
    start
        `teacher`: copy the teacher's most informative channels (the student must have the same layers, none wider).
        `random`: random weights.
    controls
        Add the controls: the student on real training images, and on noise.
    replace
        Measure cells of other settings again, instead of refusing them.
    print_cells
        Print a command for each cell without a result, for xargs or a batch system, and measure nothing.
    cell
        Measure this METHOD/STUDENT/SEED alone, and write no table.
    workers
        Number of chunks made at a time, one thread each; the number of cores by default.
    """
    data, source, run = data or Data(), source or RecordedModel(), run or Run()
    if print_cells and cell is not None:
        raise UserError("--cell: got it with --print-cells, expected one of them; leave one out")
    plan = _plan(
        teacher, data, source, run, methods=_words(methods, "methods"), students=_words(students, "students"), seeds=seeds,
        images=images, steps=steps, budget=budget, start=start, controls=controls, out=out, settings=values(settings),
        workers=workers, replace=replace, quiet=print_cells,
    )  # fmt: skip
    if print_cells:
        return _print_cells(plan)
    if cell is not None:
        return _run_cell(plan, cell, run.quiet)
    return _run(plan, teacher, data, source, run)


def _words(text: str | None, flag: str) -> list[str] | None:
    """The words between commas."""
    if text is None:
        return None
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise UserError(f"--{flag}: got {text!r}, expected names with commas between; remove the empty one")
    return words


def _plan(
    teacher: str, data: Data, source: RecordedModel, run: Run, *, methods: list[str] | None, controls: bool, quiet: bool,
    **options: Any,
) -> "ComparisonPlan":  # fmt: skip
    from ..evaluation.comparison import plan_comparison
    from ..synthesis.methods import reads_record

    network = load_teacher(teacher, source, run)
    record = load_record(teacher, source, network)
    test = load_data(replace(data, limit=None), "test", quiet=quiet)
    if not quiet:
        say_fit(network, test)
    needs_training = controls or "real" in (methods or ())
    if not needs_training and data.limit is not None:
        unused("limit", data.limit, "without the control `real`, which learns from training images", "`controls`")
    train = load_data(data, "train", beside=test, quiet=quiet) if needs_training else None
    plan = plan_comparison(
        network, test, methods=methods, controls=controls, train=train, record=record, seed=run.seed, **options
    )
    readers = (method for method in plan.methods if method.kind == "images")
    if source.record is not None and record is not None:
        reads_it = any(reads_record(method.settings, network, record) for method in readers)
        if not reads_it:
            unused("record", source.record, "with methods that use nothing that it holds", "a method that does")
    return plan


def _print_cells(plan: "ComparisonPlan") -> int:
    words = [word for word in ARGV.get() if word != "--print-cells"]
    lines = [shlex.join([*_program(), *words, "--cell", cell.id]) for cell in plan.unfinished()]
    result({"commands": lines})
    for line in lines:
        print(line)
    return 0


def _program() -> list[str]:
    """How datafree was started: a shell may not find `datafree` where it was `python -m datafree`."""
    is_module = Path(sys.argv[0]).parts[-2:] == ("datafree", "__main__.py")
    return [sys.executable, "-m", "datafree"] if is_module else ["datafree"]


def _run_cell(plan: "ComparisonPlan", name: str, quiet: bool) -> int:
    cell = plan.cell(name)
    with bar(f"compare {cell.id}", quiet) as progress:
        measured = plan.run_cell(cell, progress)
    result({"cell": measured.model_dump(mode="json")})
    print(f"{cell.id}: accuracy {measured.accuracy:.2f} % after {measured.steps:,} steps, {measured.seconds:.1f} s")
    return 0


def _run(plan: "ComparisonPlan", teacher: str, data: Data, source: RecordedModel, run: Run) -> int:
    from ..evaluation.comparison.table import as_json
    from ..runs.run_log import RunLog

    workplace, count = plan.workplace, len(plan.cells)
    inputs = inputs_of(teacher, source, role="teacher", record=True)
    for number, student in enumerate(plan.students):
        name = student.source if isinstance(student.source, str) else None
        inputs |= code_of(f"student {number}" if number else "student", name)
    for method in plan.methods:
        inputs |= code_of_settings(method.name, method.settings)
    settings = {"teacher": teacher, **plan.protocol(), **asdict(data), **settings_of(source), **asdict(run)}
    log = RunLog("compare", settings, inputs, workplace.test, workplace.train)
    with bar(f"compare {count} cells", run.quiet) as progress:
        note = getattr(progress, "note", None)

        def on_cell(cell: Any, outcome: Any) -> None:
            if note is not None:
                words = outcome if isinstance(outcome, str) else f"{outcome.accuracy:.2f} %, {outcome.seconds:.1f} s"
                note(f"{cell.id}: {in_flags(words)}")

        comparison = plan.run(on_cell=on_cell, log=log, progress=progress)
    result(as_json(comparison))
    _say(comparison)
    return INCOMPLETE if comparison.unfinished else 0


def _say(comparison: "Comparison") -> None:
    """Prints the table's main columns, what failed, and where the rest is."""
    from ..evaluation.comparison.table import NARROW_COLUMNS, narrow_values, summary

    print(summary(comparison))
    rows = [("", *NARROW_COLUMNS)]
    rows += [
        (f"{row.student} {row.method}{' (control)' if row.control else ''}", *narrow_values(row))
        for row in comparison.rows
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))
        print("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    for note in comparison.notes:
        print(f"  {note}")
    for cell in comparison.unfinished:
        print(f"{'failed' if cell.failed else 'not measured'}: {cell.cell}: {in_flags(cell.reason)}")
    print(f"{comparison.folder / 'comparison.html'}, comparison.md, comparison.json")
