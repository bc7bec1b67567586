"""The rows: which anchors (few real or condensed images), which synthetic images beside them, and the size of each
budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datafree.data.augmentation import Augmentation
from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule
from datafree.synthesis.methods.meta_generator import MetaGenerator
from papers.ours.rows import CIFAR10, CIFAR100, LEARNING, RECIPE
from papers.ours.rows import Pair as Published
from papers.teachers import SIMPNET, PublishedTeacher

__all__ = ["ANCHORS", "AUGMENTATIONS", "BUDGETS", "EXPANSIONS", "Budget", "Pair", "split"]

ANCHORS = {"condensed": "dm", "few": "random", "kmeans": "kmeans"}
"""Kind of anchors -> the method of `condense` that makes them."""

PLAIN = Augmentation(bend=0, exposure=0)
AUGMENTATIONS = {"alone": PLAIN, "naive": PLAIN, "anchors": PLAIN, "guided": PLAIN}
"""Augmentation of the anchors: shifts only. Rows that are not listed also bend them and change their exposure."""

EXPANSIONS: dict[str, dict[str, Any] | None] = {
    "alone": None,
    "naive": {"start": "noise", "guidance": 0.0, "steps": 60},
    "anchors": {"guidance": 0.0},
    "guided": {},
    "augmented": None,
    "naive-augmented": {"start": "noise", "guidance": 0.0, "steps": 60},
    "guided-augmented": {},
}
"""Row -> settings of the synthetic images beside the anchors, as changes to the defaults of `expand`; None: no such
images.
"""


@dataclass(frozen=True)
class Pair:
    """One teacher and student on one data set, with the rows to run and their settings."""

    data: str
    name: str
    teacher: str
    student: str
    size: int | None
    rows: tuple[str, ...]
    training: Schedule
    learning: Distillation
    """Settings of every student, including `kd`."""
    images: int = 2560
    """Number of synthetic images."""
    epoch_images: int = 12_800
    """Images per epoch of every student. With `learning` it gives the number of steps, which is the same in every row."""
    condensing: dict[str, Any] = field(default_factory=dict)
    """Settings of distribution matching."""
    expansion: dict[str, Any] = field(default_factory=dict)
    """Settings of every expansion, plain inversion included."""
    generator: MetaGenerator | None = None
    """What makes the synthetic images instead of inversion."""
    limit: int | None = None
    published: PublishedTeacher | None = None
    """The trained teacher; None: it is trained here."""

    @property
    def id(self) -> str:
        return f"{self.data}/{self.name}"


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


def split(row: str) -> tuple[str, int, str]:
    """`few-10/guided` as the kind of anchors, their number per class, and the expansion."""
    anchors, _, way = row.partition("/")
    kind, _, count = anchors.rpartition("-")
    return kind, int(count), way


ROWS = (
    "teacher", "kd", *(f"condensed-1/{way}" for way in EXPANSIONS),
    *(f"few-10/{way}" for way in EXPANSIONS if way != "naive-augmented"), "kmeans-1/alone", "kmeans-1/guided",
)  # fmt: skip


def _lenet(data: str, **changes: Any) -> Pair:
    training, learning = Schedule(epochs=10, batch=64), Distillation(epochs=10, batch=128)
    return Pair(data, "lenet5", "lenet5", "lenet5-half", 32, ROWS, training, learning, **changes)


WAYS = ("alone", "augmented", "naive-augmented", "guided-augmented")


def _published(pair: Published, student: str, anchors: tuple[str, ...], steps: int) -> Pair:
    """A published CIFAR network to its half from random weights. All images of all rows are shifted and mirrored."""
    learning = LEARNING.model_copy(update={"epochs": steps // 100})
    rows = ("teacher", "kd", "generator", *(f"{kind}/{way}" for kind in anchors for way in WAYS))
    return Pair(
        pair.data, pair.teacher, pair.teacher, student, None, rows, Schedule(), learning, images=10_240,
        generator=RECIPE, published=pair.published,
    )  # fmt: skip


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
    "cpu": Budget(
        (
            _lenet("mnist"),
            _lenet("fashion-mnist"),
            _published(CIFAR10, "half", ("condensed-1", "condensed-10"), 2000),
            _published(CIFAR100, f"{SIMPNET}:half", ("condensed-1",), 2000),
        ),
        (0, 1, 2),
    ),
    "gpu": Budget((_cifar("cifar10"), _cifar("cifar100")), (0, 1, 2)),
}
