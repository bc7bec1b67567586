"""What the papers of generator against student share: chains of rows, each a way of replay or a method of the field.

A cell is one row of one pair and seed: the accuracy of the student that is kept at the last epoch, and the curves of the
student that learns and of its moving average, measured by an oracle that the method cannot read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from cells import by_seed, common, deviations, file_of, keep, read
from chains import arguments, with_gpu
from chains import run as run_chains
from claims import claim

from datafree._core.files import read_header
from datafree.data import load
from datafree.distillation import replay
from datafree.distillation.distill import Distillation, distill
from datafree.distillation.online.run import PRESETS, OnlineDistillation, train_online
from datafree.distillation.sources import soft_labelled
from datafree.distillation.student_init import init_student_from_teacher
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.stability import HALF, robustness
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.load import load_model, new_model
from datafree.releases.release import write_release

__all__ = ["Budget", "Game", "Pair", "lenet", "main", "resnets"]

IMAGENET: Mapping[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
FIGURES = {
    "mean": "% test accuracy", "best": "% test accuracy",
    "lost": "points", "drawdown": "points", "decreases": "points", "sd": "points",
}  # fmt: skip
TRAINING = Schedule(epochs=10, batch=64, learning_rate=1e-3)
LEARNING = Distillation(epochs=10, batch=128)


@dataclass(frozen=True)
class Game:
    """A row: settings, or those of a preset, and what is replayed."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    replay: Mapping[str, Any] = field(default_factory=lambda: {"replay": "none"})
    preset: str | None = None
    start: str = "teacher"
    """What the student begins with, as `datafree distill --start` names it."""

    def online(self, **pair: Any) -> OnlineDistillation:
        """Its own settings go before the preset's, and those before the pair's, which add no term to a preset's."""
        named = {} if self.preset is None else {"statistics": 0.0, **PRESETS[self.preset][0]}
        return OnlineDistillation(**{**pair, **named, **self.settings})


@dataclass(frozen=True)
class Pair:
    """One teacher and student on one data set, with the rows to run."""

    data: str
    teacher: str
    student: str
    rows: Mapping[str, Game]
    online: Mapping[str, Any]
    """Settings of every row that it does not have of its own."""
    training: Schedule = TRAINING
    learning: Distillation = LEARNING
    """Of the student on the real data, the row `kd`."""
    size: int | None = None
    limit: int | None = None
    weights: str | None = None
    """File of a trained teacher under the data folder; None: it is trained here."""

    @property
    def id(self) -> str:
        return f"{self.data}/{self.teacher}"

    def names(self) -> tuple[str, ...]:
        return ("teacher", "kd", *self.rows)

    def settings(self, row: str) -> dict[str, Any]:
        """What decides a cell's number: a cell of other settings is run again."""
        known = {
            "student": self.student,
            "training": self.training.model_dump(),
            "limit": self.limit,
            "size": self.size,
        }
        if row in self.rows:
            own = self.rows[row]
            played = {"online": own.online(**self.online).model_dump(), "replay": dict(own.replay)}
            return {**known, **played, "start": "teacher's best channels" if own.start == "teacher" else own.start}
        return known if row == "teacher" else {**known, "learning": self.learning.model_dump()}


_DARK = {"epochs": 10, "ground": "dark"}
SCENE = {"mnist": {**_DARK, "scene": "drawings"}, "fashion-mnist": {**_DARK, "scene": "things"}}
"""What the images of each data set are of."""
LONG = {"epochs": 200, "iterations": 50, "student_steps": 10, "batch": 512, "statistics": 0.01}


def lenet(data: str, rows: Mapping[str, Game]) -> Pair:
    """LeNet-5 to its half, told what the images are of."""
    return Pair(data=data, teacher="lenet5", student="lenet5-half", rows=rows, online=SCENE[data], size=32)


def resnets(rows: Mapping[str, Game]) -> tuple[Pair, ...]:
    """ResNet-44 to ResNet-20, for the `gpu` budget. CIFAR-10's teacher is a published one, the others are trained here."""
    learning = Distillation(epochs=100, batch=256)
    shared = {"teacher": "resnet44", "student": "resnet20", "rows": rows, "online": LONG, "learning": learning}
    published = Pair(data="cifar10", weights="cifar10-resnet44.safetensors", **shared)
    training = Schedule(epochs=100, batch=128)
    return published, *(Pair(data=data, training=training, **shared) for data in ("cifar100", "svhn"))


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


