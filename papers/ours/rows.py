"""What is run: students of CIFAR networks, without data and, as `kd`, on the real images with the same schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datafree.distillation.distill import Distillation
from datafree.distillation.online.settings import OnlineDistillation
from datafree.distillation.students import Start
from datafree.distillation.training_loop import Schedule
from datafree.models.input_spec import InputSpec
from datafree.synthesis.methods.meta_generator import MetaGenerator
from papers.chains import PRECISION
from papers.teachers import RESNET20, SIMPNET, SIMPNET600K, PublishedTeacher, spec_of

__all__ = ["BUDGETS", "Budget", "OnlineRow", "Pair", "Row"]

BATCH = 128
TRAINING = Schedule(epochs=10, batch=64, learning_rate=0.005)
"""How a teacher is trained here."""
RECIPE = MetaGenerator(precision=PRECISION, flip=True)
"""The synthesis method, with settings that were chosen without the test set; see the README."""
LEARNING = Distillation(
    batch=BATCH, learning_rate=0.02, optimizer="muon", warmup=0.1, temperature=4.0, shift=4, flip=True,
    precision=PRECISION,
)  # fmt: skip
"""How a student of random weights is trained, `kd` included; `epochs` follows from images and steps."""
GENTLE = LEARNING.model_copy(update={"learning_rate": 0.002})
"""For a student that starts near its teacher: higher rates destroy what it starts with."""


@dataclass(frozen=True)
class Row:
    """One student: what it learns from, and for how long."""

    student: str
    """Name of the zoo, `half`, `shallow`, or `file.py:function`."""
    steps: int
    images: int | None = None
    """Number of synthetic images; None: the real training images (`kd`)."""
    start: Start = "random"
    method: MetaGenerator = RECIPE
    learning: Distillation = LEARNING
    keep: float | None = None
    """Share of the weights of a pruned teacher; None: the student is not one."""

    def schedule(self, images: int) -> Distillation:
        """The settings with the fewest epochs that have `steps` steps: `kd` gets a few more rather than less."""
        batch = min(self.learning.batch, images)
        return self.learning.model_copy(update={"epochs": -(-self.steps // (images // batch)), "batch": batch})


@dataclass(frozen=True)
class OnlineRow:
    """One student that learns from a generator's images while the generator learns."""

    student: str
    online: OnlineDistillation
    start: Start = "teacher"


@dataclass(frozen=True)
class Pair:
    """One teacher, with its rows."""

    data: str
    teacher: str
    rows: Mapping[str, Row]
    published: PublishedTeacher | None = None
    """The trained teacher; None: it is trained here."""
    training: Schedule = TRAINING
    limit: int | None = None
    size: int | None = None
    """Height and width that the networks take, if it is not the images'."""
    online: Mapping[str, OnlineRow] = field(default_factory=dict)
    """Further rows."""

    @property
    def id(self) -> str:
        return f"{self.data}/{self.teacher}"

    def names(self) -> tuple[str, ...]:
        return ("teacher", *self.rows, *self.online)

    def spec(self, shape: tuple[int, int, int], classes: tuple[str, ...]) -> InputSpec:
        return spec_of(self.published, shape, classes, self.size)

    def settings(self, name: str) -> dict[str, Any]:
        """Everything that decides a cell's result. A cell with other settings is measured again."""
        published = self.published
        teacher = self.training.model_dump(mode="json") if published is None else published.weights
        shared = {"teacher": teacher, "limit": self.limit}
        if published is not None and "border" in published.constants:
            shared["border"] = list(published.constants["border"])
        if self.size is not None:
            shared["size"] = self.size
        if name == "teacher":
            return shared
        if name in self.online:
            game = self.online[name]
            return {
                **shared,
                "student": game.student,
                "start": game.start,
                "online": game.online.model_dump(mode="json"),
            }
        row = self.rows[name]
        learning = row.learning.model_dump(mode="json", exclude={"epochs"})
        method = None if row.images is None else row.method.model_dump(mode="json")
        return {
            **shared, "student": Path(row.student).name, "start": row.start, "steps": row.steps, "images": row.images,
            "method": method, "learning": learning, **({} if row.keep is None else {"keep": row.keep}),
        }  # fmt: skip


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


SHORT: Mapping[str, Any] = {"images": 20_480, "steps": 4_000}
LONG: Mapping[str, Any] = {"images": 40_960, "steps": 8_000}
QUARTER: Mapping[str, Any] = {"images": 5_120, "steps": 1_000}
"""For comparisons of ingredients, which 20,480 images each would make take days."""


