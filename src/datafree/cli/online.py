"""datafree distill online: a generator learns beside the student, with a memory of its earlier images."""

# Annotations are evaluated: the options are classes that are made from settings.

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from .._core.distributed import main_process, together
from .._core.errors import UserError
from .arguments import Data, RecordedModel, Run, Start, WithCode, settings_of, without_condensed
from .loading import (
    check_code,
    code_for_student,
    code_of,
    code_of_settings,
    identity_of,
    inputs_of,
    load_record,
    load_teacher,
    resumed,
    test_data,
)
from .method_options import check_kind, flattened, of_kinds, of_settings, values
from .progress_bar import bar
from .results import say_accuracy, say_size, say_start
from .settings_source import SettingsText, family, read

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Dataset
    from ..distillation.online.history import History
    from ..models.network import Network

__all__ = ["ALIGNMENTS", "MEMORIES", "online", "online_command"]

MEMORIES = family("datafree.distillation.replay", "replay")
ALIGNMENTS = family("datafree.synthesis.losses.alignment", "alignment")
ALIGNMENT = "mmd"
"""`synthesis.losses.alignment.DEFAULT`, which imports torch."""
Preset = Literal["dafl", "dfad", "mb-dfkd", "pre-dfkd"]
MEMORY = Group("Memory (--replay)", sort_key=1)
NEAR = Group("With --condensed (--alignment)", sort_key=2)
Settings = of_settings(read("datafree.distillation.online.settings", "OnlineDistillation"))


def online_command(memories: Mapping[str, SettingsText], alignments: Mapping[str, SettingsText]) -> Callable[..., None]:
    """The command, whose flags are the fields of `OnlineDistillation`, of each memory and of each kind of alignment."""
    Memory = of_kinds(memories, without=["replay"], group=MEMORY)
    Guide = of_kinds(alignments, without=["alignment"], group=NEAR)

    def online(
        teacher: str,
        student: str | None = None,
        /,
        *,
        out: Path,
        preset: Preset | None = None,
        start: Start = "teacher",
        settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
        replay: Annotated[Literal[tuple(memories)] | None, Parameter(group=MEMORY)] = None,  # pyright: ignore
        memory: Annotated[Memory | None, flattened(Memory)] = None,  # pyright: ignore[reportInvalidTypeForm]
        condensed: Annotated[Path | None, Parameter(group=NEAR)] = None,
        alignment: Annotated[Literal[tuple(alignments)] | None, Parameter(group=NEAR)] = None,  # pyright: ignore
        guide: Annotated[Guide | None, flattened(Guide)] = None,  # pyright: ignore[reportInvalidTypeForm]
        with_code: WithCode = False,
        data: Data | None = None,
        source: RecordedModel | None = None,
        run: Run | None = None,
    ) -> None:
        """Train a student against a generator that looks for what it has not learned; no image, record or data is needed.

        After every epoch the folder holds a complete release of the student so far. The run can be stopped at any
        moment, and the same command continues it.

        Example: datafree distill online teacher --out student

        Example: datafree distill online teacher --replay vae --scene drawings --ground dark --out student

        Example (a published method): datafree distill online teacher --preset dfad --out student

        Parameters
        ----------
        teacher
            Release folder. With --weights, those weights are used instead of its own.
        student
            Zoo name, `half` (of the teacher's channels), `shallow` (fewer blocks), or file.py:function of your own; by
            default the half that the papers use for a teacher of the zoo, otherwise `half`.
        out
            Release folder to write for the student.
        preset
            Loss terms and memory of a published method. Optimizer, learning rates, steps and start stay as they are here.
        start
            `teacher`: copy the teacher's most informative channels (the student must have the same layers, none wider).
            `random`: random weights.
        replay
            Memory of earlier images that the student sees again; `bank` by default, or that of --preset.
        condensed
            Condensed set (datafree condense, import-condensed) that the generator is kept near (Binici et al. 2024).
        alignment
            Distance to the condensed set; `mmd` by default.
        with_code
            Put the Python file that builds the network, and what it imports from its folder, into the release as text.
        """
        from ..distillation.distill_online import online_settings

        if condensed is None and (alignment is not None or values(guide)):
            name = "alignment" if alignment is not None else next(iter(values(guide)))
            raise without_condensed(name)
        try:
            chosen, memory_kind = online_settings(preset, None, values(settings))
        except UserError as error:  # --memory-decay is the `decay` of a memory
            raise (UserError(f"--{error}") if str(error).startswith("decay: ") else error) from None
        kind, near = replay or memory_kind, alignment or ALIGNMENT
        check_kind(memory, kind, memories, "--replay")
        check_kind(guide, near, alignments, "--alignment")
        options: dict[str, Any] = {
            "preset": preset, "replay": {"replay": kind, **values(memory)}, "condensed": condensed, "start": start,
            "alignment": {"alignment": near, **values(guide)} if alignment or values(guide) else None, **values(settings),
        }  # fmt: skip
        _distill(teacher, student, out, options, bool(chosen.statistics), with_code, data, source, run)

    return online


