"""datafree distill online: a generator learns beside the student, with a memory of its earlier images."""

# Annotations are evaluated: the options are classes that are made from settings.

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from .._core.distributed import main_process, together, world
from .._core.errors import UserError
from .arguments import Data, Model, Run
from .loading import check_code, code_of, identity_of, inputs_of, load_record, load_teacher, resumed, test_data
from .method_options import Given, check_kind, of_kinds, of_settings, values
from .progress_bar import bar
from .settings_source import family, read

if TYPE_CHECKING:
    from torch import Tensor

    from ..data import Dataset
    from ..distillation.online.run import AnchorImages, History, OnlineDistillation
    from ..models.network import Network

__all__ = ["online"]

DEFAULT = "bank"
MEMORIES = family("datafree.distillation.replay", "replay")
ALIGNMENTS = family("datafree.synthesis.losses.alignment", "alignment")
ALIGNMENT = "mmd"
"""`synthesis.losses.alignment.DEFAULT`, which imports torch."""
Start = Literal["teacher", "random"]
Preset = Literal["dafl", "dfad", "mb-dfkd", "pre-dfkd"]
MEMORY = Group("Memory (--replay)", sort_key=1)
NEAR = Group("With --condensed (--alignment)", sort_key=2)
Settings = of_settings(read("datafree.distillation.online.settings", "OnlineDistillation"))
Memory = of_kinds(MEMORIES, without=["replay"], group=MEMORY)
Guide = of_kinds(ALIGNMENTS, without=["alignment"], group=NEAR)


