"""Random real images: few-shot data, and the baseline that any condensed set has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...._core.seeds import stream
from ...._core.settings import Settings
from . import Job

__all__ = ["RandomImages"]


class RandomImages(Settings):
    """Random images of each class, drawn without replacement."""

    method: Literal["random"] = "random"

    keeps_state: ClassVar[bool] = False
    summary: ClassVar[str] = "random real images: few-shot data, and the baseline"
    leakage: ClassVar[str] = "Contains original training images: everyone with this file has them."

    def make(self, job: Job) -> Tensor:
        chosen = []
        for label, positions in job.by_class():
            order = torch.randperm(len(positions), generator=stream(job.seed, "shots", label))
            chosen.append(positions[order[: job.per_class]])
        return job.pixels(torch.cat(chosen))
