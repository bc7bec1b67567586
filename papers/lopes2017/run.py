"""Tables 1, 3 and 5 of Lopes, Fenu, Starner 2017, every row, and our own best recipe beside them.

    python papers/lopes2017/run.py --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python papers/lopes2017/run.py --budget cpu     # under two hours on 2 cores; the numbers in claims.json
    python papers/lopes2017/run.py --budget full    # the authors' sizes; for a GPU (--device cuda)

Each cell (data set, teacher, row, seed) is written when it is done, so a stopped run goes on where it was. Accuracy is
that of the last epoch on the whole test set; nothing is chosen by it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cells import by_seed, common, deviations, file_of, keep, read
from chains import arguments, run
from claims import claim
from rows import BUDGETS, PAPER, Pair

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

DRAWN = ("safe", "best")
"""Rows whose student learns from fresh images drawn from the record."""


def settings(pair: Pair, row: str) -> dict[str, Any]:
    """What decides a cell's number: a cell of other settings is run again, and is no claim."""
    learning = {"teacher": pair.training, "student": pair.training} | dict.fromkeys(("kd", *DRAWN), pair.learning)
    drawn = methods.from_name("distribution").model_dump()
    return {
        "teacher": pair.teacher, "student": pair.student, "training": pair.training.model_dump(),
        "distillation": learning.get(row, pair.faithful).model_dump(),
        "method": drawn if row in DRAWN else pair.methods.get(row, {}),
        "images": pair.images_of.get(row, pair.images), "epoch images": pair.epoch_images, "limit": pair.limit,
        "recorded images": pair.spectral_limit if row.startswith("spectral") else None,
        # all of an InputSpec but its classes, without loading the data
        "input": {"shape": list(pair.shape), "mean": list(pair.mean), "std": list(pair.std), "low": 0.0, "high": 1.0},
    }  # fmt: skip


