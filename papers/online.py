"""What the papers on online distillation share: rows that are each a replay memory or a method of the field.

A cell holds the accuracy of the saved student after the last epoch, and the accuracy per epoch of the student that learns
and of its moving average. Both are measured by an oracle that the method cannot read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from datafree._core.files import read_header
from datafree.data import load
from datafree.distillation import replay
from datafree.distillation.distill import Distillation, distill
from datafree.distillation.online.run import PRESETS, OnlineDistillation, train_online
from datafree.distillation.sources import soft_labelled
from datafree.distillation.student_init import init_student_from_teacher
from datafree.distillation.students import new_student
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.evaluation.stability import HALF, stability
from datafree.models.network import Network
from datafree.releases.load import new_model
from datafree.releases.release import write_release
from papers.cells import cell_path, cells_by_seed, current_keys, deviations, measure, provenance, read_cell
from papers.chains import PRECISION, arguments, with_gpu
from papers.chains import run as run_chains
from papers.claims import ACCURACY, experiment, metric
from papers.teachers import RESNET20, RESNET44, SIMPNET, SIMPNET600K, PublishedTeacher, spec_of, teacher_of

__all__ = ["REPLAYED", "Budget", "OnlineRow", "Pair", "cifar10", "cifar100", "lenet", "main", "resnets"]

STABILITY = {
    "mean_accuracy": ("mean", "% test accuracy"), "best_accuracy": ("best", "% test accuracy"),
    "drop_from_best": ("lost", "points"), "largest_fall": ("drawdown", "points"), "sum_of_falls": ("decreases", "points"),
    "sd_of_epochs": ("sd", "points"),
}  # fmt: skip
"""Metric -> (field of `datafree.evaluation.stability`, unit)."""
TRAINING = Schedule(epochs=10, batch=64, learning_rate=1e-3)
LEARNING = Distillation(epochs=10, batch=128)


@dataclass(frozen=True)
class OnlineRow:
    """One row: settings or a preset, and the replay memory."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    replay: Mapping[str, Any] = field(default_factory=lambda: {"replay": "none"})
    preset: str | None = None
    start: str = "teacher"
    """The student's initial weights, a value of `datafree distill --start`."""
    student: str | None = None
    """Another student than the pair's."""

    def online(self, **pair: Any) -> OnlineDistillation:
        """The row's settings override the preset's, which override the pair's. A preset gets no loss term from the pair."""
        preset = {} if self.preset is None else {"statistics": 0.0, **PRESETS[self.preset][0]}
        return OnlineDistillation(**{**pair, **preset, **self.settings})


@dataclass(frozen=True)
class Pair:
    """One teacher and student on one data set, with the rows to run."""

    data: str
    teacher: str
    student: str
    rows: Mapping[str, OnlineRow]
    online: Mapping[str, Any]
    """Default settings of every row."""
    training: Schedule = TRAINING
    learning: Distillation = LEARNING
    """Settings of the row `kd`, a student on the real data."""
    baselines: Mapping[str, str] = field(default_factory=lambda: {"kd": ""})
    """Rows with a student on the real data, and its name; empty for the pair's student."""
    size: int | None = None
    limit: int | None = None
    published: PublishedTeacher | None = None
    """The trained teacher; None: it is trained here."""

    @property
    def id(self) -> str:
        return f"{self.data}/{self.teacher}"

    def names(self) -> tuple[str, ...]:
        return ("teacher", *self.baselines, *self.rows)

    def student_of(self, row: str) -> str:
        """The row's student, without the folder of its code."""
        named = self.rows[row].student if row in self.rows else self.baselines.get(row)
        return named or self.student

    def settings(self, row: str) -> dict[str, Any]:
        """Everything that decides a cell's result. A cell with other settings is measured again."""
        shared = {
            "student": Path(self.student_of(row)).name,
            "training": self.training.model_dump(),
            "limit": self.limit,
            "size": self.size,
        }
        if row in self.rows:
            chosen = self.rows[row]
            online = {"online": chosen.online(**self.online).model_dump(), "replay": dict(chosen.replay)}
            start = "teacher's best channels" if chosen.start == "teacher" else chosen.start
            return {**shared, **online, "start": start}
        return shared if row == "teacher" else {**shared, "learning": self.learning.model_dump()}


_DARK = {"epochs": 10, "ground": "dark"}
SCENE = {"mnist": {**_DARK, "scene": "drawings"}, "fashion-mnist": {**_DARK, "scene": "things"}}
"""The synthetic scene of each data set's images."""
LONG = {"epochs": 200, "iterations": 50, "student_steps": 10, "batch": 512, "statistics": 0.01}


