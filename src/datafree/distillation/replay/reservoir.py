"""A uniform sample of all images ever written."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .stored import ImageMemory, StoredReplay, reservoir_slots

__all__ = ["Reservoir"]


class ReservoirMemory(ImageMemory):
    """Image number k takes a slot with probability room / k (Vitter's algorithm R)."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return reservoir_slots(self.seen + torch.arange(count), self.room, rng)


class Reservoir(StoredReplay):
    """A uniform sample of all images ever written (Vitter 1985)."""

    replay: Literal["reservoir"] = "reservoir"

    summary: ClassVar[str] = "a uniform sample of all images ever written (Vitter 1985)"
    memory: ClassVar[type[ImageMemory]] = ReservoirMemory
