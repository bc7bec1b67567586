"""Condensed data expansion by model inversion (Binici et al. 2024): a student from 1 condensed or 10 real images per class.

    python -m papers.binici2024.run --budget smoke   # seconds, on scikit-learn's digits; what the tests run
    python -m papers.binici2024.run --budget cpu     # under two hours on 2 cores; the numbers in claims.json
    python -m papers.binici2024.run --budget gpu --device cuda

Each cell (data set, row, seed) is written as soon as it is measured, so an interrupted run resumes. The seed decides the
teacher, the anchors, the synthetic images and the student. Every student takes the same number of steps. Accuracy is
measured after the last epoch on the whole test set, by an oracle that no method reads.
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

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from torch import Tensor

from datafree.data import load
from datafree.data.augmentation import Augmentation
from datafree.data.condensed import methods
from datafree.data.condensed.condensed_set import Condensed
from datafree.distillation.distill import distill
from datafree.distillation.sources import MixedImages, Source, StoredImages, soft_labelled, stored_images
from datafree.distillation.students import new_student
from datafree.distillation.train import train
from datafree.evaluation.accuracy import evaluate
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import new_model
from datafree.releases.release import write_release
from datafree.synthesis.expansion import GENERATOR_GUIDANCE, Expansion, expand
from datafree.synthesis.losses import alignment
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize
from papers.binici2024.rows import ANCHORS, AUGMENTATIONS, BUDGETS, EXPANSIONS, Pair, split
from papers.cells import cells_by_seed, deviations, measure, provenance, read_cell
from papers.chains import arguments, run, with_gpu
from papers.claims import ACCURACY, experiment, metric
from papers.teachers import spec_of, teacher_of

HERE = Path(__file__).resolve().parent
GENERATOR = "generator"
"""The row with a generator's images alone."""


@dataclass(frozen=True)
class ShortEpochs:
    """The first `images` of each shuffled pass over `whole`, so that an epoch has as many steps as in the other rows."""

    whole: StoredImages
    images: int

    @property
    def spec(self) -> InputSpec:
        return self.whole.spec

    def __len__(self) -> int:
        return self.images

    def distinct(self, epochs: int) -> int:
        """At most this number of different images."""
        return min(self.whole.distinct(epochs), epochs * self.images)

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self.whole.epoch(seed, epoch, batch), self.images // min(batch, self.images))


def settings(pair: Pair, row: str) -> dict[str, Any]:
    """Everything that decides a cell's result. A cell with other settings is measured again and is no claim."""
    teacher = {"teacher": pair.teacher, "training": pair.training.model_dump(), "limit": pair.limit}
    published = pair.published
    if published is not None:
        teacher |= {
            "training": None,
            "weights": published.weights,
            "border": list(published.constants.get("border", ())),
        }
    if row == "teacher":
        return teacher
    learning = {
        "student": Path(pair.student).name,
        "learning": pair.learning.model_dump(),
        "epoch_images": pair.epoch_images,
    }
    if row == "kd":
        return teacher | learning
    if row == GENERATOR:
        return {**teacher, **learning, "made": generated(pair, "naive")}
    kind, count, way = split(row)
    added = None
    if EXPANSIONS[way] is not None:
        added = generated(pair, way) or {**expansion(pair, way).model_dump(), "images": pair.images}
    return {
        **teacher, **learning, "few": condenser(pair, kind).model_dump(), "count": count,
        "shown": augmentation(way).model_dump(), "made": added,
        "guide": None if added is None else alignment.from_name("mmd").model_dump(),
    }  # fmt: skip


def generated(pair: Pair, way: str) -> dict[str, Any] | None:
    """The settings of a generator's images, if one makes them; None for inverted ones."""
    if pair.generator is None:
        return None
    guidance = 0.0 if way.startswith("naive") else GENERATOR_GUIDANCE
    return {**pair.generator.model_dump(mode="json"), "images": pair.images, "guidance": guidance}


def condenser(pair: Pair, kind: str) -> Any:
    """The method that makes the anchors of a kind."""
    return methods.from_name(ANCHORS[kind], **(pair.condensing if ANCHORS[kind] == "dm" else {}))


def expansion(pair: Pair, way: str) -> Expansion:
    """The settings of the synthetic images beside the anchors."""
    return Expansion(**{**(EXPANSIONS[way] or {}), **pair.expansion})


def augmentation(way: str) -> Augmentation:
    """The augmentation of the anchors in the student's training."""
    return AUGMENTATIONS.get(way, Augmentation())


