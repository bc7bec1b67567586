"""The rows of the paper's tables, and the size of each budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule

__all__ = ["BUDGETS", "PAPER", "Budget", "Pair"]

# data/teacher/row -> (place, accuracy in %)
PAPER: dict[str, tuple[str, float]] = {
    "mnist/hinton/teacher": ("Table 1, row 1", 96.95),
    "mnist/hinton/student": ("Table 1, row 2", 95.70),
    "mnist/hinton/kd": ("Table 1, row 3", 95.74),
    "mnist/hinton/top": ("Table 1, row 4", 68.75),
    "mnist/hinton/all": ("Table 1, row 5", 76.38),
    "mnist/hinton/all-dropout": ("Table 1, row 6", 76.23),
    "mnist/hinton/spectral-all": ("Table 1, row 7", 89.41),
    "mnist/hinton/spectral-pairs": ("Table 1, row 8", 91.24),
    "mnist/lenet5/teacher": ("Table 3, row 1", 98.91),
    "mnist/lenet5/student": ("Table 3, row 2", 98.65),
    "mnist/lenet5/kd": ("Table 3, row 3", 98.91),
    "mnist/lenet5/top": ("Table 3, row 4", 77.30),
    "mnist/lenet5/all": ("Table 3, row 5", 85.61),
    "mnist/lenet5/spectral-all": ("Table 3, row 6", 90.28),
    "mnist/lenet5/spectral-pairs": ("Table 3, row 7", 92.47),
    "celeba/alexnet/teacher": ("Table 5, row 1", 80.82),
    "celeba/alexnet/student": ("Table 5, row 2", 81.59),
    "celeba/alexnet/kd": ("Table 5, row 3", 69.53),
    "celeba/alexnet/top": ("Table 5, row 4", 54.12),
    "celeba/alexnet/spectral-all": ("Table 5, row 5", 77.56),
    "celeba/alexnet/spectral-pairs": ("Table 5, row 6", 76.94),
}

ROWS = ("teacher", "student", "kd", "top", "all", "all-dropout", "spectral-all", "spectral-pairs", "safe", "best")


@dataclass(frozen=True)
class Pair:
    """One teacher and student on one data set, with the rows to run and their settings."""

    data: str
    name: str
    teacher: str
    student: str
    shape: tuple[int, int, int]
    """Channels, height and width of the networks' input; images of another size are resized."""
    rows: tuple[str, ...]
    training: Schedule
    learning: Distillation
    """Settings of the rows `best` and `safe` (unlimited images) and `kd` (real images), with the same number of steps."""
    faithful: Distillation
    """Settings of a student on a reconstructed set: 30 epochs at T = 8, as in the paper."""
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of the reconstruction methods."""
    images: int = 20_480
    """Reconstructed images of each of the paper's objectives that is not in `images_of`."""
    images_of: dict[str, int] = field(default_factory=dict)
    epoch_images: int = 60_000
    limit: int | None = None
    spectral_limit: int | None = None
    """Number of training images for the spectral records; None: all."""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def id(self) -> str:
        return f"{self.data}/{self.name}"


@dataclass(frozen=True)
class Budget:
    pairs: tuple[Pair, ...]
    seeds: tuple[int, ...]


def _hinton(data: str, rows: tuple[str, ...], **changes: Any) -> Pair:
    methods = {row: {"steps": 40, "learning_rate": 0.03, "precision": "bfloat16"} for row in ROWS[3:8]}
    return Pair(
        **{
            "data": data, "name": "hinton", "teacher": "hinton1200", "student": "hinton800", "shape": (1, 28, 28),
            "rows": rows,
            "training": Schedule(epochs=12, batch=128, learning_rate=1e-3, precision="bfloat16"),
            "learning": Distillation(epochs=8, batch=256, learning_rate=2e-3, temperature=4, precision="bfloat16"),
            "faithful": Distillation(epochs=30, batch=64, learning_rate=1e-3, temperature=8, precision="bfloat16"),
            "methods": methods, **changes,
        }
    )  # fmt: skip