def online(
    teacher: str,
    student: str | None = None,
    /,
    *,
    out: Path,
    preset: Preset | None = None,
    start: Start = "teacher",
    settings: Annotated[Settings | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    replay: Annotated[Literal[tuple(MEMORIES)] | None, Parameter(group=MEMORY)] = None,  # pyright: ignore
    memory: Annotated[Memory | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    condensed: Annotated[Path | None, Parameter(group=NEAR)] = None,
    alignment: Annotated[Literal[tuple(ALIGNMENTS)] | None, Parameter(group=NEAR)] = None,  # pyright: ignore
    guide: Annotated[Guide | None, Parameter(name="*")] = None,  # pyright: ignore[reportInvalidTypeForm]
    data: Data | None = None,
    source: Model | None = None,
    run: Run | None = None,
) -> None:
    """Train a student against a generator that looks for what it has not learned; no image, record or data is needed.

    After every epoch the folder holds a complete release of the student so far. The run can be stopped at any moment, and
    the same command continues it.

    Example: datafree distill online teacher --out student

    Example: datafree distill online teacher --replay vae --scene drawings --ground dark --out student

    Example (a published method): datafree distill online teacher --preset dfad --out student

    Parameters
    ----------
    teacher
        Release folder. With --weights, those weights are used instead of its own.
    student
        Zoo name or file.py:function of your own; by default the teacher's half, where the zoo has one.
    out
        Release folder to write for the student.
    preset
        Loss terms and memory of a published method. Optimizer, learning rates, steps and start stay as they are here.
    start
        Start of the student: `teacher` copies the subset of teacher channels that best reconstructs the rest, and needs
        the same layers, none wider; or `random`.
    replay
        Memory of earlier images that the student sees again; `bank` by default, or that of --preset.
    condensed
        Condensed set (datafree condense, import-condensed) that the generator is kept near (Binici et al. 2024).
    alignment
        Distance to the condensed set; `mmd` by default.
    """
    from ..distillation import replay as memories
    from ..distillation.online.run import online_preset
    from ..synthesis.losses import alignment as alignments

    kind = replay or (DEFAULT if preset is None else online_preset(preset)[1])
    near = alignment or ALIGNMENT
    if condensed is None and (alignment is not None or values(guide)):
        name = "alignment" if alignment is not None else next(iter(values(guide)))
        flag = "--" + name.replace("_", "-")
        raise UserError(f"{flag}: got it without --condensed, expected --condensed SET; name the set, or leave it out")
    check_kind(memory, kind, MEMORIES, "--replay")
    check_kind(guide, near, ALIGNMENTS, "--alignment")
    chosen_memory = memories.from_name(kind, **values(memory))
    chosen_guide = alignments.from_name(near, **values(guide))
    anchors = None if condensed is None else (condensed, chosen_guide)
    _distill(teacher, student, out, start, _settings(preset, settings), chosen_memory, anchors, data, source, run)


def _settings(preset: str | None, options: Given | None) -> "OnlineDistillation":
    """The preset's settings, but for those that were given."""
    from ..distillation.online.run import OnlineDistillation, online_preset

    given = values(options)
    settings = OnlineDistillation(**given) if preset is None else online_preset(preset, **given)[0]
    for name, scenes in (("ground", ("things", "drawings")), ("symmetry", ("things",))):
        if name in given and settings.scene not in scenes:
            raise UserError(
                f"{name}: got {given[name]} with --scene {settings.scene}, expected {' or '.join(scenes)}; name such a "
                "--scene"
            )
    return settings


@together()
def _distill(
    teacher: str, student: str | None, out: Path, start: Start, settings: "OnlineDistillation", memory: Any,
    near: tuple[Path, Any] | None, data: Data | None, source: Model | None, run: Run | None,
) -> None:  # fmt: skip
    from ..distillation.online.run import train_online
    from ..distillation.student_init import init_student_from_teacher, same_architecture
    from ..evaluation.accuracy import evaluate, in_words
    from ..models.agreement import NO_ACCURACY
    from ..releases.release import RELEASE_FOLDER, architecture_of, write_release
    from ..runs.output_folder import STATE, output_folder
    from ..runs.run_log import RunLog, hash_of
    from .students import new_student

    data, source, run = data or Data(), source or Model(), run or Run()
    run = resumed(run, out / STATE)
    network = load_teacher(teacher, source, run)
    record = load_record(teacher, source, network) if settings.statistics else None
    if record is None:
        check_code(teacher, source, network)
    name, own = new_student(student, network, run)
    test = test_data(own, data)
    anchors = None if near is None else _anchors(near, network)
    options = {
        "teacher": teacher, "student": name, "learns_from": "a generator's images", "start": start,
        "online": settings.model_dump(),
        "replay": memory.model_dump(), "condensed": near and near[0], "alignment": near and near[1].model_dump(),
        **asdict(data), **asdict(source), **asdict(run),
    }  # fmt: skip
    inputs = inputs_of(teacher, source, role="teacher", record=record is not None)
    log = RunLog("distill", options, inputs | {**code_of("student", name), "condensed": near and near[0]}, test)
    read = {
        "teacher": network.fingerprint(),
        "record": record and record.digest(),
        "anchors": near and hash_of(near[0]),
    }
    folders = output_folder(out, RELEASE_FOLDER, log, reads=[teacher, near and near[0]])
    with folders as folder, bar(f"distill {name}", run.quiet) as progress:
        if folder is None:
            return
        state, identity = folder / STATE, {**identity_of(log.content["settings"], own, log), **read}

        def keep(kept: "Network", history: "History", shown: "dict[int, Tensor]") -> None:
            epochs = len(history.loss)
            so_far = "" if epochs == settings.epochs else f", {epochs} of {settings.epochs} epochs so far"
            write_shown(folder / "generated.safetensors", shown)
            write_release(
                folder, kept, notes=f"distilled from {architecture_of(network)} on a generator's images{so_far}"
            )
            log.write(folder, _result(kept, history, settings))

        took = start == "teacher" and same_architecture(own, network)
        if took and not state.exists():
            init_student_from_teacher(own, network, settings.composition(), seed=run.seed)
        history = train_online(
            network, own, settings, memory, record=record, anchors=anchors, seed=run.seed, state=state,
            identity=identity, score=_oracle(test), on_epoch=keep, progress=progress,
        )  # fmt: skip
        if not main_process():
            return
        result = _result(own, history, settings)
        if test is not None:
            evaluation = evaluate(own, test, network)
            result["evaluation"], worth = asdict(evaluation), in_words(evaluation, test.public)
        else:
            worth = (
                f"agreement with its teacher {result['agreement_on_probes']:.2f} % on generated images; {NO_ACCURACY}"
            )
        notes = f"distilled from {architecture_of(network)} on a generator's images: {worth}"
        write_release(folder, own, notes=notes)
        log.write(folder, result)
    _say(folder, own, network, result, memory)
    if start == "teacher":
        start_words = (
            "with channels of the teacher" if took else "from random weights: its layers do not match the teacher's"
        )
        print(f"  started {start_words}")


def _anchors(near: tuple[Path, Any], network: "Network") -> "AnchorImages":
    from ..data.condensed.condensed_set import Condensed
    from ..distillation.online.run import AnchorImages

    path, alignment = near
    own = Condensed.open(path, network)
    return AnchorImages(alignment, own.clamped(), own.labels)


def _oracle(test: "Dataset | None") -> "Callable[[Network], float] | None":
    """Accuracy in %, which the method never sees."""
    from ..evaluation.accuracy import evaluate

    return None if test is None else lambda network: evaluate(network, test).accuracy


def write_shown(path: Path, shown: "dict[int, Tensor]") -> None:
    """Generated images, uint8 (n, C, H, W) by epoch, as one file: the same latents throughout."""
    import torch

    from .._core.files import write_tensors

    epochs = sorted(shown)
    pixels = torch.stack([shown[epoch] for epoch in epochs])
    write_tensors(path, {"pixels": pixels}, {"epochs": epochs}, kind="generated")


def _result(student: "Network", history: "History", settings: "OnlineDistillation") -> dict[str, Any]:
    from ..evaluation.stability import HALF, stability

    found: dict[str, Any] = {
        "online": asdict(history),
        "processes": world().size,
        "images": history.images // max(len(history.loss), 1),
        "memory_bytes": history.memory_bytes,
        "parameters": student.parameters,
        "bytes": student.nbytes(),
        "agreement_on_probes": (history.average_agreement if settings.keep == "average" else history.agreement)[-1],
    }
    if len(history.loss) < settings.epochs:
        found["unfinished"] = {"epochs": len(history.loss), "of": settings.epochs}
    curves = {
        "agreement": history.agreement, "average_agreement": history.average_agreement,
        "scores": history.scores, "average_scores": history.average_scores,
    }  # fmt: skip
    found["stability"] = {name: asdict(stability(own, HALF)) for name, own in curves.items() if own}
    return found


def _say(folder: Path, student: "Network", teacher: "Network", result: dict[str, Any], memory: Any) -> None:
    from ..distillation.online.history import ONE_CLASS
    from .students import say_accuracy, say_size

    history = result["online"]
    say_size(folder, student, teacher)
    print(
        f"{history['images']:,} images made and learnt from; memory ({memory.replay}): {result['memory_bytes']:,} bytes"
    )
    if history["health"][-1]["classes"] < ONE_CLASS:
        print(
            "  the teacher sees one class alone in the generator's last images; raise --balance, or give another --scene"
        )
    for why in history["rollbacks"]:
        print(f"  begun again with another generator, {why}")
    print(
        f"agreement with the teacher on generated images that it did not learn from: {result['agreement_on_probes']:.2f} %"
    )
    say_accuracy(result)
