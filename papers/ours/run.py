"""Results that no paper has: students of CIFAR networks without data, beside the same students on real images.

    python -m papers.ours.run --budget smoke            # seconds, on scikit-learn's digits; what the tests run
    python -m papers.ours.run --budget cpu --jobs 1     # the numbers in claims.json; hours, resumable
    python -m papers.ours.run --budget cpu --rows half/data-free half/kd --seeds 0
    python benchmarks/gpu.py                            # the gpu budget, after the tests on the GPU

Each cell (data set, teacher, row, seed) is written as soon as it is measured. An interrupted cell continues after its last
chunk of images or epoch. Accuracy is measured after the last epoch on the whole test set, which no method can read; nothing
is chosen by it.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property, partial
from pathlib import Path
from typing import Any

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from datafree._core.files import read_json, write_json
from datafree.data import load
from datafree.distillation.distill import distill
from datafree.distillation.distill_online import distill_online
from datafree.distillation.prune import prune
from datafree.distillation.train import train
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.similarity import similarity
from datafree.models.network import Network
from datafree.releases.load import new_model
from datafree.releases.release import write_release
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize
from papers.cells import cell_path, cells_by_seed, deviations, measure, provenance, read_cell
from papers.chains import arguments, run, with_gpu
from papers.claims import ACCURACY, experiment, metric
from papers.ours.rows import BUDGETS, Pair, Row
from papers.teachers import teacher_of

HERE = Path(__file__).resolve().parent
AS_IN_TRAINING: Mapping[str, Any] = {"shift": 4, "flip": True}
"""Augmentation of the teachers' training images, whose statistics the batch norms have."""


