"""Every row of Tables 1, 3 and 5 of Lopes, Fenu, Starner 2017, and our own best recipe.

    python -m papers.lopes2017.run --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python -m papers.lopes2017.run --budget cpu     # under two hours on 2 cores; the numbers in claims.json
    python -m papers.lopes2017.run --budget full    # the authors' sizes; for a GPU (--device cuda)

Each cell (data set, teacher, row, seed) is written as soon as it is measured, so an interrupted run resumes. Accuracy is
measured after the last epoch on the whole test set; nothing is chosen by it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from datafree.data import load
from datafree.distillation.distill import distill
from datafree.distillation.sources import FreshImages, soft_labelled, stored_images
from datafree.distillation.train import train
from datafree.evaluation.accuracy import evaluate
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records import presets
from datafree.records.forecast import forecast_auc
from datafree.records.record import Record, record
from datafree.releases.load import load_model, new_model
from datafree.releases.release import Release, write_record, write_release
from datafree.synthesis import methods
from datafree.synthesis.synthetic_set import synthesize
from papers.cells import cell_path, cells_by_seed, deviations, measure, provenance, read_cell
from papers.chains import arguments, run
from papers.claims import ACCURACY, experiment, metric
from papers.lopes2017.rows import BUDGETS, PAPER, Pair

HERE = Path(__file__).resolve().parent
DRAWN = ("safe", "best")
"""Rows whose student learns from new images in every epoch, drawn from the record."""


def settings(pair: Pair, row: str) -> dict[str, Any]:
    """Everything that decides a cell's result. A cell with other settings is measured again and is no claim."""
    learning = {"teacher": pair.training, "student": pair.training} | dict.fromkeys(("kd", *DRAWN), pair.learning)
    drawn = methods.from_name("distribution").model_dump()
    return {
        "teacher": pair.teacher, "student": pair.student, "training": pair.training.model_dump(),
        "distillation": learning.get(row, pair.faithful).model_dump(),
        "method": drawn if row in DRAWN else pair.methods.get(row, {}),
        "images": pair.images_of.get(row, pair.images), "epoch_images": pair.epoch_images, "limit": pair.limit,
        "recorded_images": pair.spectral_limit if row.startswith("spectral") else None,
        # an InputSpec without its classes, which would need the data
        "input": {"shape": list(pair.shape), "mean": list(pair.mean), "std": list(pair.std), "low": 0.0, "high": 1.0},
    }  # fmt: skip