class Chain:
    """Everything of one pair and one seed: its teacher, its record, its rows."""

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
            asked = settings(self.pair, row)
            if read(self.folder, row, asked) is not None:
                continue
            if file_of(self.folder, row).exists():
                self.forget(row)
            keep(self, row, asked, say)

    def forget(self, row: str) -> None:
        """Removes what was made with other settings: the row's set, and all that a new teacher makes void."""
        for stale in self.folder.glob("*" if row == "teacher" else f"set-{row}"):
            rmtree(stale) if stale.is_dir() else stale.unlink()

    def row(self, name: str) -> dict[str, Any]:
        """What the row's cell says."""
        own = getattr(self, f"row_{name.replace('-', '_')}", None)
        return self.faithful(name) if own is None else own()

    # -- with data ------------------------------------------------------------------------------------------------

    def row_teacher(self) -> dict[str, Any]:
        teacher = self.fresh(self.pair.teacher)
        train(teacher, self.train, self.pair.training, seed=self.seed)
        write_release(self.folder / "teacher", teacher)
        return asdict(evaluate(teacher, self.test))

    def row_student(self) -> dict[str, Any]:
        student = self.fresh(self.pair.student)
        train(student, self.train, self.pair.training, seed=self.seed)
        return asdict(evaluate(student, self.test))

    def row_kd(self) -> dict[str, Any]:
        teacher, _ = self.published(())
        return self.taught(teacher, soft_labelled(teacher, self.train), self.pair.learning)

    # -- without data ---------------------------------------------------------------------------------------------

    def row_best(self) -> dict[str, Any]:
        return self.drawn(presets.best(self.fresh(self.pair.teacher)))

    def row_safe(self) -> dict[str, Any]:
        """The default record, whose forecast leakage is bounded."""
        return self.drawn(presets.preset("safe", self.fresh(self.pair.teacher), self.train))

    def drawn(self, statistics: Any) -> dict[str, Any]:
        """A student on fresh images drawn from a record of `statistics`."""
        teacher, known = self.published(statistics)
        began = time.perf_counter()
        method = methods.from_name("distribution")
        source = FreshImages(self.spec, method.bind(teacher, known), self.pair.epoch_images)
        result = self.taught(teacher, source, self.pair.learning)
        seconds = round(time.perf_counter() - began, 2)
        return {**result, **self.costs(teacher, known), "record to student, seconds": seconds}

    def faithful(self, row: str) -> dict[str, Any]:
        limit = self.pair.spectral_limit if row.startswith("spectral") else None
        teacher, known = self.published(presets.paper_row(row, self.fresh(self.pair.teacher)), limit)
        method = methods.from_dict({"method": row, **self.pair.methods.get(row, {})})
        began = time.perf_counter()
        made = synthesize(
            teacher, known, method, self.folder / f"set-{row}", images=self.pair.images_of.get(row, self.pair.images),
            seed=self.seed, workers=1,
        )  # fmt: skip
        result = self.taught(teacher, stored_images(made), self.pair.faithful)
        seconds = round(time.perf_counter() - began, 2)
        return {**result, **self.costs(teacher, known), "record to student, seconds": seconds}

    # -- parts ----------------------------------------------------------------------------------------------------

    def fresh(self, name: str) -> Network:
        network = new_model(name, self.spec, seed=self.seed)
        network.module.to(self.device)
        return network

    def published(self, statistics: Any, limit: int | None = None) -> tuple[Network, Record]:
        """The teacher, and a record of it with just these statistics, measured on (part of) the training data."""
        folder = self.folder / "teacher"
        teacher = load_model(str(folder))
        teacher.module.to(self.device)
        known = record(teacher, self.train.subset(limit), statistics) if statistics else None
        if known is not None:
            write_record(folder, teacher, known)
            known = Release.open(folder).record(teacher)  # what a deployer gets: from the file
        return teacher, known  # type: ignore[return-value]

    def taught(self, teacher: Network, source: Any, settings: Any) -> dict[str, Any]:
        student = self.fresh(self.pair.student)
        curve = distill(teacher, student, source, settings, seed=self.seed)
        return {**asdict(evaluate(student, self.test, teacher)), "loss": curve.loss}

    def costs(self, teacher: Network, known: Record) -> dict[str, Any]:
        size = (self.folder / "teacher" / "record.safetensors").stat().st_size
        return {"record bytes": size, "forecast AUC": forecast_auc(known.released_statistics(teacher))}


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """claims from the cells that are there; a row that was not run is listed as such."""
    made, plan, notes = [], BUDGETS[budget], deviations(HERE)
    for pair in plan.pairs:
        for row in pair.rows:
            identity = f"{pair.id}/{row}"
            found = by_seed(work / pair.id, row, plan.seeds, settings(pair, row))
            place, paper = PAPER.get(identity, ("ours", None))
            first = next(iter(found.values()), {})
            extra = {key: first[key] for key in ("record bytes", "forecast AUC") if key in first}
            times = [own["record to student, seconds"] for own in found.values() if "record to student, seconds" in own]
            if times:
                extra["record to student, seconds"] = {"mean": round(sum(times) / len(times), 1), "max": max(times)}
            agreements = [own["agreement"] for own in found.values() if own.get("agreement") is not None]
            if agreements:
                extra["agreement, mean %"] = round(sum(agreements) / len(agreements), 3)
            made.append(
                claim(
                    identity, place, "% test accuracy, last epoch", paper, {s: own["accuracy"] for s, own in found.items()},
                    **common(found, budget), deviation=notes.get(identity, ""), **extra,
                )
            )  # fmt: skip
    return made


def main() -> int:
    args = arguments(__doc__, "lopes2017", BUDGETS, "mnist/hinton").parse_args()
    work = args.work or Path("runs") / "lopes2017" / args.budget
    make = partial(Chain, work=work, data_dir=args.data_dir, device=args.device)
    return run(args, BUDGETS[args.budget], make, partial(collect, args.budget, work))


if __name__ == "__main__":
    sys.exit(main())
