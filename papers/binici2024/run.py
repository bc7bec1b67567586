"""Condensed data expansion by model inversion (Binici et al. 2024): a student from 1 condensed or 10 real images a class.

    python papers/binici2024/run.py --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python papers/binici2024/run.py --budget cpu     # under two hours on 2 cores; the numbers in claims.json
    python papers/binici2024/run.py --budget gpu --device cuda

Each cell (data set, row, seed) is written when it is done, so a stopped run goes on where it was. The seed decides teacher,
few images, made images and student. Every student takes the same number of steps; accuracy is that of the last epoch on
the whole test set, by an oracle that no method reads.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from chains import arguments, run
from claims import claim
from rows import BUDGETS, FEW, SHOWN, WAYS, Pair, split
from torch import Tensor

from datafree import alignment, condensing
from datafree.augment import Augmentation
from datafree.condensed import Condensed
from datafree.data import load
from datafree.distillation import distill
from datafree.evaluation import evaluate
from datafree.expansion import Expansion, expand
from datafree.files import read_json, write_json
from datafree.images import Images, Mixed, Source, soft_labelled, stored
from datafree.models import load_model, new_model
from datafree.network import Network
from datafree.release import write_release
from datafree.runlog import commit, device_name, versions
from datafree.spec import InputSpec
from datafree.training import train


@dataclass(frozen=True)
class Some:
    """Of each shuffled pass over the whole only the first `images`: a pass of as many steps as every other row's."""

    whole: Images
    images: int

    @property
    def spec(self) -> InputSpec:
        return self.whole.spec

    def __len__(self) -> int:
        return self.images

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self.whole.epoch(seed, epoch, batch), self.images // min(batch, self.images))


