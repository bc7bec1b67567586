"""Rows of the report's table and its curves, from the logs of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from ..._core.errors import UserError
from ..._core.files import read_weights
from ...quantization.folder import is_quantized
from ...releases.bits import ends
from ...releases.release import Release
from ...runs.provenance import shown
from ...runs.run_reader import FinishedRun, Scores
from .model import Line, Row
from .numbers import duration
from .online import online_lines

__all__ = ["FEW", "curve_lines", "making_time", "network_row", "quantized_row", "release_row"]

FEW = "from a few images"
"""Group of the students that learned from condensed images, which may be original training images."""


_NO_TRAINING = ("pack", "record")
"""Verbs that write a release of a network that was trained before, so that their time is not the network's."""


def network_row(
    folder: Path, log: FinishedRun, is_teacher: bool, scores: Scores, sets: Mapping[str, FinishedRun]
) -> Row:
    """A table row of a release or a quantized network; `sets` are the logs of the synthetic sets in the report, by hash."""
    if is_quantized(folder):
        return quantized_row(folder, log, scores)
    return release_row(folder, log, is_teacher, scores, sets)


def release_row(
    folder: Path, log: FinishedRun, is_teacher: bool, scores: Scores, sets: Mapping[str, FinishedRun] | None = None
) -> Row:
    """A table row from a release and its run.json; `sets` are the logs of the synthetic sets in the report, by hash."""
    release = Release.open(folder)
    learns_from = str(log.settings.get("learns_from", ""))
    group = (
        "teacher"
        if is_teacher or log.verb in (None, "record", "pack")
        else "with data"
        if log.verb == "train" or "real" in learns_from
        else FEW
        if "condensed" in learns_from or "a synthetic set of expand" in learns_from
        else "without data"
    )
    weights = sum(math.prod(shape) for shape in _shapes(release))
    return Row(
        name=folder.name, group=group, accuracy=scores.accuracy, agreement=scores.agreement,
        parameters=weights, nbytes=(folder / "model.safetensors").stat().st_size,
        seconds=None if log.verb in _NO_TRAINING else log.whole_seconds,
        images=log.distinct_images, note=_note(learns_from or str(release.config.get("architecture", "")), log, sets),
    )  # fmt: skip


def _note(source: str, log: FinishedRun, sets: Mapping[str, FinishedRun] | None) -> str:
    """The source of a network's training images, and for a synthetic set the time to make it, which the row's time
    excludes.
    """
    if "condensed images" in source:
        source += " (their card says whether they are training images)"
    if "a synthetic set" not in source:
        return source
    logs = [sets[digest] for digest in log.inputs.values() if digest in sets] if sets else []
    return f"{source}, {making_time(logs[0] if logs else None)}"


def making_time(log: FinishedRun | None) -> str:
    """The time to make a synthetic set's images, in words; `log` is the set's, None if unknown."""
    seconds = None if log is None else log.whole_seconds
    return "time to make its images unknown" if seconds is None else f"images made in {duration(seconds)}"


def quantized_row(folder: Path, log: FinishedRun, scores: Scores) -> Row:
    """A table row from the run.json of `datafree quantize`."""
    settings, speed = log.settings, log.result.speed
    if speed is None or log.result.parameters is None:
        raise UserError(f"{folder / 'run.json'} is not of a finished run of datafree quantize; run it again")
    tuned = f", fine-tuned on {shown(settings['finetune'])}" if settings.get("finetune") else ""
    return Row(
        name=folder.name, group="quantized", accuracy=scores.accuracy, agreement=scores.agreement,
        parameters=log.result.parameters, nbytes=speed.quantized_bytes, seconds=log.whole_seconds, images=log.result.images,
        note=f"W{settings.get('weights')}A{settings.get('activations')}"
        f"{ends(settings.get('first'), settings.get('last'))}, calibrated on {shown(settings.get('calibrate'))}{tuned}; "
        f"{speed.faster:.2f} times as fast{', simulated bits' if log.result.simulated else ''}",
    )  # fmt: skip


def _shapes(release: Release) -> list[tuple[int, ...]]:
    """Shapes of the weights, without running statistics."""
    return [
        tuple(tensor.shape)
        for name, tensor in read_weights(release.weights).items()
        if not name.endswith(("_mean", "_var", "tracked"))
    ]


def curve_lines(name: str, log: FinishedRun) -> list[Line]:
    """The curves in a run.json."""
    if log.result.online is not None:
        return online_lines(name, log.result.online)
    curve = log.result.curve
    lines = [Line(name, list(curve.loss), "training loss")] if curve.loss else []
    return lines + ([Line(name, list(curve.scores), "test accuracy, %")] if curve.scores else [])
