"""What is run: no replay, a memory bank, and methods of the field, in each budget."""

from __future__ import annotations

from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule
from papers.online import Budget, OnlineRow, Pair, lenet, resnets

__all__ = ["BUDGETS", "PAPER"]

# data/teacher/row -> (place, figure): none of the paper's data sets, teachers and sizes is run here
PAPER: dict[str, tuple[str, float]] = {}

ROWS = {
    "generator": OnlineRow(),
    "bank": OnlineRow(replay={"replay": "bank"}),
    "bank, any ground": OnlineRow({"ground": "any"}, {"replay": "bank"}),
    "mb-dfkd": OnlineRow(preset="mb-dfkd", replay={"replay": "bank"}),
    "bank, random start": OnlineRow(replay={"replay": "bank"}, start="random"),
    "mb-dfkd, random start": OnlineRow(preset="mb-dfkd", replay={"replay": "bank"}, start="random"),
}
"""The first two are ours, told what the images are of: drawings or things on black; `mb-dfkd` has the field's terms."""

RESNET = Pair(
    data="cifar10", teacher="resnet20", student="resnet8", rows={"bank": ROWS["bank"]},
    weights="cifar10-resnet20.safetensors",
    online={"epochs": 10, "iterations": 10, "batch": 128, "statistics": 0.01}, learning=Distillation(epochs=10, batch=128),
)  # fmt: skip
SMOKE = Pair(
    data="digits", teacher="hinton16", student="hinton8", rows=ROWS,
    online={"epochs": 4, "iterations": 5, "student_steps": 2, "batch": 64, "latent": 8},
    training=Schedule(epochs=5, batch=32, learning_rate=5e-3), learning=Distillation(epochs=2, batch=32),
)  # fmt: skip
BUDGETS = {
    "smoke": Budget((SMOKE,), (0, 1)),
    "cpu": Budget((lenet("mnist", ROWS), lenet("fashion-mnist", ROWS), RESNET), (0, 1, 2)),
    "gpu": Budget(resnets({name: ROWS[name] for name in ("generator", "bank", "mb-dfkd")}), (0, 1, 2)),
}