def lenet(data: str, rows: Mapping[str, OnlineRow]) -> Pair:
    """LeNet-5 to half a LeNet-5, with the data set's scene."""
    return Pair(data=data, teacher="lenet5", student="lenet5-half", rows=rows, online=SCENE[data], size=32)


def resnets(rows: Mapping[str, OnlineRow]) -> tuple[Pair, ...]:
    """ResNet-44 to ResNet-20, for the `gpu` budget. CIFAR-10's teacher is a published one, the others are trained here."""
    learning = Distillation(epochs=100, batch=256)
    shared = {"teacher": "resnet44", "student": "resnet20", "rows": rows, "online": LONG, "learning": learning}
    published = Pair(data="cifar10", published=RESNET44, **shared)
    training = Schedule(epochs=100, batch=128)
    return published, *(Pair(data=data, training=training, **shared) for data in ("cifar100", "svhn"))


FORGETTING: Mapping[str, Any] = {
    "epochs": 20, "iterations": 40, "student_steps": 5, "batch": 32, "statistics": 0.01, "decay": "constant",
    "warmup": 0.0, "keep": "last", "precision": PRECISION,
}  # fmt: skip
"""A regime in which a student forgets: constant rates, few images per step, no averaging. 128,000 images."""
STEADY = Distillation(
    epochs=13, batch=32, learning_rate=5e-3, optimizer="muon", decay="constant", precision=PRECISION
)  # fmt: skip
"""`kd` with the same optimizer and as many steps."""
REPLAYED = 1_883_136
"""Bytes of each memory: a bank of 613 images of CIFAR, or a VAE with a code of 100, which has 1,874,252."""


def cifar10(rows: Mapping[str, OnlineRow], baselines: Mapping[str, str]) -> Pair:
    """A published ResNet-20 to its half, from random weights, where a student forgets."""
    return Pair(
        data="cifar10", teacher="resnet20", student="half", rows=rows, online=FORGETTING, learning=STEADY,
        baselines=baselines, published=RESNET20,
    )  # fmt: skip


def cifar100(rows: Mapping[str, OnlineRow], baselines: Mapping[str, str]) -> Pair:
    """A published SimpNet to its half, likewise."""
    return Pair(
        data="cifar100", teacher="simpnet600k", student=f"{SIMPNET}:half", rows=rows, online=FORGETTING, learning=STEADY,
        baselines=baselines, published=SIMPNET600K,
    )  # fmt: skip


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


class Chain:
    """All rows of one pair and one seed."""

    def __init__(
        self, pair: Pair, seed: int, work: Path, data_dir: str | None, device: str, rows: tuple[str, ...] = ()
    ):
        self.pair, self.seed, self.device, self.data_dir, self.rows = pair, seed, device, data_dir, rows
        self.folder = work / pair.id / f"seed-{seed}"
        self.train, self.test = (
            load(pair.data, split, data_dir=data_dir).subset(pair.limit) for split in ("train", "test")
        )
        self.spec = spec_of(pair.published, self.train.shape, self.train.classes, pair.size)

    def run(self, say: Any) -> None:
        for row in self.pair.names():
            settings = self.pair.settings(row)
            if (not self.rows or row in (*self.rows, "teacher")) and read_cell(self.folder, row, settings) is None:
                measure(self, row, settings, say)

    def row(self, name: str) -> dict[str, Any]:
        if name == "teacher":
            return self.train_teacher()
        teacher = self.teacher
        student = new_student(self.pair.student_of(name), teacher, seed=self.seed)
        if name in self.pair.baselines:
            distill(teacher, student, soft_labelled(teacher, self.train), self.pair.learning, seed=self.seed)
            return asdict(evaluate(student, self.test, teacher))
        row = self.pair.rows[name]
        if row.start == "teacher":  # a student with other layers keeps its random weights
            init_student_from_teacher(student, teacher, row.online(**self.pair.online).composition(), seed=self.seed)
        return self.distill_online(name, teacher, student)

    def train_teacher(self) -> dict[str, Any]:
        if self.pair.published is not None:
            return asdict(evaluate(self.teacher, self.test))
        teacher = new_model(self.pair.teacher, self.spec, seed=self.seed)
        teacher.module.to(self.device)
        train(teacher, self.train, self.pair.training, seed=self.seed)
        write_release(self.folder / "teacher", teacher)
        return asdict(evaluate(teacher, self.test))

    @cached_property
    def teacher(self) -> Network:
        return teacher_of(self.pair.published, self.folder / "teacher", self.spec, self.data_dir, self.device)

    def distill_online(self, name: str, teacher: Network, student: Network) -> dict[str, Any]:
        row, identity = self.pair.rows[name], self.pair.settings(name)
        online = row.online(**self.pair.online)
        state = cell_path(self.folder, name).with_suffix(".state.safetensors")
        images_before = 0
        if state.exists():
            header = read_header(state, kind="online-state")[1]
            if current_keys(header.get("identity")) != identity:
                state.unlink()
            else:
                identity = header["identity"]
                images_before = header["epoch"] * online.iterations * online.student_steps * online.batch
        start, oracle_seconds = time.process_time(), 0.0

        def oracle(network: Network) -> float:
            nonlocal oracle_seconds
            oracle_start = time.process_time()
            accuracy = evaluate(network, self.test).accuracy
            oracle_seconds += time.process_time() - oracle_start
            return accuracy

        history = train_online(
            teacher, student, online, replay.from_dict(dict(row.replay)), seed=self.seed, state=state, identity=identity,
            score=oracle,
        )  # fmt: skip
        seconds = time.process_time() - start - oracle_seconds
        state.unlink(missing_ok=True)
        curves = {"learning": history.scores, "average": history.average_scores}
        return {
            **asdict(evaluate(student, self.test, teacher)), "history": asdict(history),
            "stability": {key: asdict(stability(values, HALF)) for key, values in curves.items()},
            "cpu_seconds": round(seconds, 2), "images_in_cpu_seconds": history.images - images_before,
            "memory_bytes": history.memory_bytes,
        }  # fmt: skip


