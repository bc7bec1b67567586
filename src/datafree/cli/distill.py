"""datafree distill: from a synthetic set, condensed images or data; `fresh` and `online` are commands of their own."""

# Annotations are evaluated: the options are classes that are made from settings.

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from .._core.distributed import main_process, together
from .._core.errors import UserError
from .arguments import Data, Model, RecordedModel, Run, Start, Whole, WithCode, settings_of, without_condensed
from .loading import (
    check_code,
    check_record,
    code_for_student,
    code_of,
    code_of_settings,
    identity_of,
    inputs_of,
    load_data,
    load_network,
    load_record,
    resumed,
    test_data,
)
from .method_options import flattened, of_settings, values
from .progress_bar import bar
from .results import say_accuracy, say_batch, say_size, say_start
from .settings_source import SettingsText, read
from .synthesize import DEFAULT, METHODS

if TYPE_CHECKING:
    from ..distillation.distill import DistillationPlan
    from ..distillation.prune import PruningPlan
    from ..models.network import Network

__all__ = ["TRAINING", "app", "distill", "fresh_app", "fresh_command", "run_distillation"]

app = App(name="distill")
fresh_app = App(
    name="fresh",
    help="""Train a student on images that a synthesis method makes again for every epoch.

The first word after `fresh` is the method. Without one it is `distribution`.

Example: datafree distill fresh distribution teacher lenet5-half --out student""",
)
TRAINING = Group("Training", sort_key=1)
CONDENSED = Group("With --condensed", sort_key=2)
IMAGES = Group("Images", sort_key=0)
METHOD_FLAGS = {
    "batch": "--method-batch", "learning_rate": "--method-learning-rate", "precision": "--method-precision",
    "start": "--method-start",
}  # fmt: skip
"""Flags of fields that the method and the student's training both have; the student's are --learning-rate, --precision."""
IS_FIELD = re.compile(r"\w+: ")
"""Start of an error about one setting."""
SHARE = 0.5
EPOCH_IMAGES = 20_000
"""As in `distillation.source_choice` and `distillation.sources`, which import torch; a test compares the signatures."""
VIEWS = ("shift", "flip", "mixup")
"""Settings of the training that only stored images have a use for; some methods have flags of these names."""
Settings = of_settings(read("datafree.distillation.schedule", "Distillation"), group=TRAINING)
FreshSettings = of_settings(read("datafree.distillation.schedule", "Distillation"), without=VIEWS, group=TRAINING)
Augmented = of_settings(read("datafree.data.augmentation", "Augmentation"), group=CONDENSED)


