"""The first images written."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .stored import ImageMemory, StoredReplay

__all__ = ["Pool"]


class PoolMemory(ImageMemory):
    """Ignores new images once it is full."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        slots = self.seen + torch.arange(count)
        return torch.where(slots < self.room, slots, -1)


class Pool(StoredReplay):
    """All images written until the budget is used up; later ones are ignored."""

    replay: Literal["pool"] = "pool"

    summary: ClassVar[str] = "the first images written, until the budget is used up"
    memory: ClassVar[type[ImageMemory]] = PoolMemory
