"""What Fast and CMI share: their group's script datafree_kd.py, whose package has the name of ours, `datafree`."""

from __future__ import annotations

import importlib
import math
import sys
from functools import partial
from typing import Any

import torch

from benchmarks.peers.adapters import Job
from benchmarks.peers.budget import Budget
from benchmarks.peers.interface import OneBatch, PeerNetwork
from benchmarks.peers.stand_ins import (
    import_from,
    keep_seed,
    library_hidden,
    no_files,
    on_cpu,
    real_torchvision,
    stand_in,
)

__all__ = ["CHANGES", "FILES", "run_kd"]

FILES = ("datafree_kd.py", "registry.py", "datafree/synthesis/contrastive.py", "datafree/models/generator.py")
CHANGES = (
    "teacher and student are ours, and the images are normalised with our teacher's mean and standard deviation",
    "the student's learning rate follows the cosine over the CPU limit instead of over the number of epochs",
    "images are loaded in the run's own process instead of four others, whose CPU time would not count",
)


class CosineOverBudget:
    """In place of CosineAnnealingLR: the same curve over the CPU limit, updated after every epoch."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, T_max: int, eta_min: float = 0.0, *, budget: Budget
    ):  # the names are torch's
        self.optimizer, self.eta_min, self.budget, self.epochs = optimizer, eta_min, budget, T_max
        self.peak = optimizer.param_groups[0]["lr"]

    def step(self) -> None:
        share = (1 + math.cos(math.pi * self.budget.fraction())) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.eta_min + share * (self.peak - self.eta_min)

    def state_dict(self) -> dict[str, Any]:
        return {}


def run_kd(job: Job, options: dict[str, Any]) -> None:
    """Runs the script with the job's settings and `options`."""
    real_torchvision()
    stand_in("torchvision.models.utils")
    on_cpu()
    teacher, student = (PeerNetwork(network.module, job.feature) for network in (job.teacher, job.student))
    no_files({"state_dict": teacher.state_dict()})
    spec = job.teacher.spec
    importlib.import_module("torchvision.datasets").CIFAR10 = partial(OneBatch, shape=spec.shape)
    torch.optim.lr_scheduler.CosineAnnealingLR = partial(CosineOverBudget, budget=job.budget)  # type: ignore[misc,assignment]
    with library_hidden():
        import_from(job.folder)
        registry = importlib.import_module("registry")
        registry.NORMALIZE_DICT["cifar10"] = {"mean": spec.mean, "std": spec.std}
        registry.get_model = lambda name, **_: teacher if name == "teacher" else student
        script = importlib.import_module("datafree_kd")
        script.parser.set_defaults(gpu=torch.device("cpu"))
        words = {
            **job.settings,
            **options,
            "dataset": "cifar10",
            "teacher": "teacher",
            "student": "student",
            "workers": 0,
        }
        sys.argv = ["datafree_kd.py", *(word for key, value in words.items() for word in (f"--{key}", str(value)))]
        keep_seed(job.seed)
        with job.budget.limit():
            script.main()
