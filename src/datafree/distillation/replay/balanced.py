"""As many images of each class."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._core.errors import UserError
from ..._core.slots import Slot, Slots
from ...models.network import Network
from . import Written
from .stored import ImageMemory, StoredReplay, slots_of_sample

__all__ = ["Balanced"]


class ByClass(ImageMemory):
    """A reservoir for each class; replayed by class, all that were seen alike."""

    def __init__(self, teacher: Network, room: int):
        classes = len(teacher.spec.classes)
        if room < classes:
            raise UserError(
                f"--replay-bytes: got room for {room} images, wanted at least one of each of {classes} classes; "
                "give more, or another --replay"
            )
        self.share = room // classes
        super().__init__(teacher, self.share * classes)
        self.by_class = torch.zeros(classes, dtype=torch.long)

    def nbytes(self) -> int:
        return int(self.by_class.clamp(max=self.share).sum()) * self.spec.pixels

    def state(self) -> dict[str, Tensor]:
        return {
            "pixels": self.pixels[self._full()].clone(),
            "seen": torch.tensor(self.seen),
            "classes": self.by_class.clone(),
        }

    def slots(self, written: Written) -> Slots:
        slots = super().slots(written)
        free = replace(slots["pixels"], rows=slots["pixels"].shape[0])
        return {**slots, "pixels": free, "classes": Slot.count(written.images, shape=(len(self.by_class),))}

    def load(self, state: dict[str, Tensor]) -> None:
        self.by_class = state["classes"].clone()
        held, pixels = self._full(), state["pixels"]
        if tuple(pixels.shape) != (len(held), *self.spec.shape) or pixels.dtype != torch.uint8:
            raise UserError("the memory of that run has other images or more of them; repeat that run's command")
        if int(self.by_class.sum()) != int(state["seen"]):
            raise UserError(
                "the memory of that run counts other images by class than in all; repeat that run's command"
            )
        self.pixels[held], self.seen = pixels, int(state["seen"])

    def _full(self) -> Tensor:
        """Slots that hold an image."""
        held = self.by_class.clamp(max=self.share)
        return torch.cat([index * self.share + torch.arange(int(own)) for index, own in enumerate(held)])

    def _drawn(self, count: int, rng: torch.Generator) -> Tensor:
        held = self.by_class.clamp(max=self.share)
        there = held.nonzero()[:, 0]
        chosen = there[torch.randint(len(there), (count,), generator=rng)]
        return chosen * self.share + (torch.rand(count, generator=rng) * held[chosen]).long()

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:
        slots = torch.full((count,), -1)
        for own in labels.unique():
            where = (labels == own).nonzero()[:, 0]
            found = slots_of_sample(self.by_class[own] + torch.arange(len(where)), self.share, rng)
            slots[where] = torch.where(found >= 0, found + own * self.share, -1)
            self.by_class[own] += len(where)
        return slots


class Balanced(StoredReplay):
    """As many images of each class that the teacher sees; of a class, a uniform sample."""

    replay: Literal["balanced"] = "balanced"

    summary: ClassVar[str] = "a uniform sample of each class, as many of each"
    memory: ClassVar[type[ImageMemory]] = ByClass
