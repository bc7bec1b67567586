"""datafree distill"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .._core.distributed import main_process, together, world
from .._core.errors import UserError, unknown
from ..distillation.schedule import Distillation
from .common import (
    Data,
    Model,
    Run,
    Whole,
    bar,
    check_code,
    chosen,
    code_of,
    identity_of,
    inputs_of,
    load_data,
    load_network,
    load_record,
    resumed,
    test_data,
)

if TYPE_CHECKING:
    from ..data import Dataset
    from ..distillation.sources import Source
    from ..models.agreement import Agreement
    from ..models.network import Network
    from ..records.record import Record
    from .mixed import CondensedSource

__all__ = ["command", "distill"]


def command(argv: list[str]) -> Callable[..., None]:
    """`distill` with the flags of the method named by --online, or those of --condensed, if any."""
    name = chosen(argv, "--online")
    if name != "generator" and chosen(argv, "--condensed") is not None:
        from .mixed import mixed

        return mixed(argv, distill, _distill)
    if name is None:
        return distill
    if name == "generator" and chosen(argv, "--images") is None:
        from .online import command as generator_command

        return generator_command(argv)
    from ..synthesis import methods

    if name not in (*methods.methods(), "generator"):
        raise unknown("synthesis method", name, [*methods.methods(), "generator"])
    if chosen(argv, "--images") is not None:
        raise UserError("--images and --online: got both, wanted one of them to learn from; leave one out")

    def online_method(
        teacher: str,
        student: str | None = None,
        /,
        *,
        out: Path,
        online: str,
        method: Any = None,
        epoch_images: int = 20_000,
        settings: Distillation | None = None,
        data: Data | None = None,
        source: Model | None = None,
        run: Run | None = None,
    ) -> None:
        own = method if method is not None else methods.from_dict({"method": online})
        _distill(teacher, student, out, (own, epoch_images), settings, data, source, run)

    online_method.__doc__ = distill.__doc__
    online_method.__annotations__ = {
        "teacher": str, "student": str | None, "out": Path, "online": str, "epoch_images": Whole,
        "method": Annotated[methods.methods()[name] | None, Parameter(name="*")],
        "settings": Annotated[Distillation | None, Parameter(name="*")],
        "data": Data | None, "source": Model | None, "run": Run | None, "return": None,
    }  # fmt: skip
    return online_method


def distill(
    teacher: str,
    student: str | None = None,
    /,
    *,
    out: Path,
    images: Path | None = None,
    online: str | None = None,  # noqa: ARG001
    condensed: Path | None = None,  # noqa: ARG001
    settings: Annotated[Distillation | None, Parameter(name="*")] = None,
    data: Data | None = None,
    source: Model | None = None,
    run: Run | None = None,
) -> None:
    """Train a smaller student to answer like its teacher, and write it as a release folder.

    Example: datafree distill teacher --images set --out student

    Example: datafree distill teacher lenet5-half --online distribution --out student

    Example: datafree distill teacher --images set --condensed condensed --out student

    Example (the baseline, with data): datafree distill teacher --data mnist --out baseline

    Parameters
    ----------
    teacher
        A release folder. With --weights, those weights are used instead of its own.
    student
        A zoo name or file.py:function of your own; by default the teacher's half, where the zoo has one.
    out
        The release folder to write for the student.
    images
        A synthetic set to learn from. With --data and no --images, the real data is learnt from: the baseline.
    online
        A method of `datafree synthesize` that makes fresh images for every epoch; its flags can be given too. Or
        `generator`: one that learns against the student (`datafree distill TEACHER --online generator --help`).
    condensed
        A condensed set, shown augmented: beside --images a --share of every batch, without them all of it.
    epoch_images
        With --online or --condensed, number of images per epoch.
    """
    if images is None and (data is None or data.data is None):
        raise UserError(
            "nothing to learn from, wanted --images SET, --condensed SET, --online METHOD or --data NAME; give one of them"
        )
    _distill(teacher, student, out, images, settings, data, source, run)


@together()
def _distill(
    teacher: str, student: str | None, out: Path, learn: Path | CondensedSource | tuple[Any, int] | None,
    settings: Distillation | None, data: Data | None, source: Model | None, run: Run | None,
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

    settings, data, source, run = settings or Distillation(), data or Data(), source or Model(), run or Run()
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
            warning = judged(learn[0], material.maker, network, seed=run.seed)
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
    teacher: Network,
    record: Record | None,
    learn: Path | CondensedSource | tuple[Any, int] | None,
    real: Dataset | None,
) -> tuple[Source, str, dict[str, Any]]:
    """What the student learns from, that in words, and the settings that made it."""
    from ..distillation.sources import FreshImages, soft_labelled, stored_images
    from ..synthesis.synthetic_set import SyntheticSet
    from .mixed import CondensedSource

    if isinstance(learn, tuple):
        method, count = learn
        if count < 1:
            raise UserError(f"--epoch-images: got {count}, wanted at least 1; give a positive count")
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
    """That images which are optimised one by one are made anew for every epoch, where the method does so."""
    steps = getattr(getattr(method, "settings", method), "steps", None)
    if isinstance(steps, int):
        print(
            f"  {method.method} takes {steps:,} steps for every image, and {count * epochs:,} images are made in all: "
            f"a set made once is faster (datafree synthesize --method {method.method}, then --images)"
        )


def _agreement(teacher: Network, student: Network, material: Source) -> Agreement:
    """Agreement on up to 4,096 images the student learnt from: a sample, not a test."""
    from ..models.agreement import agreement

    pixels, logits = next(iter(material.epoch(0, 0, 4096)))
    return agreement(logits, student.predict(pixels), teacher.spec.classes)


def _say(folder: Path, student: Network, teacher: Network, result: dict[str, Any]) -> None:
    from .students import say_accuracy, say_size

    say_size(folder, student, teacher)
    if "agreement_on_what_it_learnt_from" in result:
        print(
            f"agreement with the teacher on images it learnt from: {result['agreement_on_what_it_learnt_from']:.2f} %"
        )
    say_accuracy(result)