def _student(student: str, budget: Mapping[str, Any] = SHORT, **options: Any) -> dict[str, Row]:
    return {"data-free": Row(student, **budget, **options), "kd": Row(student, budget["steps"], **options)}


def _without(method: Mapping[str, Any] | None = None, learning: Mapping[str, Any] | None = None) -> Row:
    """The row `half, quarter budget/data-free` with some settings of the images or the student's training changed."""
    return Row(
        "half",
        **QUARTER,
        method=RECIPE.model_copy(update=method or {}),
        learning=LEARNING.model_copy(update=learning or {}),
    )


BASE = "half, quarter budget"
ABLATIONS = {
    f"{BASE}/data-free, batches of 128": _without({"batch": 128, "discard": 20, "momentum": 0.9}),
    f"{BASE}/data-free, l2 divergence": _without({"form": "l2"}),
    f"{BASE}/data-free, no meta-learning": _without({"meta_rate": 0.0}),
    f"{BASE}/data-free, rate 0.01": _without(learning={"learning_rate": 0.01}),
    f"{BASE}/data-free, no augmentation": _without(learning={"shift": 0, "flip": False}),
}
"""What each ingredient of `half, quarter budget/data-free` is worth."""


def _named(prefix: str, rows: Mapping[str, Row]) -> dict[str, Row]:
    return {f"{prefix}/{name}": row for name, row in rows.items()}


CIFAR10 = Pair(
    data="cifar10", teacher="resnet20", published=RESNET20,
    rows={
        **_named("half", _student("half")),
        **_named("half, long", _student("half", LONG)),
        **_named("resnet14", _student("shallow", start="teacher", learning=GENTLE)),
        **_named(BASE, _student("half", QUARTER)),
        **_named(f"{BASE}, teacher start", _student("half", QUARTER, start="teacher")),
        "pruned, quarter budget/data-free": Row("pruned", **QUARTER, start="teacher", keep=0.25),
        **ABLATIONS,
    },
)  # fmt: skip
_ON_A_GPU: Mapping[str, Any] = {
    "method": RECIPE.model_copy(update={"precision": "bfloat16"}),
    "learning": LEARNING.model_copy(update={"precision": "bfloat16"}),
}
GPU = Pair(
    data="cifar10", teacher="resnet20", published=RESNET20,
    rows={
        "half/data-free-gpu": Row("half", 20_000, 40_960, **_ON_A_GPU),
        "half/kd-gpu": Row("half", 20_000, **_ON_A_GPU),
    },
)  # fmt: skip
"""What benchmarks/gpu.py runs."""
TINY = LEARNING.model_copy(update={"shift": 1, "flip": False, "batch": 64, "precision": "float32"})
SMALL = MetaGenerator(steps=3, batch=64, discard=1, width=16, flip=False)
SMOKE = Pair(
    data="digits", teacher="resnet8",
    rows={
        "half/data-free": Row("half", 30, 256, method=SMALL, learning=TINY),
        "half/kd": Row("half", 30, learning=TINY),
    },
)  # fmt: skip

CIFAR100 = Pair(
    data="cifar100", teacher="simpnet600k", published=SIMPNET600K,
    rows=_named("half", _student(f"{SIMPNET}:half")),
)  # fmt: skip


def _lenet(data: str, online: Mapping[str, OnlineRow]) -> Pair:
    """LeNet-5, trained here, to a LeNet-5 of half its width."""
    return Pair(
        data=data, teacher="lenet5", size=32, training=Schedule(epochs=10, batch=64, learning_rate=1e-3),
        rows={"kd": Row(HALF, 4_680, learning=Distillation(batch=128))}, online=online,
    )  # fmt: skip


HALF = "lenet5-half"
MNIST = _lenet("mnist", {"fast": OnlineRow(HALF, OnlineDistillation(epochs=6, scene="drawings", ground="dark"))})
THINGS = OnlineDistillation(epochs=20, scene="things", ground="dark", shift=2, flip=True, hints=10.0, centre=10.0)
FASHION = _lenet(
    "fashion-mnist",
    {"generator": OnlineRow(HALF, THINGS), "generator, random start": OnlineRow(HALF, THINGS, "random")},
)
BUDGETS = {
    "smoke": Budget((SMOKE,), (0, 1)),
    "cpu": Budget((CIFAR10, CIFAR100, MNIST, FASHION), (0, 1, 2)),
    "gpu": Budget((GPU,), (0,)),
}
