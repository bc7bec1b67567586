"""A comparison in one call: checks everything, runs the cells that are not finished, and writes the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from ..._core.arguments import check_count, checked
from ..._core.errors import UserError
from ..._core.files import check_claim
from ..._core.progress import Progress, silent
from ...data import load, sha256
from ...data.adapters import LabelledData, as_dataset
from ...distillation.schedule import Distillation
from ...distillation.students import Start, StudentLike, new_student, student_name
from ...distillation.views import check_shift
from ...models import zoo
from ...models.network import Network
from ...records.record import Record
from ...releases.release import is_of_zoo
from .cell import Cell, CellResult, Student
from .methods import MethodLike, compared_methods, label_of
from .plan import KIND, ComparisonPlan
from .protocol import IMAGES, Protocol, check_online
from .result import Comparison
from .sets import ImageSets
from .workplace import Workplace

__all__ = ["SEEDS", "compare", "plan_comparison"]

SEEDS = 3
"""Default number of seeds."""
MOST_SEEDS = 10_000
"""The table of more does not fit into memory."""
StudentsLike: TypeAlias = StudentLike | Sequence[StudentLike]


def plan_comparison(
    teacher: Network,
    data: LabelledData | str,
    *,
    methods: Sequence[MethodLike] | Mapping[str, MethodLike] | None = None,
    students: StudentsLike | None = None,
    seeds: int = SEEDS,
    images: int = IMAGES,
    steps: int | None = None,
    budget: float | str | None = None,
    start: Start = "random",
    controls: bool = True,
    train: LabelledData | None = None,
    record: Record | None = None,
    out: str | Path = "comparison",
    settings: Distillation | Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int | None = None,
    replace: bool = False,
) -> ComparisonPlan:
    """Checks the arguments as `compare` does, without measuring anything. Raises the same errors."""
    check_count("seeds", seeds)
    if seeds > MOST_SEEDS:
        raise UserError(f"seeds: got {seeds}, expected at most {MOST_SEEDS:,}; give a smaller number")
    if workers is not None:
        check_count("workers", workers)
    protocol = Protocol.of(settings, start, images, steps, budget)
    teacher.check()
    check_shift(protocol.training, teacher.spec)
    if record is not None:
        record.check_teacher(teacher)
    if isinstance(data, str):
        train = load(data, "train") if train is None and controls else train
        data = load(data, "test")
    test = as_dataset(data, teacher)
    training = None if train is None else as_dataset(train, teacher, name="train")
    if training is not None and sha256(training) == sha256(test):
        raise UserError("train: got the test images, expected other images; give the training split, or leave it out")
    chosen = compared_methods(methods, teacher, record, controls=controls, has_training_data=training is not None)
    for method in chosen:
        if method.kind == "online":
            check_online(protocol, method)
    folder = Path(out)
    check_claim(folder, kind=KIND)
    sets = ImageSets(folder / "sets", teacher, record, protocol, workers, replace)
    workplace = Workplace(folder, teacher, test, training, protocol, sets, replace)
    networks = _students(students, teacher, seed)
    return ComparisonPlan(workplace, chosen, networks, tuple(range(seed, seed + seeds)))


@checked
def compare(
    teacher: Network,
    data: LabelledData | str,
    *,
    methods: Sequence[MethodLike] | Mapping[str, MethodLike] | None = None,
    students: StudentsLike | None = None,
    seeds: int = SEEDS,
    images: int = IMAGES,
    steps: int | None = None,
    budget: float | str | None = None,
    start: Start = "random",
    controls: bool = True,
    train: LabelledData | None = None,
    record: Record | None = None,
    out: str | Path = "comparison",
    settings: Distillation | Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int | None = None,
    replace: bool = False,
    on_cell: Callable[[Cell, CellResult | str], object] | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Students of `teacher` by method, all trained under one protocol, and writes the table to the folder `out`.

        comparison = compare(teacher, "digits", out="comparison")
        print(comparison.markdown())

    `data` are labelled test images: a data set's name, or what `as_dataset` takes. With a name, the training images are
    loaded for the control `real`; otherwise give them as `train`.

    `methods` are names of synthesis methods, `online`, `online:MEMORY`, `online:PRESET`, `file.py:Class`, or settings; a
    dict {name: method} for several settings of one method. By default those that need nothing but this teacher and its
    `record`. The `controls` `real` (the same student on real training images) and `noise` are added and never ranked.
    `students` are as for `distill`; by default half of the teacher.

    Every student has the same start, training (`settings`, fields of `Distillation` without `epochs`) and number of `steps`
    (200), rounded up to whole epochs. Synthesis methods make `images` images once for every seed; online methods make new
    ones in every step. With a `budget` in seconds, or as "10m", every cell gets that CPU time for images and training
    instead; numbers of images and steps are chosen from a short measurement.

    Cells are kept in `out`: the same call measures nothing again, continues a stopped cell, and gives the same result.
    Several processes may run it at once. A result of other settings is refused, unless `replace`. `on_cell` is called with
    each cell that was measured, and its result or the reason of its failure.

    Returns the rows over `seeds` seeds, from `seed` on; comparison.json, .md and .html show them. Raises UserError before
    the first cell for an unknown method, a student or data that do not fit, and a teacher near chance on the data; and if
    all cells fail.
    """
    plan = plan_comparison(
        teacher, data, methods=methods, students=students, seeds=seeds, images=images, steps=steps, budget=budget,
        start=start, controls=controls, train=train, record=record, out=out, settings=settings, seed=seed,
        workers=workers, replace=replace,
    )  # fmt: skip
    return plan.run(on_cell=on_cell, progress=progress)


def _students(students: StudentsLike | None, teacher: Network, seed: int) -> tuple[Student, ...]:
    """The students. Raises UserError for one that does not fit the teacher, and for two of one name."""
    if students is None and is_of_zoo(teacher) and zoo.half(teacher.name) is None and zoo.narrower(teacher.name):
        students = "half"
    many = students is not None and not isinstance(students, (str, Network, nn.Module))
    sources: Sequence[Any] = students if many else [students]  # type: ignore[assignment]
    if not sources:
        raise UserError("students: got none, expected at least one; name one, or leave it out for half of the teacher")
    chosen: list[Student] = []
    for source in sources:
        resolved = student_name(teacher, source) if source is None or isinstance(source, str) else source
        network = new_student(resolved, teacher, seed=seed)
        name = _shown(resolved) if isinstance(resolved, str) else network.name
        if label_of(name) in {student.label for student in chosen}:
            raise UserError(f"students: got {name!r} twice, expected each once; leave one out, or rename it")
        chosen.append(Student(name, label_of(name), resolved))
    return tuple(chosen)


def _shown(name: str) -> str:
    """A student's name without the folders of its file: `net:build` of `some/net.py:build`."""
    place, colon, function = name.rpartition(":")
    return f"{Path(place).stem if place.endswith('.py') else place}:{function}" if colon else name