class Chain:
    """Everything of one pair and one seed."""

    def __init__(self, pair: Pair, seed: int, work: Path, data_dir: str | None, device: str):
        self.pair, self.seed, self.device, self.data_dir = pair, seed, device, data_dir
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (
            load(pair.data, split, data_dir=data_dir).subset(pair.limit) for split in ("train", "test")
        )
        shape = self.train.shape if pair.size is None else (self.train.shape[0], pair.size, pair.size)
        constants = IMAGENET if pair.weights is not None else {}
        self.spec = InputSpec(shape=shape, classes=self.train.classes, **constants)

    def run(self, say: Any) -> None:
        for row in self.pair.names():
            settings = self.pair.settings(row)
            if read(self.folder, row, settings) is None:
                keep(self, row, settings, say)

    def row(self, name: str) -> dict[str, Any]:
        if name == "teacher":
            return self.taught_by_data()
        teacher, student = (
            load_model(str(self.folder / "teacher")),
            new_model(self.pair.student, self.spec, seed=self.seed),
        )
        for network in (teacher, student):
            network.module.to(self.device)
        if name == "kd":
            distill(teacher, student, soft_labelled(teacher, self.train), self.pair.learning, seed=self.seed)
            return asdict(evaluate(student, self.test, teacher))
        own = self.pair.rows[name]
        if own.start == "teacher":  # where the layers are others, it begins at random
            init_student_from_teacher(student, teacher, own.online(**self.pair.online).composition(), seed=self.seed)
        return self.played(name, teacher, student)

    def taught_by_data(self) -> dict[str, Any]:
        if self.pair.weights is not None:
            path = Path(self.data_dir or ".") / "weights" / self.pair.weights
            teacher = load_model(self.pair.teacher, weights=path, spec=self.spec)
        else:
            teacher = new_model(self.pair.teacher, self.spec, seed=self.seed)
            teacher.module.to(self.device)
            train(teacher, self.train, self.pair.training, seed=self.seed)
        write_release(self.folder / "teacher", teacher)
        return asdict(evaluate(teacher, self.test))

    def played(self, name: str, teacher: Network, student: Network) -> dict[str, Any]:
        own, settings = self.pair.rows[name], self.pair.settings(name)
        state = file_of(self.folder, name).with_suffix(".state.safetensors")
        before = 0
        if state.exists():
            header = read_header(state, kind="online-state")[1]
            if header.get("identity") != settings:
                state.unlink()
            else:
                played = own.online(**self.pair.online)
                before = header["epoch"] * played.iterations * played.student_steps * played.batch
        began = time.process_time()
        spent = [0.0]

        def oracle(network: Network) -> float:
            here = time.process_time()
            found = evaluate(network, self.test).accuracy
            spent[0] += time.process_time() - here
            return found

        history = train_online(
            teacher, student, own.online(**self.pair.online), replay.from_dict(dict(own.replay)), seed=self.seed, state=state,
            identity=settings, score=oracle,
        )  # fmt: skip
        seconds = time.process_time() - began - spent[0]
        state.unlink(missing_ok=True)
        curves = {"learning": history.scores, "average": history.average_scores}
        return {
            **asdict(evaluate(student, self.test, teacher)), "history": asdict(history),
            "robustness": {key: asdict(robustness(values, HALF)) for key, values in curves.items()},
            "CPU seconds": round(seconds, 2), "images in them": history.images - before,
            "memory_bytes": history.memory_bytes,
        }  # fmt: skip


def collect(paper: Path, plan: Budget, budget: str, work: Path, figures: Mapping[str, tuple[str, float]]) -> list[Any]:
    """Claims from the cells that are there; a row that was not run is listed as such."""
    made, notes = [], deviations(paper)
    for pair in plan.pairs:
        for row in pair.names():
            found = by_seed(work / pair.id, row, plan.seeds, pair.settings(row))
            known = common(found, budget)
            for name, unit, values in _values(row, found):
                identity = f"{pair.id}/{name}"
                place, published = figures.get(identity, ("ours", None))
                made.append(claim(identity, place, unit, published, values, deviation=notes.get(identity, ""), **known))
    return made


def _values(row: str, found: dict[int, dict[str, Any]]) -> list[tuple[str, str, dict[int, float]]]:
    """(claim's row, unit, value by seed): accuracy, and of a game its robustness, its memory and its speed."""
    made = [(row, "% test accuracy, last epoch", {seed: own["accuracy"] for seed, own in found.items()})]
    if not all("robustness" in own for own in found.values()) or not found:
        return made
    for key in ("average", "learning"):
        what = "" if key == "average" else ", the student that learns"
        if what:
            last = {seed: own["robustness"][key]["last"] for seed, own in found.items()}
            made.append((f"{row}{what}", "% test accuracy, last epoch", last))
        for name, unit in FIGURES.items():
            values = {seed: round(own["robustness"][key][name], 3) for seed, own in found.items()}
            made.append((f"{row}/{name}{what}", f"{unit}, over the second half", values))
    speed = {seed: round(own["images in them"] / own["CPU seconds"], 1) for seed, own in found.items()}
    made.append((f"{row}/speed", "images learnt from by CPU-second, one thread", speed))
    made.append((f"{row}/bytes", "bytes replayed from", {seed: own["memory_bytes"] for seed, own in found.items()}))
    return made


def main(doc: str | None, here: Path, budgets: Mapping[str, Budget], figures: Mapping[str, tuple[str, float]]) -> int:
    """The command line of a paper's run.py."""
    args = arguments(doc, here.name, budgets, "mnist/lenet5").parse_args()
    work = args.work or Path("runs") / here.name / args.budget
    data_dir = args.data_dir or os.environ.get("DATAFREE_DATA")
    make = partial(Chain, work=work, data_dir=data_dir, device=args.device)
    plan = budgets[args.budget]

    def found(budget: str, cells: Path) -> list[Any]:
        return collect(here, budgets[budget], budget, cells, figures)

    return run_chains(args, plan, make, partial(with_gpu, args.budget, work, found))