class Chain:
    """Everything of one pair and one seed: its teacher, its few images, its rows."""

    def __init__(self, pair: Pair, seed: int, work: Path, data_dir: str | None, device: str):
        self.pair, self.seed, self.device = pair, seed, device
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (
            load(pair.data, own, data_dir=data_dir).subset(pair.limit) for own in ("train", "test")
        )
        shape = self.train.shape if pair.size is None else (self.train.shape[0], pair.size, pair.size)
        self.spec = InputSpec(shape=shape, classes=self.train.classes)

    def settings(self, row: str) -> dict[str, Any]:
        """What decides a cell's number: a cell of other settings is run again."""
        own = self.pair
        found = {"teacher": own.teacher, "training": own.training.model_dump(), "limit": own.limit}
        if row == "teacher":
            return found
        found |= {"student": own.student, "learning": own.learning.model_dump(), "epoch images": own.epoch_images}
        if row == "kd":
            return found
        kind, count, way = split(row)
        made = None if WAYS[way] is None else {**self.expansion(way).model_dump(), "images": own.images}
        return {
            **found, "few": self.condenser(kind).model_dump(), "count": count, "shown": self.shown(way).model_dump(),
            "made": made, "guide": None if made is None else alignment.named("mmd").model_dump(),
        }  # fmt: skip

    def run(self, say: Any) -> None:
        for row in self.pair.rows:
            cell = self.folder / f"{row.replace('/', '-')}.json"
            settings = self.settings(row)
            if cell.exists() and read_json(cell).get("settings") == settings:
                continue
            if row == "teacher":  # a new one makes everything void
                for stale in self.folder.glob("*"):
                    rmtree(stale) if stale.is_dir() else stale.unlink()
            began = time.perf_counter()
            result = self.row(row)
            result |= {"seconds": round(time.perf_counter() - began, 2), "device": device_name(self.device)}
            write_json(cell, {**result, "versions": versions(), "settings": settings, "commit": commit()})
            say(f"{self.pair.id}/{row} seed {self.seed}: {result['accuracy']:.2f} % in {result['seconds']:.0f} s")

    def row(self, row: str) -> dict[str, Any]:
        if row == "teacher":
            teacher = self.fresh(self.pair.teacher)
            train(teacher, self.train, self.pair.training, seed=self.seed)
            write_release(self.folder / "teacher", teacher)
            return asdict(evaluate(teacher, self.test))
        if row == "kd":
            return self.taught(Some(soft_labelled(self.teacher, self.train), self.pair.epoch_images))
        kind, count, way = split(row)
        few = self.few(kind, count)
        others = None if WAYS[way] is None else self.expanded(few, way)
        shown = self.shown(way)
        return self.taught(Mixed(self.teacher, few.clamped(), others, self.pair.epoch_images, how=shown))

    # -- parts ----------------------------------------------------------------------------------------------------

    @cached_property
    def teacher(self) -> Network:
        teacher = load_model(str(self.folder / "teacher"))
        teacher.module.to(self.device)
        return teacher

    def fresh(self, name: str) -> Network:
        network = new_model(name, self.spec, seed=self.seed)
        network.module.to(self.device)
        return network

    def condenser(self, kind: str) -> Any:
        return condensing.named(FEW[kind], **(self.pair.condensing if FEW[kind] == "dm" else {}))

    def few(self, kind: str, count: int) -> Condensed:
        folder, method = self.folder / f"{kind}-{count}", self.condenser(kind)
        made = {**method.model_dump(mode="json"), "seed": self.seed, "per_class": count}
        if folder.exists() and Condensed.open(folder).about["made"] == made:
            return Condensed.open(folder)
        job = condensing.Job(self.train, self.spec, count, seed=self.seed, device=self.device)
        condensing.condense(method, job).save(folder)
        return Condensed.open(folder)

    def expansion(self, way: str) -> Expansion:
        return Expansion(**{**(WAYS[way] or {}), **self.pair.expansion})

    def shown(self, way: str) -> Augmentation:
        return SHOWN.get(way, Augmentation())

    def expanded(self, few: Condensed, way: str) -> Source:
        """The set beside the few; rows of the same settings share it. Plain inversion's anchor is a black image."""
        settings, anchors = self.expansion(way), (few.clamped(), few.labels)
        if settings.start == "noise" and settings.guidance == 0:
            anchors = few.clamped()[:1] * 0 + self.spec.black, few.labels[:1]
        known = [settings.model_dump(mode="json"), hashlib.sha256(anchors[0].numpy().tobytes()).hexdigest()]
        name = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]
        out = self.folder / f"set-{name}"
        return stored(expand(self.teacher, anchors, out, settings, images=self.pair.images, seed=self.seed, workers=1))

    def taught(self, source: Source) -> dict[str, Any]:
        student = self.fresh(self.pair.student)
        curve = distill(self.teacher, student, source, self.pair.learning, seed=self.seed)
        return {**asdict(evaluate(student, self.test, self.teacher)), "loss": curve.loss}


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """Claims from the cells that are there; a row that was not run is listed as such."""
    made, plan = [], BUDGETS[budget]
    for pair in plan.pairs:
        for row in pair.rows:
            cells = {seed: work / pair.id / f"seed-{seed}" / f"{row.replace('/', '-')}.json" for seed in plan.seeds}
            found = {seed: read_json(path) for seed, path in cells.items() if path.exists()}
            first = next(iter(found.values()), {})
            seconds = round(sum(own["seconds"] for own in found.values()) / len(found), 1) if found else None
            values = {seed: own["accuracy"] for seed, own in found.items()}
            made.append(
                claim(
                    f"{pair.id}/{row}", "ours", "% test accuracy, last epoch", None, values, seconds=seconds,
                    device=first.get("device"), versions=first.get("versions"), commit=first.get("commit"), budget=budget,
                    deviation="",
                )
            )  # fmt: skip
    return made


def main() -> int:
    args = arguments(__doc__, "binici2024", BUDGETS, "mnist/lenet5").parse_args()
    work = args.work or Path("runs") / "binici2024" / args.budget
    make = partial(Chain, work=work, data_dir=args.data_dir, device=args.device)
    return run(args, BUDGETS[args.budget], make, partial(collect, args.budget, work))


if __name__ == "__main__":
    sys.exit(main())