def collect(paper: Path, plan: Budget, budget: str, work: Path, figures: Mapping[str, tuple[str, float]]) -> list[Any]:
    """One experiment per row from the existing cells; a row that was not run is listed as such."""
    claims, reasons = [], deviations(paper)
    for pair in plan.pairs:
        for row in pair.names():
            identity = f"{pair.id}/{row}"
            cells = cells_by_seed(work / pair.id, row, plan.seeds, pair.settings(row))
            metrics = _metrics(cells, figures.get(identity))
            claims.append(
                experiment(identity, metrics, deviation=reasons.get(identity, ""), **provenance(cells, budget))
            )
    return claims


def _metrics(cells: Mapping[int, dict[str, Any]], paper: tuple[str, float] | None) -> dict[str, dict[str, Any]]:
    """The accuracy of a row; of an online run its stability, memory and speed as well.

    The stability is that of the student that is kept, and, if that is the moving average, of the student that learns too.
    """
    metrics = {"accuracy": metric(ACCURACY, {seed: cell["accuracy"] for seed, cell in cells.items()}, paper=paper)}
    if not cells or not all("stability" in cell for cell in cells.values()):
        return metrics
    keep = next(iter(cells.values()))["settings"]["online"]["keep"]
    students = {"": "learning"} if keep == "last" else {"": "average", "unaveraged_": "learning"}
    for prefix, student in students.items():
        curves = {seed: cell["stability"][student] for seed, cell in cells.items()}
        if prefix:
            metrics[f"{prefix}accuracy"] = metric(ACCURACY, {seed: curve["last"] for seed, curve in curves.items()})
        for name, (field_name, unit) in STABILITY.items():
            values = {seed: round(curve[field_name], 3) for seed, curve in curves.items()}
            metrics[prefix + name] = metric(f"{unit}, over the second half", values)
    speeds = {seed: round(cell["images_in_cpu_seconds"] / cell["cpu_seconds"], 1) for seed, cell in cells.items()}
    metrics["images_per_cpu_second"] = metric("training images per CPU-second, one thread", speeds)
    sizes = {seed: cell["memory_bytes"] for seed, cell in cells.items()}
    metrics["replayed_bytes"] = metric("bytes replayed from", sizes)
    return metrics


def main(doc: str | None, here: Path, budgets: Mapping[str, Budget], figures: Mapping[str, tuple[str, float]]) -> int:
    """The command line of a paper's run.py."""
    args = arguments(doc, here.name, budgets, "mnist/lenet5", rows="bank").parse_args()
    work = args.work or Path("runs") / here.name / args.budget
    data_dir = args.data_dir or os.environ.get("DATAFREE_DATA")
    make = partial(Chain, work=work, data_dir=data_dir, device=args.device, rows=tuple(args.rows))
    plan = budgets[args.budget]

    def collect_budget(budget: str, cells: Path) -> list[Any]:
        return collect(here, budgets[budget], budget, cells, figures)

    return run_chains(args, plan, make, partial(with_gpu, args.budget, work, collect_budget))