class Chain:
    """All rows of one pair and one seed, with their teacher and anchors."""

    def __init__(self, pair: Pair, seed: int, work: Path, data_dir: str | None, device: str):
        self.pair, self.seed, self.device, self.data_dir = pair, seed, device, data_dir
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (
            load(pair.data, part, data_dir=data_dir).subset(pair.limit) for part in ("train", "test")
        )
        self.spec = spec_of(pair.published, self.train.shape, self.train.classes, pair.size)

    def run(self, say: Any) -> None:
        for row in self.pair.rows:
            row_settings = settings(self.pair, row)
            if read_cell(self.folder, row, row_settings) is not None:
                continue
            if row == "teacher":  # everything else in the folder depends on it
                for stale in self.folder.glob("*"):
                    rmtree(stale) if stale.is_dir() else stale.unlink()
            measure(self, row, row_settings, say)

    def row(self, name: str) -> dict[str, Any]:
        if name == "teacher" and self.pair.published is not None:
            return asdict(evaluate(self.teacher, self.test))
        if name == "teacher":
            teacher = self.new_network(self.pair.teacher)
            train(teacher, self.train, self.pair.training, seed=self.seed)
            write_release(self.folder / "teacher", teacher)
            return asdict(evaluate(teacher, self.test))
        if name == "kd":
            return self.distill(ShortEpochs(soft_labelled(self.teacher, self.train), self.pair.epoch_images))
        if name == GENERATOR:
            return self.distill(ShortEpochs(stored_images(self.plain()), self.pair.epoch_images))
        kind, count, way = split(name)
        anchors = self.anchors(kind, count)
        added = None if EXPANSIONS[way] is None else self.expanded(anchors, way)
        pixels, augment = anchors.clamped(), augmentation(way)
        return self.distill(MixedImages(self.teacher, pixels, added, self.pair.epoch_images, augmentation=augment))

    # -- parts ----------------------------------------------------------------------------------------------------

    @cached_property
    def teacher(self) -> Network:
        return teacher_of(self.pair.published, self.folder / "teacher", self.spec, self.data_dir, self.device)

    def new_network(self, name: str) -> Network:
        network = new_model(name, self.spec, seed=self.seed)
        network.module.to(self.device)
        return network

    def anchors(self, kind: str, count: int) -> Condensed:
        folder, method = self.folder / f"{kind}-{count}", condenser(self.pair, kind)
        identity = {**method.model_dump(mode="json"), "seed": self.seed, "per_class": count}
        if folder.exists() and Condensed.open(folder).about["made"] == identity:
            return Condensed.open(folder)
        job = methods.Job(self.train, self.spec, count, seed=self.seed, device=self.device)
        methods.condense(method, job).save(folder)
        return Condensed.open(folder)

    def expanded(self, condensed: Condensed, way: str) -> Source:
        """The synthetic set beside the anchors. Rows with equal settings share it, so all of plain inversion's have
        one anchor.
        """
        if self.pair.generator is not None:
            return stored_images(self.plain() if way.startswith("naive") else self.guided(condensed))
        chosen, anchors = expansion(self.pair, way), (condensed.clamped(), condensed.labels)
        if chosen.start == "noise" and chosen.guidance == 0:
            placeholder = condensed.clamped()[:1] * 0 + self.spec.black
            placeholder[..., 0, 0] = (
                self.spec.high
            )  # no image may be of one colour; the pixels have no effect on the set
            anchors = placeholder, condensed.labels[:1]
        identity = [chosen.model_dump(mode="json"), hashlib.sha256(anchors[0].numpy().tobytes()).hexdigest()]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]
        out = self.folder / f"set-{name}"
        return stored_images(
            expand(self.teacher, anchors, out, chosen, images=self.pair.images, seed=self.seed, workers=1)
        )

    def plain(self) -> SyntheticSet:
        """The generator's images without anchors."""
        out, images = self.folder / "set-plain", self.pair.images
        return synthesize(self.teacher, None, self.pair.generator, out, images=images, seed=self.seed, workers=1)

    def guided(self, condensed: Condensed) -> SyntheticSet:
        """Those that are pulled to the anchors."""
        anchors = (condensed.clamped(), condensed.labels)
        out = self.folder / f"set-guided-{hashlib.sha256(anchors[0].numpy().tobytes()).hexdigest()[:12]}"
        images = self.pair.images
        return expand(self.teacher, anchors, out, self.pair.generator, images=images, seed=self.seed, workers=1)

    def distill(self, source: Source) -> dict[str, Any]:
        student = new_student(self.pair.student, self.teacher, seed=self.seed)
        curve = distill(self.teacher, student, source, self.pair.learning, seed=self.seed)
        return {**asdict(evaluate(student, self.test, self.teacher)), "loss": curve.loss}


def collect(budget: str, work: Path) -> list[dict[str, Any]]:
    """One experiment per row from the existing cells; a row that was not run is listed as such."""
    claims, plan, reasons = [], BUDGETS[budget], deviations(HERE)
    for pair in plan.pairs:
        for row in pair.rows:
            identity = f"{pair.id}/{row}"
            cells = cells_by_seed(work / pair.id, row, plan.seeds, settings(pair, row))
            accuracy = metric(ACCURACY, {seed: cell["accuracy"] for seed, cell in cells.items()})
            claims.append(
                experiment(
                    identity, {"accuracy": accuracy}, deviation=reasons.get(identity, ""), **provenance(cells, budget)
                )
            )
    return claims


def main() -> int:
    args = arguments(__doc__, "binici2024", BUDGETS, "mnist/lenet5").parse_args()
    work = args.work or Path("runs") / "binici2024" / args.budget
    make = partial(Chain, work=work, data_dir=args.data_dir, device=args.device)
    return run(args, BUDGETS[args.budget], make, partial(with_gpu, args.budget, work, collect))


if __name__ == "__main__":
    sys.exit(main())
