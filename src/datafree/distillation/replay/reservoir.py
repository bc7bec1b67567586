"""A uniform sample of all images ever written."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .stored import ImageMemory, StoredReplay, slots_of_sample

__all__ = ["ReservoirMemory"]


class Reservoir(ImageMemory):
    """Image k of all so far takes a slot with chance room / k (Vitter's algorithm R)."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return slots_of_sample(self.seen + torch.arange(count), self.room, rng)


class ReservoirMemory(StoredReplay):
    """Every image ever written has the same chance to be kept (Vitter 1985)."""

    replay: Literal["reservoir"] = "reservoir"

    summary: ClassVar[str] = "a uniform sample of all images ever written (Vitter 1985)"
    memory: ClassVar[type[ImageMemory]] = Reservoir
