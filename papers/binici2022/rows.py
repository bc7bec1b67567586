"""What is run: memories at equal bytes (a bank of images, a VAE, the generator's moving average), and PRE-DFKD."""

from __future__ import annotations

from games import Budget, Game, Pair, lenet, resnets

from datafree.distillation import Distillation
from datafree.fit import Schedule

__all__ = ["BUDGETS", "PAPER"]

# data/teacher/row -> (place, figure): none of the paper's data sets, teachers and sizes is run here
PAPER: dict[str, tuple[str, float]] = {}

EQUAL = 1_048_576
"""Bytes of each memory: 1,024 images of 32 x 32, or some 262,000 weights."""


def _rows(nbytes: int, **vae: object) -> dict[str, Game]:
    return {
        "bank": Game(replay={"replay": "bank", "replay_bytes": nbytes}),
        "vae": Game({"write_every": 1}, {"replay": "vae", "replay_bytes": nbytes, **vae}),
        "ema": Game(replay={"replay": "ema", "replay_bytes": nbytes}),
        "pre-dfkd": Game({"write_every": 1}, {"replay": "vae", "replay_bytes": nbytes, **vae}, "pre-dfkd"),
    }


SMOKE = Pair(
    data="digits", teacher="hinton16", student="hinton8", rows=_rows(60_000, vae_code=4),
    online={"epochs": 4, "iterations": 5, "student_steps": 2, "batch": 64, "latent": 8, "width": 8},
    training=Schedule(epochs=5, batch=32, learning_rate=5e-3), learning=Distillation(epochs=2, batch=32),
)  # fmt: skip
BUDGETS = {
    "smoke": Budget((SMOKE,), (0, 1)),
    "cpu": Budget(tuple(lenet(data, _rows(EQUAL)) for data in ("mnist", "fashion-mnist")), (0, 1, 2)),
    "gpu": Budget(resnets(_rows(3_932_160)), (0, 1, 2)),
}
