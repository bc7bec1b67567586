"""datafree evaluate"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from .._core.code_names import code_name
from .._core.errors import UserError
from .._core.folder_kinds import is_quantized, is_release
from .._core.unused import Use, check_used
from .arguments import Data, Model, Run, settings_of
from .json_output import result
from .loading import check_code, code_in, code_of, inputs_of, load_data, load_network, say_fit, say_size
from .progress_bar import bar

__all__ = ["evaluate"]


def evaluate(
    model: str,
    /,
    *,
    data: Data | None = None,
    split: str = "test",
    teacher: str | None = None,
    teacher_code: str | None = None,
    out: Path | None = None,
    source: Model | None = None,
    run: Run | None = None,
) -> None:
    """Accuracy of a network on labelled data, in total and by class, and its agreement with a teacher.

    Example: datafree evaluate student --data mnist --teacher teacher

    Parameters
    ----------
    model
        A release folder. With --weights, those weights are used instead of its own.
    split
        `test`, `train`, or, of an image folder or .npz file without splits of its own, `all`.
    teacher
        A release to measure agreement with.
    teacher_code
        file.py:function or package.module:function that builds the teacher, where it has custom code; --code
        builds the model.
    out
        A folder for run.json, which holds the numbers, what they were measured on and how; only printed by default.
    """
    from ..evaluation import accuracy
    from ..models.agreement import interval_in_words
    from ..models.class_names import are_bare
    from ..runs.output_folder import EVALUATION_FOLDER, output_folder
    from ..runs.run_log import RunLog

    if teacher_code is not None:
        check_used({"teacher_code": teacher_code}, [Use("teacher_code", "teacher")], {"teacher": teacher})
    data, source, run = data or Data(), source or Model(), run or Run()
    model_source = replace(source, trust=False) if teacher is not None and source.code is not None else source
    network = load_network(model, model_source, run)
    check_code(model, model_source, network)
    other = None
    if teacher is not None:
        coded = _coded(teacher, teacher_code, source.trust)
        other = load_network(teacher, coded, run)
        check_code(teacher, coded, other)
    measured = load_data(data, split)
    options = {
        "model": model,
        "split": split,
        "teacher": teacher,
        "teacher_code": teacher_code,
        **asdict(data),
        **settings_of(source),
        **asdict(run),
    }
    trusted = code_in("teacher", teacher) if source.trust and teacher_code is None else {}
    others = {"teacher": teacher, **code_of("teacher", teacher_code), **trusted}
    log = RunLog("evaluate", options, {**inputs_of(model, model_source), **others}, measured)
    with nullcontext(None) if out is None else output_folder(out, EVALUATION_FOLDER, log) as folder:
        if out is not None and folder is None:
            return
        with bar(f"evaluate {model}", run.quiet) as progress:
            scores = accuracy.evaluate(network, measured, other, progress=progress)
        if folder is not None:
            log.write(folder, {"evaluation": asdict(scores)})
    result({"evaluation": asdict(scores), "classes": network.spec.classes})
    words = interval_in_words(scores.accuracy, scores.images)
    print(f"accuracy {scores.accuracy:.2f} % on {scores.images:,} images of {data.data} ({split}), {words}")
    if warning := accuracy.doubt(scores.accuracy, scores.images, len(network.spec.classes)):
        print(f"  warning: {warning}")
    say_fit(network, measured)
    classes = network.spec.classes
    if are_bare(classes) and len(measured.classes) == len(classes):  # matched by position: the data's names say more
        classes = measured.classes
    for name, value in zip(classes, scores.by_class, strict=True):
        print(f"  {name}: no images" if value is None else f"  {name}: {value:.2f} %")
    if scores.agreement is not None and other is not None:
        if other.spec.shape != network.spec.shape:
            say_size(other, measured)
        words = interval_in_words(scores.agreement, scores.images)
        print(f"agreement with {teacher}: {scores.agreement:.2f} %, {words}")


def _coded(teacher: str, code: str | None, trust: bool) -> Model:
    """How the teacher is built; raises UserError where it takes code and none was named or trusted."""
    from ..releases.release import Release, is_zoo

    if not is_release(teacher) and (is_zoo(teacher) or code_name(teacher) is not None):
        raise UserError(
            f"--teacher: got {teacher}, a network without weights, expected the release folder of one that is trained; give "
            "its path"
        )
    if code is None and is_release(teacher) and not is_quantized(teacher) and (release := Release.open(teacher)).custom:
        if trust and release.listed_code is not None:
            return Model(trust=True)
        if release.listed_code is not None:
            raise UserError(
                f"{teacher} is a custom network that {release.listed_code.call} builds, and the code runs only if you trust "
                f"it: read {release.listed_code.paths(release.folder)[0]} and give `trust=True`, or name your own copy with "
                "--teacher-code"
            )
        raise UserError(
            f"{teacher} is a custom network ({release.config.get('architecture')!r}); name it with --teacher-code"
        )
    return Model(code=code)
