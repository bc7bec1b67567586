"""datafree distill: from a synthetic set, condensed images or data; `fresh` and `online` are commands of their own."""

# Annotations are evaluated: the options are classes that are made from settings.

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from .._core.distributed import main_process, together, world
from .._core.errors import UserError
from .arguments import Data, Model, Run, Whole
from .loading import (
    check_code,
    code_of,
    identity_of,
    inputs_of,
    load_data,
    load_network,
    load_record,
    resumed,
    test_data,
)
from .method_options import Given, of_settings, values
from .progress_bar import bar
from .settings_source import SettingsText, read
from .synthesize import DEFAULT, METHODS

if TYPE_CHECKING:
    from ..data import Dataset
    from ..distillation.schedule import Distillation
    from ..distillation.sources import Source
    from ..models.agreement import Agreement
    from ..models.network import Network
    from ..records.record import Record
    from .mixed import CondensedSource

__all__ = ["app", "distill", "fresh_app", "fresh_command"]

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
METHOD_FLAGS = {"learning_rate": "--method-learning-rate", "precision": "--method-precision"}
"""Flags of fields that the method and the student's training both have; the student's are --learning-rate, --precision."""
SHARE = 0.5
Settings = of_settings(read("datafree.distillation.schedule", "Distillation"), group=TRAINING)
Augmented = of_settings(read("datafree.data.augmentation", "Augmentation"), group=CONDENSED)


