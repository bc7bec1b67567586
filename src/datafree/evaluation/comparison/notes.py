"""What a comparison could not make equal, and what limits its numbers, one sentence each."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from ...models.network import Network
from .cell import CellResult, Student
from .methods import ComparedMethod
from .protocol import Protocol, online_of
from .result import FEW_SEEDS

__all__ = ["notes_of"]

OFF_BUDGET = 0.15
"""Share of the budget by which a method's time may differ without a note."""


def notes_of(
    methods: Sequence[ComparedMethod], students: Sequence[Student], results: Sequence[CellResult], protocol: Protocol,
    seeds: int,
) -> tuple[str, ...]:  # fmt: skip
    """The notes of these methods, students and results."""
    notes = []
    if seeds < FEW_SEEDS:
        notes.append(
            f"{seeds} seed{'s' if seeds > 1 else ''} only: differences may be chance; measure {FEW_SEEDS} or more"
        )
    counts = {
        (method.name, student.name): sum((r.method, r.student) == (method.name, student.name) for r in results)
        for method in methods
        for student in students
    }
    for (method_name, student_name), count in counts.items():
        if 0 < count < seeds:
            notes.append(
                f"{method_name} with {student_name}: {count} of {seeds} seeds have a result; methods with more seeds rank "
                "first"
            )
    if all(method.kind != "real" for method in methods):
        notes.append("without the control `real`: there are no training images, or controls were left out")
    for method in methods:
        if differences := _differences(method, protocol, results):
            notes.append(f"{method.name}: {'; '.join(differences)}")
    notes += _no_better_than_noise(methods, students, results)
    notes += _images(results) + _devices(results) + _times(methods, results, protocol)
    if not protocol.training.temperature and protocol.training.loss == "kl":
        notes.append(_temperatures(methods, results))
    others = sorted({result.student for result in results if protocol.start == "teacher" and not result.from_teacher})
    if others:
        notes.append(f"{', '.join(others)} started from random weights: its layers do not match the teacher's")
    own_weights = [student.name for student in students if isinstance(student.source, Network) or not _named(student)]
    if own_weights and protocol.start == "random":
        notes.append(
            f"{', '.join(own_weights)} starts from the weights that it was passed with, the same for every seed"
        )
    return tuple(notes)


def _named(student: Student) -> bool:
    return student.source is None or isinstance(student.source, str)


def _no_better_than_noise(
    methods: Sequence[ComparedMethod], students: Sequence[Student], results: Sequence[CellResult]
) -> list[str]:
    """The methods whose mean accuracy is at most that of the control `noise`, over the seeds that both have."""
    notes = []
    for student in students:
        accuracies = {(r.method, r.seed): r.accuracy for r in results if r.student == student.name}
        worse = []
        for method in methods:
            seeds = [seed for name, seed in accuracies if name == method.name and ("noise", seed) in accuracies]
            gains = [accuracies[method.name, seed] - accuracies["noise", seed] for seed in seeds]
            if gains and not method.control and sum(gains) <= 0:
                worse.append(method.name)
        if worse:
            notes.append(
                f"{', '.join(worse)} with {student.name}: no better than noise, so the images are of no use here"
            )
    return notes


def _differences(method: ComparedMethod, protocol: Protocol, results: Sequence[CellResult]) -> list[str]:
    """How the training of a method's student differs from that of the others."""
    training = protocol.training
    if method.kind == "real":
        count = next((result.images for result in results if result.method == method.name), None)
        images = "training images" if count is None else f"{count:,} training images"
        return [f"{images}, as many steps as the others" if protocol.budget is None else images]
    if method.kind != "online":
        return []
    settings = online_of(method)
    differences = ["new images in every step"]
    share = 0 if method.settings.replay == "none" else round(settings.replay_fraction * training.batch)
    if share:
        differences.append(f"each step has {share} replayed images beside the batch of {training.batch}")
    if settings.loss != training.loss:
        differences.append(f"its student's loss is {settings.loss.upper()}, not {training.loss.upper()}")
    if training.mixup:
        differences.append("no mixup")
    if training.warmup and training.decay == "cosine":
        differences.append("the cosine begins with the warm-up, not after it")
    return differences


def _images(results: Sequence[CellResult]) -> list[str]:
    """What is wrong with a method's images, of its first seed that has a warning."""
    warnings = {result.method: result.warning for result in reversed(results) if result.warning and not result.control}
    return [f"{method}: {warning}" for method, warning in sorted(warnings.items())]


def _devices(results: Sequence[CellResult]) -> list[str]:
    """That cells ran on several kinds of processor or versions of torch, so that their times cannot be compared."""
    notes = []
    devices = sorted({result.device for result in results})
    if len(devices) > 1:
        notes.append(f"cells ran on several devices, so their times cannot be compared: {'; '.join(devices)}")
    versions = sorted({str(result.versions.get("torch")) for result in results})
    if len(versions) > 1:
        notes.append(f"cells ran with several versions of torch: {', '.join(versions)}")
    return notes


def _times(methods: Sequence[ComparedMethod], results: Sequence[CellResult], protocol: Protocol) -> list[str]:
    """The methods whose mean time is far from the budget."""
    budget, far = protocol.budget, []
    for method in methods:
        seconds = [result.seconds for result in results if result.method == method.name]
        if budget is not None and seconds and abs(mean(seconds) - budget) > OFF_BUDGET * budget:
            far.append(f"{method.name} {mean(seconds):.3g} s")
    return (
        [f"far from the budget of {budget:g} s: {', '.join(far)}; a longer budget is met more closely"] if far else []
    )


def _temperatures(methods: Sequence[ComparedMethod], results: Sequence[CellResult]) -> str:
    """The temperatures that were chosen from the teacher's logits on each method's images."""
    ranges = []
    for method in methods:
        values = sorted({r.temperature for r in results if r.method == method.name and r.temperature is not None})
        if values:
            words = f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}"
            ranges.append(f"{method.name} {words}")
    listed = f" ({', '.join(ranges)})" if ranges else ""
    return f"temperatures were chosen from the teacher's logits on each method's own images{listed}"