def distill(
    teacher: str,
    student: str | None = None,
    /,
    *,
    out: Path,
    images: Annotated[Path | None, Parameter(name="--set")] = None,
    condensed: Path | None = None,
    share: Annotated[float, Parameter(group=CONDENSED)] = SHARE,
    epoch_images: Annotated[Whole | None, Parameter(group=CONDENSED)] = None,
    augmentation: Annotated[Augmented | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    start: Start = "random",
    settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    with_code: WithCode = False,
    data: Data | None = None,
    source: Model | None = None,
    run: Run | None = None,
) -> None:
    """Train a smaller student to answer like its teacher, and write it as a release folder.

    `datafree distill online` needs no images at all: a generator learns beside the student. `datafree distill fresh`
    makes new images for every epoch with a method of `datafree synthesize`. A release folder of such a name is written
    ./online or ./fresh.

    Example: datafree distill teacher --set set --out student

    Example: datafree distill teacher --set set --condensed condensed --out student

    Example: datafree distill online teacher --out student

    Example: datafree distill fresh distribution teacher lenet5-half --out student

    Example (the baseline, with data): datafree distill teacher --data mnist --out baseline

    Parameters
    ----------
    teacher
        Release folder. With --weights, those weights are used instead of its own.
    student
        Zoo name, `half` (of the teacher's channels), `shallow` (fewer blocks), or file.py:function of your own; by
        default the half that the papers use for a teacher of the zoo, otherwise `half`.
    out
        Release folder to write for the student.
    images
        Synthetic set to learn from. With --data and no --set, the student learns from the real data: the baseline.
    condensed
        Condensed set, shown augmented: beside --set a --share of every batch, without it all of it.
    share
        Share of every batch that are condensed images; the rest are those of --set.
    epoch_images
        Number of images per epoch; the size of --set by default, 10,000 without one.
    start
        `teacher`: copy the teacher's most informative channels (the student must have the same layers, none wider).
        `random`: random weights.
    with_code
        Put the Python file that builds the network, and what it imports from its folder, into the release as text.
    """
    from ..data.augmentation import Augmentation

    options: dict[str, Any] = {"condensed": condensed, "share": share, "epoch_images": epoch_images}
    if condensed is None and (changes := values(augmentation)):
        raise without_condensed(next(iter(changes)))
    if condensed is not None:
        options["augmentation"] = Augmentation(**values(augmentation))
    if condensed is None and images is None and (data is None or data.data is None):
        raise UserError(
            "nothing to learn from, expected --set SET, --condensed SET or --data NAME; give one of them, or use "
            "datafree distill online"
        )
    learned = {"images": images, **options}
    run_distillation(teacher, student, out, learned, start, values(settings), with_code, data, source, run)


def fresh_command(method: str, text: SettingsText) -> Callable[..., None]:
    """The command of one synthesis method, whose flags are the fields of its settings and of `Distillation`."""
    Options = of_settings(text, without=["method"], flags=METHOD_FLAGS, group=IMAGES)

    def fresh(
        teacher: str,
        student: str | None = None,
        /,
        *,
        out: Path,
        epoch_images: Whole = EPOCH_IMAGES,
        start: Start = "random",
        method_settings: Annotated[Options | None, flattened(Options)] = None,  # pyright: ignore[reportInvalidTypeForm]
        settings: Annotated[FreshSettings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
        with_code: WithCode = False,
        data: Data | None = None,
        source: RecordedModel | None = None,
        run: Run | None = None,
    ) -> None:
        """Train a student on images that a synthesis method makes again for every epoch.

        The first word after `fresh` is the method. Without one it is `distribution`.

        Example: datafree distill fresh distribution teacher lenet5-half --out student

        Parameters
        ----------
        teacher
            Release folder. With --weights or --record, those are used instead of its own.
        student
            Zoo name, `half` (of the teacher's channels), `shallow` (fewer blocks), or file.py:function of your own; by
            default the half that the papers use for a teacher of the zoo, otherwise `half`.
        out
            Release folder to write for the student.
        epoch_images
            Number of new images per epoch.
        start
            `teacher`: copy the teacher's most informative channels (the student must have the same layers, none wider).
            `random`: random weights.
        with_code
            Put the Python file that builds the network, and what it imports from its folder, into the release as text.
        """
        from ..synthesis import methods

        try:
            chosen = methods.from_name(method, **values(method_settings))
        except UserError as error:  # its flags may begin with --method-
            raise UserError(f"method.{error}" if IS_FIELD.match(str(error)) else str(error)) from None
        options = {"method": chosen, "epoch_images": epoch_images}
        run_distillation(teacher, student, out, options, start, values(settings), with_code, data, source, run)

    return fresh


@together()
def run_distillation(
    teacher: str, student: str | None, out: Path, options: dict[str, Any], start: Start, changes: dict[str, Any],
    with_code: bool, data: Data | None, source: Model | None, run: Run | None, *,
    pruning: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """`options` are those of `plan_distillation` that say what the student learns from; without any it is real data.

    `pruning` has the arguments of `plan_pruning` for a student that is the pruned teacher.
    """
    from ..distillation.distill import plan_distillation
    from ..distillation.prune import PruningPlan, plan_pruning
    from ..distillation.students import student_name
    from ..evaluation.accuracy import evaluate
    from ..evaluation.student_release import write_student
    from ..releases.release import RELEASE_FOLDER
    from ..runs.output_folder import STATE, earlier_settings, output_folder
    from ..runs.run_log import RunLog, hash_of
    from ..synthesis.synthetic_set import SyntheticSet

    data, source, run = data or Data(), source or Model(), run or Run()
    run = resumed(run, out / STATE)
    network = load_network(teacher, source, run)
    record = load_record(teacher, source, network) if "method" in options else None
    if record is None:
        check_code(teacher, source, network)
    else:
        check_record(options["method"], network, source, record)
    verb, name = ("distill", student_name(network, student)) if pruning is None else ("prune", network.name)
    sets = {role: path for role in ("condensed", "images") if (path := options.get(role)) is not None}
    real = load_data(data, "train") if not sets and "method" not in options else None
    learned: dict[str, Any] = dict(options) if real is None else {**options, "images": real}
    if "images" in sets and not (sets["images"] / "set.json").is_file():
        SyntheticSet.open(sets["images"])  # raises what is wrong: other images come as --data
    with bar(f"{verb} {name}", run.quiet) as progress:
        common = {"seed": run.seed, "progress": progress, **changes, **learned}
        if pruning is None:
            plan = plan_distillation(network, name, record=record, start=start, **common)
        else:
            plan = plan_pruning(network, **pruning, **common)
    plan = plan.with_temperature_of(earlier_settings(out))
    student_network, chosen, settings = plan.student, plan.chosen, plan.settings
    code = code_for_student(name, student_network, with_code, teacher=teacher, source=source)
    test = test_data(student_network, data, complete=real is not None)
    no_set = {"images": None} if "method" not in options else {}
    student_of = {"student": name} if pruning is None else dict(pruning)
    logged = {
        "teacher": teacher, **student_of, "learns_from": chosen.description, **no_set, **sets, **chosen.settings,
        **asdict(data), **settings.model_dump(), **({} if start == "random" else {"start": start}), **settings_of(source),
        **asdict(run), **({"with_code": True} if with_code else {}),
    }  # fmt: skip
    inputs = inputs_of(teacher, source, role="teacher", record=record is not None)
    student_code = code_of("student", name) if pruning is None else {}
    log = RunLog(verb, logged, {
        **inputs, **student_code, **code_of_settings("method", chosen.method), **sets,
    }, real, test)  # fmt: skip
    read = {
        "teacher": network.fingerprint(),
        "record": record and record.digest(),
        "sets": [*map(hash_of, sets.values())],
    }
    folders = output_folder(out, RELEASE_FOLDER, log, reads=[teacher, *sets.values()])
    with folders as folder, bar(f"{verb} {name}", run.quiet) as progress:
        if folder is None:
            return
        if main_process():
            _say_before(plan, settings.epochs)
        state, identity = folder / STATE, {**identity_of(log.content["settings"], student_network, log), **read}
        if isinstance(plan, PruningPlan):
            measured = None if test is None else partial(_accuracy, data=test)
            student_network = plan.run(state=state, identity=identity, accuracy=measured, progress=progress)
        else:
            student_network = plan.run(state=state, identity=identity, progress=progress)
        if not main_process():
            return
        evaluation = None if test is None else evaluate(student_network, test, network)
        original = None if test is None or pruning is None else evaluate(network, test)
        data_name = "" if test is None else test.public
        result = write_student(folder, student_network, log, evaluation, data_name, code=code)
    _say_rounds(student_network, original)
    _say(folder, student_network, network, result)
    say_batch(settings.batch, len(chosen.source))
    say_start(start, student_network.training.started_from_teacher)


def _accuracy(network: "Network", data: Any) -> float:
    from ..evaluation.accuracy import evaluate

    return evaluate(network, data).accuracy


def _say_rounds(student: "Network", original: Any) -> None:
    """What pruning left, before each repair."""
    from ..distillation.prune import PrunedNetwork

    if not isinstance(student, PrunedNetwork):
        return
    if original is not None:
        print(f"accuracy before pruning {original.accuracy:.2f} %")
    for number, entry in enumerate(student.rounds, 1):
        which = f" in round {number} of {len(student.rounds)}" if len(student.rounds) > 1 else ""
        accuracy = "" if entry.accuracy is None else f"accuracy {entry.accuracy:.2f} %, "
        print(
            f"pruned{which} to {entry.weights:,} weights: {accuracy}agreement {entry.agreement:.2f} % on the images it "
            "learns from, before the repair"
        )


def _say_before(plan: "DistillationPlan | PruningPlan", epochs: int) -> None:
    """Prints what should be known before the training: the cost of fresh images, and images of little worth."""
    if plan.chosen.method is not None:
        _say_cost(plan.chosen.method, len(plan.chosen.source), epochs)
    for warning in plan.chosen.warnings:
        pronoun = "them" if plan.chosen.synthetic is None else "it"
        print(f"warning: {warning}; a student will learn little from {pronoun}")


def _say_cost(method: Any, count: int, epochs: int) -> None:
    """That images which are optimised one by one are made again for every epoch, where the method does so."""
    steps = getattr(getattr(method, "settings", method), "steps", None)
    if isinstance(steps, int):
        print(
            f"  {method.method} takes {steps:,} steps for every image, and {count * epochs:,} images are made in all: "
            f"a set made once is faster (datafree synthesize {method.method}, then distill --set)"
        )


def _say(folder: Path, student: "Network", teacher: "Network", result: dict[str, Any]) -> None:
    say_size(folder, student, teacher)
    if "agreement_on_what_it_learnt_from" in result:
        print(
            f"agreement with the teacher on the images it learned from: {result['agreement_on_what_it_learnt_from']:.2f} %"
        )
    say_accuracy(result)


app.default(distill)
fresh_app.default(fresh_command(DEFAULT, METHODS[DEFAULT]))
for _name, _text in METHODS.items():
    fresh_app.command(fresh_command(_name, _text), name=_name, help=_text.summary)
app.command(fresh_app)
app.command(
    "datafree.cli.online:online", name="online", help="a generator that learns beside the student; no images needed"
)