def _lenet(data: str, rows: tuple[str, ...], **changes: Any) -> Pair:
    methods = {row: {"steps": 40, "learning_rate": 0.03, "precision": "bfloat16"} for row in ROWS[3:8]}
    return Pair(
        **{
            "data": data, "name": "lenet5", "teacher": "lenet5", "student": "lenet5-half", "shape": (1, 32, 32),
            "rows": rows,
            "training": Schedule(epochs=10, batch=64, learning_rate=1e-3),
            "learning": Distillation(epochs=12, batch=128, learning_rate=3e-3, temperature=4),
            "faithful": Distillation(epochs=30, batch=64, learning_rate=1e-3, temperature=8),
            "methods": {**methods, "top": {**methods["top"], "steps": 12}}, "spectral_limit": 12_000,
            "images_of": {"top": 61_440}, **changes,
        }
    )  # fmt: skip


def _celeba(teacher: str, size: int, **changes: Any) -> Pair:
    methods = {row: {"steps": 40, "learning_rate": 0.03, "precision": "bfloat16"} for row in ROWS[3:8]}
    half = {"alexnet": "alexnet-half", "alexnet/4": "alexnet/8"}[teacher]
    return Pair(
        **{
            "data": "celeba", "name": "alexnet", "teacher": teacher, "student": half, "shape": (3, size, size),
            "rows": ("teacher", "student", "kd", "top", "spectral-all", "spectral-pairs", "safe", "best"),
            "training": Schedule(epochs=12, batch=64, learning_rate=5e-4),
            "learning": Distillation(epochs=12, batch=64, learning_rate=5e-4, temperature=2),
            "faithful": Distillation(epochs=30, batch=64, learning_rate=5e-4, temperature=8),
            "methods": methods, "images": 4096, "epoch_images": 8000, "mean": (0.5,), "std": (0.25,), **changes,
        }
    )  # fmt: skip


def _paper_size(pair: Pair) -> dict[str, Any]:
    """The authors' sizes: 6,400 images per class, 1,000 steps, float32."""
    rate = {"hinton": 0.07, "lenet5": 0.09, "alexnet": 0.05}[pair.name]
    settings = {"steps": 1000, "learning_rate": rate, "precision": "float32"}
    methods = dict.fromkeys(pair.methods, settings)
    return {"methods": methods, "images": 64_000, "images_of": {}, "spectral_limit": None}


_LENET_ROWS = tuple(row for row in ROWS if row != "all-dropout")
_SMOKE = {
    "shape": (1, 8, 8), "training": Schedule(epochs=6, batch=32, learning_rate=2e-3),
    "learning": Distillation(epochs=4, batch=64, learning_rate=2e-3),
    "faithful": Distillation(epochs=2, batch=32, temperature=8), "images": 64, "epoch_images": 1024,
    "methods": {row: {"steps": 5} for row in ROWS[3:8]},
}  # fmt: skip

BUDGETS = {
    "smoke": Budget((_hinton("digits", ROWS, **_SMOKE, teacher="hinton64", student="hinton32"),), (0,)),
    "cpu": Budget(
        (
            _hinton("mnist", ROWS),
            _lenet("mnist", _LENET_ROWS),
            _celeba("alexnet/4", 64),
            _hinton("fashion-mnist", ("teacher", "kd", "safe", "best")),
            _lenet("fashion-mnist", ("teacher", "kd", "safe", "best")),
        ),
        (0, 1, 2),
    ),
    "full": Budget(
        (
            _hinton("mnist", ROWS, **_paper_size(_hinton("mnist", ROWS))),
            _lenet("mnist", _LENET_ROWS, **_paper_size(_lenet("mnist", _LENET_ROWS))),
            _celeba("alexnet", 224, **{**_paper_size(_celeba("alexnet", 224)), "images": 12_800}),
            _hinton("fashion-mnist", ("teacher", "kd", "safe", "best")),
            _lenet("fashion-mnist", ("teacher", "kd", "safe", "best")),
        ),
        (0, 1, 2),
    ),
}