@together()
def _distill(
    teacher: str, student: str | None, out: Path, options: dict[str, Any], reads_record: bool,
    with_code: bool, data: Data | None, source: RecordedModel | None, run: Run | None,
) -> None:  # fmt: skip
    """`options` are those of `plan_online`."""
    from .._core.settings import with_paths
    from ..distillation.distill_online import plan_online
    from ..distillation.students import student_name
    from ..evaluation.accuracy import evaluate
    from ..evaluation.report.timelines import FILE, write_generated
    from ..evaluation.student_release import online_result, write_student
    from ..releases.release import RELEASE_FOLDER, architecture_of, write_release
    from ..runs.output_folder import STATE, output_folder
    from ..runs.run_log import RunLog, hash_of

    data, source, run = data or Data(), source or RecordedModel(), run or Run()
    run = resumed(run, out / STATE)
    network = load_teacher(teacher, source, run)
    record = load_record(teacher, source, network) if reads_record or source.record is not None else None
    if record is None:
        check_code(teacher, source, network)
    name = student_name(network, student)
    plan = plan_online(network, name, record=record, seed=run.seed, **options)
    student_network, settings, condensed = plan.student, plan.settings, options["condensed"]
    replay: Any = plan.replay
    alignment: Any = plan.alignment
    code = code_for_student(name, student_network, with_code, teacher=teacher, source=source)
    test = test_data(student_network, data, complete=False)
    logged = {
        "teacher": teacher, "student": name, "learns_from": "a generator's images", "start": plan.start,
        "online": settings.model_dump(), "replay": with_paths(replay), "condensed": condensed,
        "alignment": alignment and with_paths(alignment), **asdict(data), **settings_of(source), **asdict(run),
        **({"with_code": True} if with_code else {}),
    }  # fmt: skip
    inputs = inputs_of(teacher, source, role="teacher", record=record is not None)
    log = RunLog("distill", logged, {
        **inputs, **code_of("student", name), **code_of_settings("replay", replay),
        **code_of_settings("alignment", alignment), "condensed": condensed,
    }, test)  # fmt: skip
    read = {
        "teacher": network.fingerprint(),
        "record": record and record.digest(),
        "anchors": condensed and hash_of(condensed),
    }
    folders = output_folder(out, RELEASE_FOLDER, log, reads=[teacher, condensed])
    with folders as folder, bar(f"distill {name}", run.quiet) as progress:
        if folder is None:
            return

        def write_epoch(student: "Network", history: "History", images: "dict[int, Tensor]") -> None:
            epochs = len(history.loss)
            so_far = "" if epochs == settings.epochs else f", {epochs} of {settings.epochs} epochs so far"
            write_generated(folder / FILE, images)
            write_release(
                folder, student, notes=f"distilled from {architecture_of(network)} on a generator's images{so_far}",
                code=code,
            )  # fmt: skip
            if epochs < settings.epochs:  # the log of the whole run is written last, after the final card
                log.write(folder, online_result(student, history, settings))

        student_network = plan.run(
            state=folder / STATE, identity={**identity_of(log.content["settings"], student_network, log), **read},
            score=_score(test), on_epoch=write_epoch, progress=progress,
        )  # fmt: skip
        if not main_process():
            return
        evaluation = None if test is None else evaluate(student_network, test, network)
        data_name = "" if test is None else test.public
        result = write_student(folder, student_network, log, evaluation, data_name, code=code)
    _say(folder, student_network, network, result, plan.replay)
    say_start(plan.start, student_network.training.started_from_teacher)


def _score(test: "Dataset | None") -> "Callable[[Network], float] | None":
    """Accuracy in %, which the method never sees."""
    from ..evaluation.accuracy import evaluate

    return None if test is None else lambda network: evaluate(network, test).accuracy


def _say(folder: Path, student: "Network", teacher: "Network", result: dict[str, Any], memory: Any) -> None:
    from ..distillation.online.history import ONE_CLASS

    history = result["online"]
    say_size(folder, student, teacher)
    print(
        f"{history['images']:,} images made and learned from; memory ({memory.replay}): {result['memory_bytes']:,} bytes"
    )
    if history["health"][-1]["classes"] < ONE_CLASS:
        print(
            "  the teacher predicts a single class for the generator's last images; raise --balance, or give another --scene"
        )
    for reason in history["rollbacks"]:
        print(f"  started again with another generator, {reason}")
    print(
        f"agreement with the teacher on generated images that it did not learn from: {result['agreement_on_probes']:.2f} %"
    )
    say_accuracy(result)


online = online_command(MEMORIES, ALIGNMENTS)
