"""datafree demo: the whole journey on scikit-learn's digits."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from .._core.errors import UserError
from .._core.files import locked, sweep
from .._core.threads import one_thread
from ..data import Dataset, load
from ..distillation.distill import Distillation, distill
from ..distillation.sources import StoredImages, soft_labelled, stored_images
from ..distillation.train import train
from ..distillation.training_loop import Curve, Schedule
from ..evaluation.accuracy import Evaluation, evaluate
from ..evaluation.report import Line, Report, Row, grid_of, write
from ..models.input_spec import InputSpec
from ..models.network import Network
from ..models.pixel_bytes import to_pixels
from ..records import presets
from ..records.forecast import forecast_auc
from ..records.record import record
from ..releases.load import new_model
from ..releases.release import Release, write_release
from ..runs.output_folder import DEMO_FOLDER, output_folder
from ..runs.run_log import RunLog, versions
from ..synthesis import methods
from ..synthesis.synthetic_set import SyntheticSet, make_set
from .progress_bar import bar
from .terminal import plain

__all__ = ["demo"]

METHODS = ("top", "all", "all-dropout", "spectral-all", "spectral-pairs", "matched", "distribution")
PARTS = ("teacher", "set-*", "student-*")
TRAINING = Schedule(epochs=40, batch=64, learning_rate=2e-3)
LEARNING = Distillation(epochs=30, batch=64, learning_rate=2e-3)


@dataclass(frozen=True)
class Result:
    """One network of the demo."""

    name: str
    group: str
    network: Network
    scores: Evaluation
    curve: Curve
    seconds: float
    images: int
    note: str


def demo(
    *,
    out: Path,
    images: int,
    seed: int,
    quiet: bool,
) -> None:
    """Does what `demo_command.demo` has the options of."""
    if images < 1:
        raise UserError(f"--images: got {images}, expected at least 1; give a positive count")
    log = RunLog("demo", {"images": images, "seed": seed}, {})
    with output_folder(out, DEMO_FOLDER, log) as folder:
        if folder is None:
            _sweep_parts(out)
            return
        for part in PARTS:  # of a run that was killed, or of another version
            for old in folder.glob(part):
                shutil.rmtree(old)
        _demo(folder, log, images, seed, quiet)


def _sweep_parts(out: Path) -> None:
    """Removes what a power cut brought back in the folders of a finished demo: locks and temporary files."""
    for folder in (folder for part in PARTS for folder in out.glob(part)):
        with locked(folder):
            sweep(folder)


def _demo(folder: Path, log: RunLog, images: int, seed: int, quiet: bool) -> None:
    training, test = load("digits", "train"), load("digits", "test")
    spec = InputSpec(shape=training.shape, classes=training.classes)
    with one_thread():  # these networks are so small that two threads would mostly wait for each other
        results = _with_data(folder, training, test, spec, seed)
        teacher = results[0].network
        without_data = [_without(folder, teacher, name, test, images, seed, quiet) for name in METHODS]
    results += [result for result, _ in without_data]
    page = _page(results, [synthetic_set for _, synthetic_set in without_data], test, spec)
    write(page, folder / "report.html")
    log.write(folder, {result.name: asdict(result.scores) for result in results})
    _print(results)
    print(f"report: {folder / 'report.html'}")


def _with_data(folder: Path, training: Dataset, test: Dataset, spec: InputSpec, seed: int) -> list[Result]:
    """The teacher with its record, the student trained on the labels, and the one distilled on the data."""
    began = time.perf_counter()
    teacher = new_model("hinton256", spec, seed=seed)
    score = accuracy_on(test)
    curve = train(teacher, training, TRAINING, seed=seed, score=score)
    results = [
        _result("teacher", "teacher", teacher, teacher, test, curve, began, len(training), "trained on the digits")
    ]
    write_release(folder / "teacher", teacher, record(teacher, training, presets.preset("full", teacher, training)))
    began = time.perf_counter()
    student = new_model("hinton128", spec, seed=seed)
    curve = train(student, training, TRAINING, seed=seed, score=score)
    results.append(
        _result("student on the data", "with data", student, teacher, test, curve, began, len(training), "labels")
    )
    began = time.perf_counter()
    distilled = new_model("hinton128", spec, seed=seed)
    curve = distill(teacher, distilled, soft_labelled(teacher, training), LEARNING, seed=seed, score=score)
    note = "the teacher's soft labels on real digits"
    results.append(
        _result("distilled on the data", "with data", distilled, teacher, test, curve, began, len(training), note)
    )
    return results


def accuracy_on(test: Dataset) -> Callable[[Network], float]:
    """For curves alone: no checkpoint is chosen by it."""
    return lambda network: evaluate(network, test).accuracy


def _without(
    folder: Path, teacher: Network, name: str, test: Dataset, images: int, seed: int, quiet: bool
) -> tuple[Result, SyntheticSet]:
    """A student from the release alone: no data is read."""
    began = time.perf_counter()
    record = Release.open(folder / "teacher").record(teacher)
    steps = {} if name == "distribution" else {"steps": 100}
    method = methods.from_dict({"method": name, **steps})
    with bar(f"synthesize {name}", quiet) as progress:
        synthetic_set = make_set(
            teacher, record, method, folder / f"set-{name}", images=images, seed=seed, chunk=None, workers=None,
            progress=progress,
        )  # fmt: skip
    student = new_model("hinton128", teacher.spec, seed=seed)
    source: StoredImages = stored_images(synthetic_set)
    curve = distill(teacher, student, source, LEARNING, seed=seed, score=accuracy_on(test))
    write_release(folder / f"student-{name}", student, notes=f"distilled without data, method {name}")
    assert record is not None
    note = method.summary
    return _result(name, "without data", student, teacher, test, curve, began, len(synthetic_set), note), synthetic_set


def _result(
    name: str, group: str, network: Network, teacher: Network, test: Dataset, curve: Curve,
    began: float, images: int, note: str,
) -> Result:  # fmt: skip
    seconds = time.perf_counter() - began
    return Result(name, group, network, evaluate(network, test, teacher), curve, seconds, images, note)


def _page(results: list[Result], sets: list[SyntheticSet], test: Dataset, spec: InputSpec) -> Report:
    pixels = test.scaled_to(spec).pixels(torch.arange(len(test)).numpy(), spec.shape[1:])
    grids = [grid_of("real digits", pixels, test.labels, len(spec.classes), spec=spec, note="the test set")]
    for synthetic_set in sets:
        stored_pixels, _, logits = synthetic_set.load()
        pixels = to_pixels(stored_pixels, spec)
        name = synthetic_set.about["method"]["method"]
        grids.append(
            grid_of(name, pixels, logits.argmax(1), len(spec.classes), spec=spec, note="sorted by the teacher's answer")
        )
    record = Release.open(sets[0].folder.parent / "teacher").record(results[0].network)
    assert record is not None
    leak = forecast_auc(record.released_statistics(results[0].network))
    return Report(
        title="A student without data, on scikit-learn's digits",
        summary=_summary(results),
        rows=[_row(result) for result in results],
        grids=grids,
        lines=[Line(r.name, r.curve.scores, "test accuracy, %") for r in results]
        + [Line(r.name, r.curve.loss, "distillation loss") for r in results if r.name not in _TRAINED],
        settings=_settings(results[0].network),
        warnings=[
            f"The record made here holds everything that every method needs: its forecast leakage is AUC {leak:.2f}.",
            "500 test images: a difference of less than about 2 points is noise.",
        ],
        classes=spec.classes,
        measured_on=f"{len(test):,} test images of {test.public}",
    )


_TRAINED = ("teacher", "student on the data")


def _settings(teacher: Network) -> dict[str, Any]:
    return {
        "training": TRAINING.model_dump(),
        "distillation": {**LEARNING.model_dump(), "temperature": "by the scale of the teacher's logits on each source"},
        "input": teacher.spec.model_dump(mode="json", exclude={"classes"}),
        "versions": versions(),
    }


def _summary(results: list[Result]) -> str:
    free = next(r for r in results if r.name == methods.DEFAULT)  # chosen beforehand, not by these test images
    baseline = next(r for r in results if r.name == "distilled on the data")
    return (
        f"Without seeing a digit, a student of half the teacher's width reaches {free.scores.accuracy:.1f} % ({free.name}); "
        f"distilled on the data itself it reaches {baseline.scores.accuracy:.1f} %."
    )


def _row(result: Result) -> Row:
    return Row(
        name=result.name, group=result.group, accuracy=result.scores.accuracy, agreement=result.scores.agreement,
        parameters=result.network.parameters, nbytes=result.network.nbytes(), seconds=result.seconds,
        images=result.images, note=result.note,
    )  # fmt: skip


def _print(results: list[Result]) -> None:
    table = Table(title="accuracy, and agreement with the teacher, in % of 500 test images")
    for name in ("network", "accuracy", "agreement", "weights", "kB", "s"):
        table.add_column(name, justify="left" if name == "network" else "right", no_wrap=name == "network")
    for r in results:
        size = f"{r.network.nbytes() / 1000:,.0f}"
        agreement = f"{r.scores.agreement:.1f}"
        name = r.name if r.group != "without data" else f"without data: {r.name}"
        table.add_row(
            name, f"{r.scores.accuracy:.1f}", agreement, f"{r.network.parameters:,}", size, f"{r.seconds:.1f}"
        )
    Console(file=plain()).print(table)