def distill(
    teacher: str,
    student: str | None = None,
    /,
    *,
    out: Path,
    set: Path | None = None,
    condensed: Path | None = None,
    share: Annotated[float | None, Parameter(group=CONDENSED)] = None,
    epoch_images: Annotated[Whole | None, Parameter(group=CONDENSED)] = None,
    how: Annotated[Augmented | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
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
        Zoo name or file.py:function of your own; by default the teacher's half, where the zoo has one.
    out
        Release folder to write for the student.
    set
        Synthetic set to learn from. With --data and no --set, the student learns from the real data: the baseline.
    condensed
        Condensed set, shown augmented: beside --set a --share of every batch, without it all of it.
    share
        Share of every batch that are condensed images; the rest are those of --set. 0.5 by default.
    epoch_images
        Number of images per epoch; the size of --set by default, 10,000 without one.
    """
    from ..distillation.schedule import Distillation

    chosen = Distillation(**values(settings))
    if condensed is None:
        _check_condensed_only(share, epoch_images, how)
        if set is None and (data is None or data.data is None):
            raise UserError(
                "nothing to learn from, expected --set SET, --condensed SET or --data NAME; give one of them, or use "
                "datafree distill online"
            )
        _distill(teacher, student, out, set, chosen, data, source, run)
        return
    from ..data.augmentation import Augmentation
    from .mixed import CondensedSource

    few = CondensedSource(condensed, set, SHARE if share is None else share, epoch_images, Augmentation(**values(how)))
    _distill(teacher, student, out, few, chosen, data, source, run)


def _check_condensed_only(share: float | None, epoch_images: int | None, how: Given | None) -> None:
    """Raises UserError for options of --condensed without it."""
    names = [name for name, value in (("share", share), ("epoch_images", epoch_images)) if value is not None]
    for name in [*names, *values(how)]:
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag}: got it without --condensed, expected --condensed SET; name the set, or leave it out")


def fresh_command(method: str, text: SettingsText) -> Callable[..., None]:
    """The command of one synthesis method, whose flags are the fields of its settings and of `Distillation`."""
    Options = of_settings(text, without=["method"], flags=METHOD_FLAGS, group=IMAGES)

    def fresh(
        teacher: str,
        student: str | None = None,
        /,
        *,
        out: Path,
        epoch_images: Whole = 20_000,
        method_settings: Annotated[Options | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
        settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
        data: Data | None = None,
        source: Model | None = None,
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
            Zoo name or file.py:function of your own; by default the teacher's half, where the zoo has one.
        out
            Release folder to write for the student.
        epoch_images
            Number of new images per epoch.
        """
        from ..distillation.schedule import Distillation
        from ..synthesis import methods

        chosen = Distillation(**values(settings))
        maker = methods.from_name(method, **values(method_settings))
        _distill(teacher, student, out, (maker, epoch_images), chosen, data, source, run)

    return fresh


@together()
def _distill(
    teacher: str, student: str | None, out: Path, learn: "Path | CondensedSource | tuple[Any, int] | None",
    settings: "Distillation", data: Data | None, source: Model | None, run: Run | None,
) -> None:  # fmt: skip
    from ..distillation.distill import distill as teach
    from ..distillation.distill import resolved
    from ..distillation.sources import FreshImages
    from ..evaluation.accuracy import evaluate, in_words
    from ..models.agreement import NO_ACCURACY
    from ..releases.release import RELEASE_FOLDER, architecture_of, write_release
    from ..runs.output_folder import STATE, output_folder
    from ..runs.run_log import RunLog, hash_of
    from ..synthesis.synthetic_set import SyntheticSet, judged
    from .mixed import CondensedSource
    from .students import new_student

    data, source, run = data or Data(), source or Model(), run or Run()
    run = resumed(run, out / STATE)
    network = load_network(teacher, source, run)
    record = load_record(teacher, source, network) if isinstance(learn, tuple) or source.record else None
    if record is None:
        check_code(teacher, source, network)
    name, own = new_student(student, network, run)
    real = load_data(data, "train") if learn is None else None
    material, what, learnt = _material(network, record, learn, real)
    test = test_data(own, data)
    settings = resolved(settings, material, seed=run.seed)
    options = {
        "teacher": teacher, "student": name, "learns_from": what, **learnt, **asdict(data),
        **settings.model_dump(), **asdict(source), **asdict(run),
    }  # fmt: skip
    sets = learn.paths if isinstance(learn, CondensedSource) else {"images": learn} if isinstance(learn, Path) else {}
    inputs = inputs_of(teacher, source, role="teacher", record=record is not None)
    inputs |= {**code_of("student", name), **sets}
    log = RunLog("distill", options, inputs, real, test)
    read = {
        "teacher": network.fingerprint(),
        "record": record and record.digest(),
        "sets": [*map(hash_of, sets.values())],
    }
    folders = output_folder(out, RELEASE_FOLDER, log, reads=[teacher, *sets.values()])
    with folders as folder, bar(f"distill {name}", run.quiet) as progress:
        if folder is None:
            return
        warning = None
        if isinstance(learn, Path):
            warning = SyntheticSet.open(learn).warning()
        elif isinstance(material, FreshImages) and isinstance(learn, tuple):
            warning = judged(learn[0], material.bound_method, network, seed=run.seed)
        if isinstance(material, FreshImages) and isinstance(learn, tuple) and main_process():
            _say_cost(*learn, settings.epochs)
        if warning is not None and main_process():
            print(f"warning: {warning}; a student will learn little from {'it' if isinstance(learn, Path) else 'them'}")
        state, identity = folder / STATE, {**identity_of(log.content["settings"], own, log), **read}
        curve = teach(
            network, own, material, settings, seed=run.seed, state=state, identity=identity, progress=progress
        )
        if not main_process():
            return
        result: dict[str, Any] = {
            "processes": world().size,
            "curve": vars(curve),
            "images": len(material),
            "distinct": material.distinct(len(curve.loss)),
            "parameters": own.parameters,
            "bytes": own.nbytes(),
        }
        if test is not None:
            evaluation = evaluate(own, test, network)
            result["evaluation"], worth = asdict(evaluation), in_words(evaluation, test.public)
        else:
            found = _agreement(network, own, material)
            result["agreement_on_what_it_learnt_from"] = found.equal
            result["agreement_warning"] = found.warning
            worth = f"agreement with its teacher {found.equal:.2f} % on images it learnt from; {NO_ACCURACY}"
        near = ", in which the teacher sees the wanted class near chance" if warning is not None else ""
        notes = f"distilled from {architecture_of(network)} on {what}{near}: {worth}"
        write_release(folder, own, notes=notes)
        log.write(folder, result)
    _say(folder, own, network, result)


def _material(
    teacher: "Network",
    record: "Record | None",
    learn: "Path | CondensedSource | tuple[Any, int] | None",
    real: "Dataset | None",
) -> "tuple[Source, str, dict[str, Any]]":
    """What the student learns from, that in words, and the settings that made it."""
    from ..distillation.sources import FreshImages, soft_labelled, stored_images
    from ..synthesis.synthetic_set import SyntheticSet
    from .mixed import CondensedSource

    if isinstance(learn, tuple):
        method, count = learn
        if count < 1:
            raise UserError(f"epoch_images: got {count}, expected at least 1; give a positive count")
        maker = method.bind(teacher, record)
        used, words = getattr(maker, "settings", method), f"fresh images of {method.method}"
        if used != method:
            words += ", warps cut to a quarter, which the teacher does not follow"
        settings = {"method": used.model_dump(mode="json"), "epoch_images": count}
        return FreshImages(teacher.spec, maker, count), words, settings
    if isinstance(learn, CondensedSource):
        return learn.material(teacher)
    if learn is not None:
        found = SyntheticSet.open(learn, teacher)
        return stored_images(found), f"a synthetic set of {found.about['method']['method']}", {"images": str(learn)}
    assert real is not None
    return soft_labelled(teacher, real), f"real data, {real.public}", {"images": None}


def _say_cost(method: Any, count: int, epochs: int) -> None:
    """That images which are optimised one by one are made again for every epoch, where the method does so."""
    steps = getattr(getattr(method, "settings", method), "steps", None)
    if isinstance(steps, int):
        print(
            f"  {method.method} takes {steps:,} steps for every image, and {count * epochs:,} images are made in all: "
            f"a set made once is faster (datafree synthesize {method.method}, then distill --set)"
        )


def _agreement(teacher: "Network", student: "Network", material: "Source") -> "Agreement":
    """Agreement on up to 4,096 images the student learned from: a sample, not a test."""
    from ..models.agreement import agreement

    pixels, logits = next(iter(material.epoch(0, 0, 4096)))
    return agreement(logits, student.predict(pixels), teacher.spec.classes)


def _say(folder: Path, student: "Network", teacher: "Network", result: dict[str, Any]) -> None:
    from .students import say_accuracy, say_size

    say_size(folder, student, teacher)
    if "agreement_on_what_it_learnt_from" in result:
        print(
            f"agreement with the teacher on images it learnt from: {result['agreement_on_what_it_learnt_from']:.2f} %"
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