class Chain:
    """All rows of one pair and one seed, with their teacher and record."""

    def __init__(self, pair: Pair, seed: int, work: Path, data_dir: str | None, device: str):
        self.pair, self.seed, self.device = pair, seed, device
        self.folder = work / pair.id / f"seed-{seed}"
        side = {"size": pair.shape[-1]} if pair.data == "celeba" else {}
        self.train, self.test = (
            load(pair.data, split, data_dir=data_dir, **side).subset(pair.limit) for split in ("train", "test")
        )
        self.spec = InputSpec(shape=pair.shape, mean=pair.mean, std=pair.std, classes=self.train.classes)

    def run(self, say: Any) -> None:
        for row in sorted(self.pair.rows, key=lambda row: "spectral" in row):
            row_settings = settings(self.pair, row)
            if read_cell(self.folder, row, row_settings) is not None:
                continue
            if cell_path(self.folder, row).exists():
                self.remove_outdated(row)
            measure(self, row, row_settings, say)

    def remove_outdated(self, row: str) -> None:
        """Removes results of other settings: the row's set, or everything if the row is the teacher."""
        for stale in self.folder.glob("*" if row == "teacher" else f"set-{row}"):
            rmtree(stale) if stale.is_dir() else stale.unlink()

    def row(self, name: str) -> dict[str, Any]:
        measure_row = getattr(self, f"row_{name.replace('-', '_')}", None)
        return self.faithful(name) if measure_row is None else measure_row()

    # -- with data ------------------------------------------------------------------------------------------------

    def row_teacher(self) -> dict[str, Any]:
        teacher = self.new_network(self.pair.teacher)
        train(teacher, self.train, self.pair.training, seed=self.seed)
        write_release(self.folder / "teacher", teacher)
        return asdict(evaluate(teacher, self.test))

    def row_student(self) -> dict[str, Any]:
        student = self.new_network(self.pair.student)
        train(student, self.train, self.pair.training, seed=self.seed)
        return asdict(evaluate(student, self.test))

    def row_kd(self) -> dict[str, Any]:
        teacher = self.teacher()
        return self.distill(teacher, soft_labelled(teacher, self.train), self.pair.learning)

    # -- without data ---------------------------------------------------------------------------------------------

    def row_best(self) -> dict[str, Any]:
        return self.drawn(presets.best(self.new_network(self.pair.teacher)))

    def row_safe(self) -> dict[str, Any]:
        """With the default record, which bounds the forecast leakage."""
        return self.drawn(presets.preset("safe", self.new_network(self.pair.teacher), self.train))

    def drawn(self, statistics: Any) -> dict[str, Any]:
        """A student on fresh images drawn from a record of `statistics`."""
        teacher, teacher_record = self.published(statistics)
        start = time.perf_counter()
        method = methods.from_name("distribution")
        source = FreshImages(self.spec, method.bind(teacher, teacher_record), self.pair.epoch_images)
        result = self.distill(teacher, source, self.pair.learning)
        seconds = round(time.perf_counter() - start, 2)
        return {**result, **self.costs(teacher, teacher_record), "record_to_student_seconds": seconds}

    def faithful(self, row: str) -> dict[str, Any]:
        """A student on a set that is reconstructed with one of the paper's objectives."""
        limit = self.pair.spectral_limit if row.startswith("spectral") else None
        teacher, teacher_record = self.published(presets.paper_row(row, self.new_network(self.pair.teacher)), limit)
        method = methods.from_dict({"method": row, **self.pair.methods.get(row, {})})
        start = time.perf_counter()
        synthetic = synthesize(
            teacher, teacher_record, method, self.folder / f"set-{row}",
            images=self.pair.images_of.get(row, self.pair.images),
            seed=self.seed, workers=1,
        )  # fmt: skip
        result = self.distill(teacher, stored_images(synthetic), self.pair.faithful)
        seconds = round(time.perf_counter() - start, 2)
        return {**result, **self.costs(teacher, teacher_record), "record_to_student_seconds": seconds}

    # -- parts ----------------------------------------------------------------------------------------------------

    def new_network(self, name: str) -> Network:
        network = new_model(name, self.spec, seed=self.seed)
        network.module.to(self.device)
        return network

    def teacher(self) -> Network:
        teacher = load_model(str(self.folder / "teacher"))
        teacher.module.to(self.device)
        return teacher

    def published(self, statistics: Any, limit: int | None = None) -> tuple[Network, Record]:
        """The teacher and its record of these statistics, measured on the first `limit` training images (None: all)."""
        teacher, folder = self.teacher(), self.folder / "teacher"
        write_record(folder, teacher, record(teacher, self.train.subset(limit), statistics))
        stored = Release.open(folder).record(teacher)  # from the file, as a deployer gets it
        assert stored is not None
        return teacher, stored

    def distill(self, teacher: Network, source: Any, settings: Any) -> dict[str, Any]:
        student = self.new_network(self.pair.student)
        curve = distill(teacher, student, source, settings, seed=self.seed)
        return {**asdict(evaluate(student, self.test, teacher)), "loss": curve.loss}

    def costs(self, teacher: Network, teacher_record: Record) -> dict[str, Any]:
        size = (self.folder / "teacher" / "record.safetensors").stat().st_size
        return {"record_bytes": size, "forecast_auc": forecast_auc(teacher_record.released_statistics(teacher))}


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """One experiment per row from the existing cells; a row that was not run is listed as such."""
    claims, plan, reasons = [], BUDGETS[budget], deviations(HERE)
    for pair in plan.pairs:
        for row in pair.rows:
            identity = f"{pair.id}/{row}"
            cells = cells_by_seed(work / pair.id, row, plan.seeds, settings(pair, row))
            values = {seed: cell["accuracy"] for seed, cell in cells.items()}
            accuracy = metric(ACCURACY, values, paper=PAPER.get(identity))
            fields = {
                **provenance(cells, budget),
                "deviation": reasons.get(identity, ""),
                **_costs(list(cells.values())),
            }
            claims.append(experiment(identity, {"accuracy": accuracy}, **fields))
    return claims


def _costs(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The record's size and forecast leakage of the first seed, the time from record to student, and the mean
    agreement in %.
    """
    costs = {key: cells[0][key] for key in ("record_bytes", "forecast_auc") if cells and key in cells[0]}
    seconds = [cell["record_to_student_seconds"] for cell in cells if "record_to_student_seconds" in cell]
    if seconds:
        costs["record_to_student_seconds"] = {"mean": round(sum(seconds) / len(seconds), 1), "max": max(seconds)}
    agreements = [cell["agreement"] for cell in cells if cell.get("agreement") is not None]
    if agreements:
        costs["mean_agreement"] = round(sum(agreements) / len(agreements), 3)
    return costs


def main() -> int:
    args = arguments(__doc__, "lopes2017", BUDGETS, "mnist/hinton").parse_args()
    work = args.work or Path("runs") / "lopes2017" / args.budget
    make = partial(Chain, work=work, data_dir=args.data_dir, device=args.device)
    return run(args, BUDGETS[args.budget], make, partial(collect, args.budget, work))


if __name__ == "__main__":
    sys.exit(main())
