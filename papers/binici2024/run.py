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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from cells import by_seed, common, deviations, keep, read
from chains import arguments, run, with_gpu
from claims import claim
from rows import BUDGETS, FEW, SHOWN, WAYS, Pair, split
from torch import Tensor

from datafree.data import load
from datafree.data.augmentation import Augmentation
from datafree.data.condensed import methods
from datafree.data.condensed.condensed_set import Condensed
from datafree.distillation.distill import distill
from datafree.distillation.sources import MixedImages, Source, StoredImages, soft_labelled, stored_images
from datafree.distillation.train import train
from datafree.evaluation.accuracy import evaluate
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import load_model, new_model
from datafree.releases.release import write_release
from datafree.synthesis.expansion import Expansion, expand
from datafree.synthesis.losses import alignment


@dataclass(frozen=True)
class Some:
    """Of each shuffled pass over the whole only the first `images`: a pass of as many steps as every other row's."""

    whole: StoredImages
    images: int

    @property
    def spec(self) -> InputSpec:
        return self.whole.spec

    def __len__(self) -> int:
        return self.images

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self.whole.epoch(seed, epoch, batch), self.images // min(batch, self.images))


def settings(pair: Pair, row: str) -> dict[str, Any]:
    """What decides a cell's number: a cell of other settings is run again, and is no claim."""
    found = {"teacher": pair.teacher, "training": pair.training.model_dump(), "limit": pair.limit}
    if row == "teacher":
        return found
    found |= {"student": pair.student, "learning": pair.learning.model_dump(), "epoch images": pair.epoch_images}
    if row == "kd":
        return found
    kind, count, way = split(row)
    made = None if WAYS[way] is None else {**expansion(pair, way).model_dump(), "images": pair.images}
    return {
        **found, "few": condenser(pair, kind).model_dump(), "count": count, "shown": shown(way).model_dump(),
        "made": made, "guide": None if made is None else alignment.from_name("mmd").model_dump(),
    }  # fmt: skip


def condenser(pair: Pair, kind: str) -> Any:
    """How the few images of a kind are made."""
    return methods.from_name(FEW[kind], **(pair.condensing if FEW[kind] == "dm" else {}))


def expansion(pair: Pair, way: str) -> Expansion:
    """How the images beside the few are made."""
    return Expansion(**{**(WAYS[way] or {}), **pair.expansion})


def shown(way: str) -> Augmentation:
    """How the student is shown the few."""
    return SHOWN.get(way, Augmentation())


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

    def run(self, say: Any) -> None:
        for row in self.pair.rows:
            asked = settings(self.pair, row)
            if read(self.folder, row, asked) is not None:
                continue
            if row == "teacher":  # a new one makes everything void
                for stale in self.folder.glob("*"):
                    rmtree(stale) if stale.is_dir() else stale.unlink()
            keep(self, row, asked, say)

    def row(self, name: str) -> dict[str, Any]:
        if name == "teacher":
            teacher = self.fresh(self.pair.teacher)
            train(teacher, self.train, self.pair.training, seed=self.seed)
            write_release(self.folder / "teacher", teacher)
            return asdict(evaluate(teacher, self.test))
        if name == "kd":
            return self.taught(Some(soft_labelled(self.teacher, self.train), self.pair.epoch_images))
        kind, count, way = split(name)
        few = self.few(kind, count)
        others = None if WAYS[way] is None else self.expanded(few, way)
        return self.taught(MixedImages(self.teacher, few.clamped(), others, self.pair.epoch_images, how=shown(way)))

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

    def few(self, kind: str, count: int) -> Condensed:
        folder, method = self.folder / f"{kind}-{count}", condenser(self.pair, kind)
        made = {**method.model_dump(mode="json"), "seed": self.seed, "per_class": count}
        if folder.exists() and Condensed.open(folder).about["made"] == made:
            return Condensed.open(folder)
        job = methods.Job(self.train, self.spec, count, seed=self.seed, device=self.device)
        methods.condense(method, job).save(folder)
        return Condensed.open(folder)

    def expanded(self, few: Condensed, way: str) -> Source:
        """The set beside the few; rows of the same settings share it. Plain inversion's anchor is a black image."""
        how, anchors = expansion(self.pair, way), (few.clamped(), few.labels)
        if how.start == "noise" and how.guidance == 0:
            anchors = few.clamped()[:1] * 0 + self.spec.black, few.labels[:1]
        known = [how.model_dump(mode="json"), hashlib.sha256(anchors[0].numpy().tobytes()).hexdigest()]
        name = hashlib.sha256(json.dumps(known).encode()).hexdigest()[:12]
        out = self.folder / f"set-{name}"
        return stored_images(
            expand(self.teacher, anchors, out, how, images=self.pair.images, seed=self.seed, workers=1)
        )

    def taught(self, source: Source) -> dict[str, Any]:
        student = self.fresh(self.pair.student)
        curve = distill(self.teacher, student, source, self.pair.learning, seed=self.seed)
        return {**asdict(evaluate(student, self.test, self.teacher)), "loss": curve.loss}


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """Claims from the cells that are there; a row that was not run is listed as such."""
    made, plan, notes = [], BUDGETS[budget], deviations(HERE)
    for pair in plan.pairs:
        for row in pair.rows:
            identity, found = f"{pair.id}/{row}", by_seed(work / pair.id, row, plan.seeds, settings(pair, row))
            values = {seed: own["accuracy"] for seed, own in found.items()}
            made.append(
                claim(
                    identity, "ours", "% test accuracy, last epoch", None, values,
                    **common(found, budget), deviation=notes.get(identity, ""),
                )
            )  # fmt: skip
    return made


def main() -> int:
    args = arguments(__doc__, "binici2024", BUDGETS, "mnist/lenet5").parse_args()
    work = args.work or Path("runs") / "binici2024" / args.budget
    make = partial(Chain, work=work, data_dir=args.data_dir, device=args.device)
    return run(args, BUDGETS[args.budget], make, partial(with_gpu, args.budget, work, collect))


if __name__ == "__main__":
    sys.exit(main())
