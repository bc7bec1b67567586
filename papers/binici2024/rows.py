"""What is run: the few images, what is made of them, and how much of it in each budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datafree.data.augmentation import Augmentation
from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule

__all__ = ["BUDGETS", "FEW", "SHOWN", "WAYS", "Budget", "Pair", "split"]

FEW = {"condensed": "dm", "few": "random", "kmeans": "kmeans"}
"""Kind of the few images -> how `condense` makes them."""

PLAIN = Augmentation(bend=0, exposure=0)
SHOWN = {"alone": PLAIN, "naive": PLAIN, "anchors": PLAIN, "guided": PLAIN}
"""How the student is shown the few: moved, and in the rows not named here bent and exposed as well."""

WAYS: dict[str, dict[str, Any] | None] = {
    "alone": None,
    "naive": {"start": "noise", "guidance": 0.0, "steps": 60},
    "anchors": {"guidance": 0.0},
    "guided": {},
    "augmented": None,
    "naive-augmented": {"start": "noise", "guidance": 0.0, "steps": 60},
    "guided-augmented": {},
}
"""Row -> what the images beside the few are made by, as changes to the defaults of `expand`; None: there are none."""


@dataclass(frozen=True)
class Pair:
    """One teacher and student on one data set, with the rows to run and how."""

    data: str
    name: str
    teacher: str
    student: str
    size: int | None
    rows: tuple[str, ...]
    training: Schedule
    learning: Distillation
    """Of every student, `kd` included."""
    images: int = 2560
    """Made beside the few."""
    epoch_images: int = 12_800
    """Of every student; with `learning` the number of steps, which no row changes."""
    condensing: dict[str, Any] = field(default_factory=dict)
    """Settings of distribution matching."""
    expansion: dict[str, Any] = field(default_factory=dict)
    """Settings of every expansion, plain inversion included."""
    limit: int | None = None

    @property
    def id(self) -> str:
        return f"{self.data}/{self.name}"


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


def split(row: str) -> tuple[str, int, str]:
    """`few-10/guided` as the kind of the few, how many a class, and what is made of them."""
    few, _, way = row.partition("/")
    kind, _, count = few.rpartition("-")
    return kind, int(count), way


ROWS = (
    "teacher", "kd", *(f"condensed-1/{way}" for way in WAYS),
    *(f"few-10/{way}" for way in WAYS if way != "naive-augmented"), "kmeans-1/alone", "kmeans-1/guided",
)  # fmt: skip


def _lenet(data: str, **changes: Any) -> Pair:
    training, learning = Schedule(epochs=10, batch=64), Distillation(epochs=10, batch=128)
    return Pair(data, "lenet5", "lenet5", "lenet5-half", 32, ROWS, training, learning, **changes)


def _cifar(data: str, **changes: Any) -> Pair:
    training, learning = Schedule(epochs=200, batch=128), Distillation(epochs=200, batch=256)
    sizes = {"images": 50_000, "epoch_images": 50_000, "condensing": {"width": 128, "iterations": 20_000}}
    return Pair(data, "resnet56", "resnet56", "resnet20", None, ROWS, training, learning, **sizes, **changes)


_SMOKE = Pair(
    "digits", "hinton32", "hinton32", "hinton16", None, ROWS, Schedule(epochs=6, batch=32, learning_rate=5e-3),
    Distillation(epochs=8, batch=32, learning_rate=5e-3), images=64, epoch_images=1024,
    condensing={"iterations": 3, "width": 4}, expansion={"steps": 3},
)  # fmt: skip

BUDGETS = {
    "smoke": Budget((_SMOKE,), (0,)),
    "cpu": Budget((_lenet("mnist"), _lenet("fashion-mnist")), (0, 1, 2)),
    "gpu": Budget((_cifar("cifar10"), _cifar("cifar100")), (0, 1, 2)),
}
