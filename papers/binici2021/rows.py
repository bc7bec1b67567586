"""What is run: no replay, a memory bank, and methods of the field, in each budget."""

from __future__ import annotations

from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule
from papers.online import REPLAYED, Budget, OnlineRow, Pair, cifar10, cifar100, lenet, resnets

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

EQUAL = {"replay": "bank", "replay_bytes": REPLAYED}
EARLIER = {
    "epochs": 10, "iterations": 10, "student_steps": 10, "batch": 128, "decay": "cosine", "warmup": 0.1,
    "keep": "average", "precision": "float32",
}  # fmt: skip
"""The CIFAR-10 run of the first version: another student, falling rates, and the moving average is kept."""
FORGETTING = {
    "generator": OnlineRow(start="random"),
    "bank": OnlineRow(replay=EQUAL, start="random"),
}
CIFAR = (
    cifar10(
        {
            **FORGETTING,
            "mb-dfkd": OnlineRow(preset="mb-dfkd", replay=EQUAL, start="random"),
            "bank, ResNet-8 student": OnlineRow(EARLIER, {"replay": "bank"}, start="random", student="resnet8"),
        },
        {"kd": "", "kd, ResNet-8 student": "resnet8"},
    ),
    cifar100(FORGETTING, {"kd": ""}),
)
SMOKE = Pair(
    data="digits", teacher="hinton16", student="hinton8", rows=ROWS,
    online={"epochs": 4, "iterations": 5, "student_steps": 2, "batch": 64, "latent": 8},
    training=Schedule(epochs=5, batch=32, learning_rate=5e-3), learning=Distillation(epochs=2, batch=32),
)  # fmt: skip
BUDGETS = {
    "smoke": Budget((SMOKE,), (0, 1)),
    "cpu": Budget((lenet("mnist", ROWS), lenet("fashion-mnist", ROWS), *CIFAR), (0, 1, 2)),
    "gpu": Budget(resnets({name: ROWS[name] for name in ("generator", "bank", "mb-dfkd")}), (0, 1, 2)),
}
