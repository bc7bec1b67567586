"""A distilled student as a release folder with run.json, from Python as from the command line."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._core.arguments import checked
from .._core.distributed import world
from .._core.errors import Notice, UserError
from ..distillation.distill import DistilledNetwork
from ..distillation.distill_online import OnlineNetwork
from ..distillation.online.history import History
from ..distillation.online.settings import OnlineDistillation
from ..distillation.prune import PrunedNetwork
from ..models.agreement import NO_ACCURACY, Evaluation
from ..models.network import Network
from ..releases.release import RELEASE_FOLDER, check_sources, write_release
from ..releases.shipped_code import ShippedCode, shipped
from ..runs.output_folder import output_folder, parameters_named
from ..runs.run_log import RunLog
from .accuracy import in_words
from .stability import HALF, stability

__all__ = ["online_result", "save_student", "write_student"]


@checked
def save_student(
    folder: str | Path,
    student: DistilledNetwork | OnlineNetwork,
    *,
    evaluation: Evaluation | None = None,
    data_name: str = "the data given",
    code: str | ShippedCode | None = None,
) -> Path:
    """Writes what `distill`, `prune` or `distill_online` returned as a release folder with run.json, and returns the folder.

    run.json states settings, seeds, versions and hashes of what the student learned from; `datafree report` reads it.
    `evaluation` is what `evaluate(student, data, teacher)` returned, on test images of `data_name`; without it the card says
    that no accuracy was measured. `code` is the ``file.py:function`` that builds the student, whose file is put into the
    release as `write_release` does. A folder that holds this very result stays as it is, which a `Notice` says. Raises
    UserError for a folder of something else, for a student whose weights were changed since, and for an evaluation of
    another student or with another teacher; nothing is left half-written.
    """
    training = student.training
    if student.fingerprint() != training.provenance.student:
        raise UserError(
            "student: got weights that were changed after the training, so its log would be wrong; write it with "
            "write_release"
        )
    settings = training.provenance.settings
    if evaluation is not None:
        evaluation.check_of(
            "evaluation", training.provenance.student, training.provenance.hashes.get("teacher_fingerprint"),
            "what evaluate(student, data, teacher) returned for this student and its teacher",
        )  # fmt: skip
        settings = {**settings, "evaluation": f"{evaluation.accuracy:g} % on {evaluation.images}"}
    sources = shipped(code) if isinstance(code, str) else code
    if sources is not None:
        check_sources(sources, student)
        settings = {**settings, "with_code": True}
    verb = "prune" if isinstance(student, PrunedNetwork) else "distill"
    log = RunLog(verb, settings, {}, hashes=training.provenance.hashes)
    log.began -= training.provenance.seconds
    with (
        parameters_named(out="folder"),
        output_folder(
            Path(folder), RELEASE_FOLDER, log, say=lambda line: warnings.warn(Notice(str(line)), stacklevel=6)
        ) as out,
    ):
        if out is not None:
            write_student(out, student, log, evaluation, data_name, code=sources)
    return Path(folder)


def write_student(
    folder: Path, student: DistilledNetwork | OnlineNetwork, log: RunLog, evaluation: Evaluation | None, data_name: str,
    *, code: ShippedCode | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Writes release, card and run.json of a trained student into its output folder, and returns what run.json states."""
    if isinstance(student, OnlineNetwork):
        result = online_result(student, student.history, student.training.settings)
    else:
        result = _distillation_result(student, evaluation)
    if evaluation is not None:
        result["evaluation"] = asdict(evaluation)
    write_release(folder, student, notes=_notes(student, result, evaluation, data_name), code=code)
    log.write(folder, result)
    return result


def _distillation_result(student: DistilledNetwork, evaluation: Evaluation | None) -> dict[str, Any]:
    """What run.json states of a student that learned from images."""
    training = student.training
    result: dict[str, Any] = {
        "processes": training.processes,
        "curve": vars(training.curve),
        "images": training.images,
        "distinct": training.distinct,
        "parameters": student.parameters,
        "bytes": student.nbytes(),
    }
    if isinstance(student, PrunedNetwork):
        result["pruning"] = [entry.model_dump(exclude_none=True) for entry in student.rounds]
    if evaluation is None:
        result["agreement_on_what_it_learnt_from"] = training.agreement.equal
        result["agreement_warning"] = training.agreement.warning
    return result


def online_result(student: Network, history: History, settings: OnlineDistillation) -> dict[str, Any]:
    """What run.json states of a student that learned from a generator, also after each epoch of an unfinished run."""
    result: dict[str, Any] = {
        "online": asdict(history),
        "processes": world().size,
        "images": history.images // max(len(history.loss), 1),
        "memory_bytes": history.memory_bytes,
        "parameters": student.parameters,
        "bytes": student.nbytes(),
        "agreement_on_probes": (history.average_agreement if settings.keep == "average" else history.agreement)[-1],
    }
    if len(history.loss) < settings.epochs:
        result["unfinished"] = {"epochs": len(history.loss), "of": settings.epochs}
    curves = {
        "agreement": history.agreement, "average_agreement": history.average_agreement,
        "scores": history.scores, "average_scores": history.average_scores,
    }  # fmt: skip
    result["stability"] = {name: asdict(stability(curve, HALF)) for name, curve in curves.items() if curve}
    return result


def _notes(
    student: DistilledNetwork | OnlineNetwork, result: dict[str, Any], evaluation: Evaluation | None, data_name: str
) -> str:
    """The card's line: what the student was distilled from, on which images, and how good it is."""
    provenance = student.training.provenance
    if evaluation is not None:
        quality = in_words(evaluation, data_name)
    elif isinstance(student, OnlineNetwork):
        quality = f"agreement with its teacher {result['agreement_on_probes']:.2f} % on generated images; {NO_ACCURACY}"
    else:
        equal = student.training.agreement.equal
        quality = f"agreement with its teacher {equal:.2f} % on the images it learned from; {NO_ACCURACY}"
    doubtful = isinstance(student, DistilledNetwork) and bool(student.training.warnings)
    near_chance = ", whose target class the teacher predicts near chance" if doubtful else ""
    origin = f"distilled from {provenance.teacher}"
    if isinstance(student, PrunedNetwork):
        origin = f"pruned from {provenance.teacher} to {100 * student.keep:.3g} % of its weights and repaired"
    return f"{origin} on {provenance.settings['learns_from']}{near_chance}: {quality}"