class Chain:
    """All rows of one pair and one seed. Rows that learn from equal images share one synthetic set."""

    def __init__(self, pair: Pair, seed: int, work: Path, data_dir: str | None, device: str, rows: tuple[str, ...]):
        self.pair, self.seed, self.device, self.data_dir, self.rows = pair, seed, device, data_dir, rows
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (
            load(pair.data, part, data_dir=data_dir).subset(pair.limit) for part in ("train", "test")
        )
        self.spec = pair.spec(self.train.shape, self.train.classes)

    def run(self, say: Any) -> None:
        for name in self.pair.names():
            settings = self.pair.settings(name)
            if (not self.rows or name in (*self.rows, "teacher")) and read_cell(self.folder, name, settings) is None:
                measure(self, name, settings, say)

    def row(self, name: str) -> dict[str, Any]:
        if name == "teacher":
            return asdict(evaluate(self.teacher, self.test))
        if name in self.pair.online:
            return self.online_row(name)
        row = self.pair.rows[name]
        images, measured = (self.train, {}) if row.images is None else self.synthetic(row)
        schedule = row.schedule(len(images))
        state = cell_path(self.folder, name).with_suffix(".state.safetensors")
        identity = {**self.pair.settings(name), "seed": self.seed}
        start, resumed = time.process_time(), state.exists()
        options: dict[str, Any] = {
            "images": images, "settings": schedule, "seed": self.seed, "state": state, "identity": identity,
        }  # fmt: skip
        if row.keep is None:
            student = distill(self.teacher, row.student, start=row.start, **options)
        else:
            student = prune(self.teacher, row.keep, accuracy=self.accuracy, **options)
            before = student.rounds[-1].accuracy
            measured = {**measured, "accuracy_before_repair": before, "weights": student.parameters}
        seconds = time.process_time() - start
        state.unlink()
        curve = student.training.curve
        return {
            **asdict(evaluate(student, self.test, self.teacher)), **measured,
            "student_steps": schedule.epochs * (len(images) // schedule.batch), "loss": curve.loss,
            "student_cpu_seconds": None if resumed else round(seconds, 1),
        }  # fmt: skip

    def online_row(self, name: str) -> dict[str, Any]:
        row = self.pair.online[name]
        state = cell_path(self.folder, name).with_suffix(".state.safetensors")
        start, resumed = time.process_time(), state.exists()
        student = distill_online(
            self.teacher, row.student, row.online, start=row.start, seed=self.seed, state=state,
            identity={**self.pair.settings(name), "seed": self.seed},
        )  # fmt: skip
        seconds = time.process_time() - start
        state.unlink()
        return {
            **asdict(evaluate(student, self.test, self.teacher)), "loss": student.history.loss,
            "student_cpu_seconds": None if resumed else round(seconds, 1),
        }  # fmt: skip

    def accuracy(self, network: Network) -> float:
        """In percent of the test images."""
        return evaluate(network, self.test).accuracy

    # -- parts ----------------------------------------------------------------------------------------------------

    @cached_property
    def teacher(self) -> Network:
        published, folder = self.pair.published, self.folder / "teacher"
        if published is None and not folder.exists():
            teacher = new_model(self.pair.teacher, self.spec, seed=self.seed).to(self.device)
            train(teacher, self.train, self.pair.training, seed=self.seed)
            write_release(folder, teacher)
        return teacher_of(published, folder, self.spec, self.data_dir, self.device)

    def synthetic(self, row: Row) -> tuple[SyntheticSet, dict[str, Any]]:
        """The row's synthetic set, and how long it took and how close it is to the teacher's data."""
        assert row.images is not None
        identity = json.dumps([row.method.model_dump(mode="json"), row.images], sort_keys=True)
        out = self.folder / f"set-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
        measured_path = out.with_suffix(".json")
        if measured_path.exists():
            return SyntheticSet.open(out), read_json(measured_path)
        start, resumed = time.process_time(), out.exists()
        images = synthesize(self.teacher, None, row.method, out, images=row.images, seed=self.seed, workers=1)
        seconds = time.process_time() - start
        compared = similarity(self.teacher, {"synthetic": images}, **AS_IN_TRAINING)[0]
        measured = {
            "synthesis_cpu_seconds": None if resumed else round(seconds, 1),
            "divergence": compared.total, "diversity": compared.diversity,
        }  # fmt: skip
        write_json(measured_path, measured)
        return images, measured


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """One experiment per row from the existing cells; a row that was not run is listed as such."""
    claims, plan, reasons = [], BUDGETS[budget], deviations(HERE)
    for pair in plan.pairs:
        for name in pair.names() if budget != "gpu" else pair.rows:
            identity = f"{pair.id}/{name}"
            cells = cells_by_seed(work / pair.id, name, plan.seeds, pair.settings(name))
            if name in pair.online:
                cells = with_relative_cpu(cells, cells_by_seed(work / pair.id, "kd", plan.seeds, pair.settings("kd")))
            fields = {"deviation": reasons.get(identity, ""), **provenance(cells, budget)}
            claims.append(experiment(identity, metrics(name, cells), **fields))
    return claims


METRICS = {
    "agreement": ("% of test images, agreement with the teacher", "agreement"),
    "accuracy_before_repair": ("% of test images, pruned and not trained", "accuracy before the repair"),
    "weights": ("weights", "number of weights"),
    "synthesis_cpu_seconds": ("CPU-seconds, one thread", "CPU-seconds for the images"),
    "student_cpu_seconds": ("CPU-seconds, one thread", "CPU-seconds for the student"),
    "relative_cpu": ("CPU time / that of kd in the same run", "CPU time / that of kd"),
    "divergence": ("nats, images shifted and flipped as in training", "divergence of the images"),
    "diversity": ("effective directions within a class, 64 images", "diversity of the images"),
}
"""Field of a cell -> unit, title in the tables after the row's."""


def metrics(row: str, cells: Mapping[int, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Accuracy of a row, and everything else that all of its cells have measured. Interrupted runs have no CPU time."""
    measured = {"accuracy": metric(ACCURACY, {seed: cell["accuracy"] for seed, cell in cells.items()})}
    for name, (unit, title) in METRICS.items():
        if cells and all(cell.get(name) is not None for cell in cells.values()):
            measured[name] = metric(
                unit, {seed: round(cell[name], 2) for seed, cell in cells.items()}, title=f"{row}, {title}"
            )
    return measured


def with_relative_cpu(
    cells: Mapping[int, dict[str, Any]], kd: Mapping[int, dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """The cells with their CPU time divided by that of `kd` with the same seed, if both are known."""
    return {seed: {**cell, "relative_cpu": _ratio(cell, kd.get(seed, {}))} for seed, cell in cells.items()}


def _ratio(cell: Mapping[str, Any], kd: Mapping[str, Any]) -> float | None:
    seconds, kd_seconds = (one.get("student_cpu_seconds") for one in (cell, kd))
    return seconds / kd_seconds if seconds and kd_seconds else None


def main() -> int:
    args = arguments(__doc__, "ours", BUDGETS, "cifar10/resnet20", rows="half/data-free").parse_args()
    work = args.work or Path("runs") / "ours" / args.budget
    make = partial(Chain, work=work, data_dir=args.data_dir, device=args.device, rows=tuple(args.rows))
    return run(args, BUDGETS[args.budget], make, partial(with_gpu, args.budget, work, collect))


if __name__ == "__main__":
    sys.exit(main())
