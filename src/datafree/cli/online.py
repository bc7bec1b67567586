"""datafree distill --online generator: a generator against the student, with a memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import Parameter
from torch import Tensor

from .._core.distributed import main_process, together, world
from .._core.errors import UserError
from .._core.files import write_tensors
from ..data import Dataset
from ..data.condensed.condensed_set import Condensed
from ..distillation import replay as memories
from ..distillation.online.history import ONE_CLASS
from ..distillation.online.run import PRESETS, Anchored, History, OnlineDistillation, distill_online, online_preset
from ..distillation.student_init import init_student_from_teacher, same_architecture
from ..evaluation.accuracy import evaluate, in_words
from ..evaluation.stability import HALF, robustness
from ..models.agreement import NO_ACCURACY
from ..models.network import Network
from ..releases.release import RELEASE_FOLDER, architecture_of, write_release
from ..runs.output_folder import STATE, output_folder
from ..runs.run_log import RunLog, hash_of
from ..synthesis.losses import alignment as alignments
from .common import (
    Data,
    Model,
    Run,
    bar,
    check_code,
    chosen,
    code_of,
    identity_of,
    inputs_of,
    listed,
    load_record,
    load_teacher,
    resumed,
    test_data,
)
from .students import new_student, say_accuracy, say_size

__all__ = ["command"]

DEFAULT = "bank"
Start = Literal["teacher", "random"]


def command(argv: list[str]) -> Callable[..., None]:
    """`distill --online generator` with the flags of the memory named by --replay, or by the --preset."""
    name = chosen(argv, "--preset")
    usual = DEFAULT if name is None else online_preset(name)[1]
    kind = chosen(argv, "--replay") or usual
    kept = type(memories.from_name(kind))
    near = chosen(argv, "--alignment") or alignments.DEFAULT
    guide = type(alignments.from_name(near)) if chosen(argv, "--condensed") or chosen(argv, "--alignment") else None

    def generator(
        teacher: str,
        student: str | None = None,
        /,
        *,
        out: Path,
        online: str,  # noqa: ARG001
        preset: str | None = None,
        replay: str = kind,
        start: Start = "teacher",
        settings: Any = None,
        memory: Any = None,
        condensed: Path | None = None,
        alignment: str | None = None,
        aligned: Any = None,
        data: Data | None = None,
        source: Model | None = None,
        run: Run | None = None,
    ) -> None:
        own = memory if memory is not None else memories.from_name(replay)
        if alignment is not None and condensed is None:
            raise UserError(
                f"--alignment: got {alignment} without --condensed, wanted images to align with; name a set"
            )
        how = aligned if aligned is not None else alignments.from_name(alignment or alignments.DEFAULT)
        anchors = None if condensed is None else (condensed, how)
        _distill(teacher, student, out, start, _settings(preset, settings), own, anchors, data, source, run)

    generator.__doc__ = (
        (_distill.__doc__ or "").replace("KINDS", listed(memories.kinds())).replace("PRESETS", ", ".join(PRESETS))
    )
    generator.__doc__ = generator.__doc__.replace("ALIGNMENTS", ", ".join(alignments.kinds()))
    generator.__annotations__ = {
        "teacher": str, "student": str | None, "out": Path, "online": str, "preset": str | None, "replay": str,
        "start": Start, "settings": Annotated[OnlineDistillation | None, Parameter(name="*")],
        "memory": Annotated[kept | None, Parameter(name="*")],
        "condensed": Path | None, "alignment": str | None,
        **({} if guide is None else {"aligned": Annotated[guide | None, Parameter(name="*")]}),
        "data": Data | None, "source": Model | None, "run": Run | None, "return": None,
    }  # fmt: skip
    return generator


def _settings(name: str | None, given: OnlineDistillation | None) -> OnlineDistillation:
    """The preset's settings, but for those that were given."""
    own = {} if given is None else {key: getattr(given, key) for key in given.model_fields_set}
    made = OnlineDistillation(**own) if name is None else online_preset(name, **own)[0]
    for flag, scenes in (("ground", ("things", "drawings")), ("symmetry", ("things",))):
        if flag in own and made.scene not in scenes:
            raise UserError(
                f"--{flag}: got {own[flag]} with --scene {made.scene}, wanted {' or '.join(scenes)}; name such a --scene"
            )
    return made


@together()
def _distill(
    teacher: str, student: str | None, out: Path, start: Start, settings: OnlineDistillation, memory: Any,
    near: tuple[Path, Any] | None, data: Data | None, source: Model | None, run: Run | None,
) -> None:  # fmt: skip
    """Train a student against a generator that seeks what it has not learnt yet; no image, record or data is needed.

    Example: datafree distill teacher --online generator --out student

    Example: datafree distill teacher --online generator --replay vae --scene drawings --ground dark --out student

    Example (a method of the field): datafree distill teacher --online generator --preset dfad --out student

    After every epoch the folder holds a whole release of the student so far: the run can be stopped at any moment, and the
    same command goes on with it.

    Parameters
    ----------
    teacher
        A release folder. With --weights, those weights are used instead of its own.
    student
        A zoo name or file.py:function of your own; by default the teacher's half, where the zoo has one.
    out
        The release folder to write for the student.
    online
        `generator`.
    preset
        The terms and the memory of a method of the field, optimiser, rates, steps and start being ours: PRESETS.
    replay
        Memory of earlier images that the student sees again: KINDS
    start
        Start of the student: `teacher`, the channels of the teacher's layers that stand best for all of them, where it has
        the same layers, none wider; or `random`.
    condensed
        A condensed set (datafree condense, import-condensed) that the generator is kept near (Binici et al. 2024).
    alignment
        Distance to the condensed set: ALIGNMENTS; each has flags of its own (`--condensed SET --alignment KIND --help`).
    """
    data, source, run = data or Data(), source or Model(), run or Run()
    run = resumed(run, out / STATE)
    network = load_teacher(teacher, source, run)
    record = load_record(teacher, source, network) if settings.statistics else None
    if record is None:
        check_code(teacher, source, network)
    name, own = new_student(student, network, run)
    test = test_data(own, data)
    anchored = None if near is None else _anchored(near, network)
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

        def keep(kept: Network, history: History, shown: dict[int, Tensor]) -> None:
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
        history = distill_online(
            network, own, settings, memory, record=record, anchored=anchored, seed=run.seed, state=state,
            identity=identity, score=_oracle(test), each=keep, progress=progress,
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


def _anchored(near: tuple[Path, Any], network: Network) -> Anchored:
    path, alignment = near
    own = Condensed.open(path, network)
    return Anchored(alignment, own.clamped(), own.labels)


def _oracle(test: Dataset | None) -> Callable[[Network], float] | None:
    """Accuracy in %, which the method is never told."""
    return None if test is None else lambda network: evaluate(network, test).accuracy


def write_shown(path: Path, shown: dict[int, Tensor]) -> None:
    """Generated images, uint8 (n, C, H, W) by epoch, as one file: the same latents throughout."""
    epochs = sorted(shown)
    pixels = torch.stack([shown[epoch] for epoch in epochs])
    write_tensors(path, {"pixels": pixels}, {"epochs": epochs}, kind="generated")


def _result(student: Network, history: History, settings: OnlineDistillation) -> dict[str, Any]:
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
    found["robustness"] = {name: asdict(robustness(own, HALF)) for name, own in curves.items() if own}
    return found


def _say(folder: Path, student: Network, teacher: Network, result: dict[str, Any], memory: Any) -> None:
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
