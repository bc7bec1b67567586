"""What is run: memories at equal bytes (a bank of images, a VAE, the generator's moving average), and PRE-DFKD."""

from __future__ import annotations

from dataclasses import replace

from datafree.distillation.distill import Distillation
from datafree.distillation.training_loop import Schedule
from papers.online import REPLAYED, Budget, OnlineRow, Pair, cifar10, cifar100, lenet, resnets

__all__ = ["BUDGETS", "PAPER"]

# data/teacher/row -> (place, figure): none of the paper's data sets, teachers and sizes is run here
PAPER: dict[str, tuple[str, float]] = {}

EQUAL = 211_200
"""Bytes of each memory: a bank of 206 images of 32 x 32 has 210,944, a VAE with a code of 16 has 211,140, and the weights of
the generator are 210,660, or 210,808 where it makes things."""


def _begun(nbytes: int, vae: dict[str, object]) -> dict[str, OnlineRow]:
    """From the teacher's channels."""
    return {
        "bank": OnlineRow(replay={"replay": "bank", "replay_bytes": nbytes}),
        "vae": OnlineRow({"write_every": 1}, {"replay": "vae", "replay_bytes": nbytes, **vae}),
        "ema": OnlineRow(replay={"replay": "ema", "replay_bytes": nbytes}),
        "pre-dfkd": OnlineRow({}, {"replay": "vae", "replay_bytes": nbytes, **vae}, "pre-dfkd"),
    }


def _rows(nbytes: int, **vae: object) -> dict[str, OnlineRow]:
    begun = _begun(nbytes, vae)
    memories = {"generator": OnlineRow()} | {name: begun[name] for name in ("bank", "vae", "ema")}
    return begun | {f"{name}, random start": replace(row, start="random") for name, row in memories.items()}


VAE = {"replay": "vae", "replay_bytes": REPLAYED, "vae_code": 100}
FORGETTING = {"vae": OnlineRow({"write_every": 1}, VAE, start="random")}
CIFAR = (
    cifar10({**FORGETTING, "pre-dfkd": OnlineRow({}, VAE, "pre-dfkd", start="random")}, {}),
    cifar100(FORGETTING, {}),
)
"""Beside `kd`, `generator` and `bank` of the paper of 2021, where the bank has as many bytes."""

SMOKE = Pair(
    data="digits", teacher="hinton16", student="hinton8", rows=_rows(60_000, vae_code=4),
    online={"epochs": 4, "iterations": 5, "student_steps": 2, "batch": 64, "latent": 8, "width": 8},
    training=Schedule(epochs=5, batch=32, learning_rate=5e-3), learning=Distillation(epochs=2, batch=32),
)  # fmt: skip
BUDGETS = {
    "smoke": Budget((SMOKE,), (0, 1)),
    "cpu": Budget(
        tuple(lenet(data, _rows(EQUAL, vae_code=16)) for data in ("mnist", "fashion-mnist")) + CIFAR, (0, 1, 2)
    ),
    "gpu": Budget(resnets(_begun(REPLAYED, {"vae_code": 100})), (0, 1, 2)),
}
