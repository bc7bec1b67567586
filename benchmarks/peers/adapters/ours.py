"""Our own rows, through the public API: online distillation, a synthetic set, and real data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import torch

import datafree as df
from benchmarks.peers.adapters import Job, Peer
from datafree.models.network import Network
from datafree.models.precision import fastest_precision

PEER = Peer(title="ours", folder="", data=("mnist", "cifar10"), settings={"images": 0, "epochs": 0})
"""`images`: number of synthetic images of `ours-set`; `epochs`: number of epochs; 0: those of SETS and LEARNING, or the
default of `distill_online`.
"""
PRECISION = fastest_precision(torch.device("cpu"))
CIFAR: dict[str, Any] = {
    "batch": 128, "optimizer": "muon", "learning_rate": 0.02, "warmup": 0.1, "temperature": 4.0, "shift": 4,
    "flip": True, "precision": PRECISION,
}  # fmt: skip
SETS: dict[str, tuple[dict[str, Any], int]] = {
    "mnist": ({"method": "inception"}, 5_120),
    "cifar10": ({"method": "meta-generator", "precision": PRECISION}, 20_480),
}
"""Data -> synthesis method, number of images."""
LEARNING: dict[tuple[str, str], dict[str, Any]] = {
    ("mnist", "ours-set"): {"epochs": 20, "batch": 128},
    ("mnist", "real-data"): {"epochs": 10, "batch": 128},
    ("cifar10", "ours-set"): {"epochs": 25, **CIFAR},
    ("cifar10", "real-data"): {"epochs": 11, **CIFAR},
}
"""(data, row) -> settings of `datafree.distill`; on CIFAR-10, 4,000 steps and 4,290."""


class Scores:
    """The accuracy of every network that it is called with, and the CPU seconds of the run until then."""

    def __init__(self, job: Job):
        self.job, self.start, self.paused = job, time.process_time(), 0.0
        self.curve: list[tuple[float, float]] = []
        self.calls = 0

    def used(self) -> float:
        return time.process_time() - self.start - self.paused

    def __call__(self, network: Network) -> float:
        used, start = self.used(), time.process_time()
        accuracy = self.job.measure(network)
        self.curve.append((round(used, 2), accuracy))
        self.paused += time.process_time() - start
        return accuracy

    def of_every_second(self, network: Network) -> float:
        """Per epoch, `distill_online` scores the student and then its moving average, which it returns: only that counts."""
        self.calls += 1
        return 0.0 if self.calls % 2 else self(network)


def run(job: Job) -> None:
    """Runs the row's own schedule to its end; the limit does not stop it."""
    scores = Scores(job)
    if job.method.startswith("ours-online"):
        start: Literal["teacher", "random"] = "teacher" if job.method.endswith("teacher") else "random"
        settings = {"epochs": job.settings["epochs"]} if job.settings["epochs"] else None
        student = df.distill_online(
            job.teacher, job.student, settings, start=start, seed=job.seed, score=scores.of_every_second
        )
    else:
        images: Any = job.train if job.method == "real-data" else _synthetic(job)
        learning = dict(LEARNING[job.data, job.method])
        learning["epochs"] = job.settings["epochs"] or learning["epochs"]
        student = df.distill(job.teacher, job.student, images=images, seed=job.seed, score=scores, settings=learning)
    scores(student)
    job.budget.curve.extend(scores.curve)


def _synthetic(job: Job) -> df.SyntheticSet:
    method, images = SETS[job.data]
    images = job.settings["images"] or images
    return df.synthesize(job.teacher, None, method, Path.cwd() / "set", images=images, seed=job.seed, workers=1)
