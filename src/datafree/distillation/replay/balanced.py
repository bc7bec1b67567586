"""The same number of images per class."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._core.errors import UserError
from ..._core.slots import Slot, Slots
from ...models.network import Network
from . import Written
from .stored import ImageMemory, StoredReplay, reservoir_slots

__all__ = ["Balanced"]


class BalancedMemory(ImageMemory):
    """A reservoir per class; all classes that occurred are replayed equally often."""

    def __init__(self, teacher: Network, room: int):
        classes = len(teacher.spec.classes)
        if room < classes:
            raise UserError(
                f"replay_bytes: got room for {room} images, expected at least one for each of {classes} classes; give more, "
                "or use another kind of `replay`"
            )
        self.room_per_class = room // classes
        super().__init__(teacher, self.room_per_class * classes)
        self.seen_by_class = torch.zeros(classes, dtype=torch.long)

    def nbytes(self) -> int:
        return int(self.seen_by_class.clamp(max=self.room_per_class).sum()) * self.spec.pixels

    def state(self) -> dict[str, Tensor]:
        return {
            "pixels": self.pixels[self._occupied()].clone(),
            "seen": torch.tensor(self.seen),
            "classes": self.seen_by_class.clone(),
        }

    def slots(self, written: Written) -> Slots:
        slots = super().slots(written)
        free = replace(slots["pixels"], rows=slots["pixels"].shape[0])
        return {**slots, "pixels": free, "classes": Slot.count(written.images, shape=(len(self.seen_by_class),))}

    def load(self, state: dict[str, Tensor]) -> None:
        self.seen_by_class = state["classes"].clone()
        occupied, pixels = self._occupied(), state["pixels"]
        if tuple(pixels.shape) != (len(occupied), *self.spec.shape) or pixels.dtype != torch.uint8:
            raise UserError("the saved memory has other images or more of them; repeat that run's command")
        if int(self.seen_by_class.sum()) != int(state["seen"]):
            raise UserError("the saved memory counts other images by class than in total; repeat that run's command")
        self.pixels[occupied], self.seen = pixels, int(state["seen"])

    def _occupied(self) -> Tensor:
        """Slots that hold an image, (count,)."""
        counts = self.seen_by_class.clamp(max=self.room_per_class)
        return torch.cat([index * self.room_per_class + torch.arange(int(count)) for index, count in enumerate(counts)])

    def _random_slots(self, count: int, rng: torch.Generator) -> Tensor:
        counts = self.seen_by_class.clamp(max=self.room_per_class)
        classes = counts.nonzero()[:, 0]
        labels = classes[torch.randint(len(classes), (count,), generator=rng)]
        return labels * self.room_per_class + (torch.rand(count, generator=rng) * counts[labels]).long()

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:
        slots = torch.full((count,), -1)
        for label in labels.unique():
            rows = (labels == label).nonzero()[:, 0]
            label_slots = reservoir_slots(self.seen_by_class[label] + torch.arange(len(rows)), self.room_per_class, rng)
            slots[rows] = torch.where(label_slots >= 0, label_slots + label * self.room_per_class, -1)
            self.seen_by_class[label] += len(rows)
        return slots


class Balanced(StoredReplay):
    """The same number of images for each class that the teacher predicts; a uniform sample within a class."""

    replay: Literal["balanced"] = "balanced"

    summary: ClassVar[str] = "a uniform sample per class, the same number of each"
    memory: ClassVar[type[ImageMemory]] = BalancedMemory
