"""Shared base of memories that store images, in a fixed number of slots with one byte per value."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..._core.errors import UserError
from ..._core.settings import Settings
from ..._core.slots import Slot, Slots
from ...models.network import Network
from ...models.pixel_bytes import to_bytes, to_pixels
from ...synthesis.generator import Generator
from . import BYTES, Written, room_for

__all__ = ["ImageMemory", "StoredReplay", "reservoir_slots"]


class StoredReplay(Settings):
    """Settings of a memory that stores images."""

    replay_bytes: int = Field(default=BYTES, ge=1)
    """Maximum size of the memory, in bytes."""

    memory: ClassVar[type[ImageMemory]]

    def bind(self, teacher: Network, seed: int) -> ImageMemory:  # noqa: ARG002
        return self.memory(teacher, room_for(teacher, self.replay_bytes))


class ImageMemory:
    """Images as bytes in a fixed number of slots; subclasses choose the slots of new images."""

    def __init__(self, teacher: Network, room: int):
        self.spec, self.room, self.seen = teacher.spec, room, 0
        self.pixels = torch.empty((room, *teacher.spec.shape), dtype=torch.uint8)
        self.occupied = torch.zeros(room, dtype=torch.bool)

    def on_new_generator(self, generator: Generator) -> None:
        pass

    def on_generator_step(self, generator: Generator) -> None:
        pass

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        slots = self._slots(len(pixels), logits.detach().cpu().argmax(1), rng)
        for slot, index in {
            int(slot): index for index, slot in enumerate(slots) if slot >= 0
        }.items():  # the last image of a slot wins
            self.pixels[slot] = to_bytes(pixels[index].detach().cpu(), self.spec)
            self.occupied[slot] = True
        self.seen += len(pixels)

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        if not self.seen:
            return None
        return to_pixels(self.pixels[self._random_slots(count, rng)], self.spec)

    def nbytes(self) -> int:
        return min(self.seen, self.room) * self.spec.pixels

    def state(self) -> dict[str, Tensor]:
        return {"pixels": self.pixels[: min(self.seen, self.room)].clone(), "seen": torch.tensor(self.seen)}

    def slots(self, written: Written) -> Slots:
        pixels = Slot(torch.uint8, (min(written.images, self.room), *self.spec.shape))
        return {"pixels": pixels, "seen": Slot.count(written.images, written.images)}

    def load(self, state: dict[str, Tensor]) -> None:
        pixels = state["pixels"]
        if tuple(pixels.shape[1:]) != self.spec.shape or pixels.dtype != torch.uint8 or len(pixels) > self.room:
            raise UserError("the saved memory has other images or more of them; repeat that run's command")
        self.pixels[: len(pixels)], self.seen = pixels, int(state["seen"])
        self.occupied[: len(pixels)] = True

    def _random_slots(self, count: int, rng: torch.Generator) -> Tensor:
        """Random occupied slots (count,)."""
        if not bool(self.occupied[: self.seen].all()):
            empty = int((~self.occupied).nonzero()[0])
            raise UserError(
                f"{type(self).__name__} leaves slot {empty} empty after {self.seen} images, expected the first {self.room} "
                "images in slots 0, 1, 2, ...; choose other slots, or none, for later images alone"
            )
        return torch.randint(min(self.seen, self.room), (count,), generator=rng)

    @abstractmethod
    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Slots (count,) for new images with classes `labels` (count,); -1 for an image that is not stored.

        The first `room` images go to slots 0, 1, 2, ...: image number `self.seen + i` to that slot.
        """


def reservoir_slots(numbers: Tensor, room: int, rng: torch.Generator) -> Tensor:
    """Slots for images with the given `numbers`, counted from 0; -1 for not stored. Vitter 1985, algorithm R."""
    random_slots = (torch.rand(len(numbers), generator=rng, dtype=torch.float64) * (numbers + 1)).long()
    slots = torch.where(numbers < room, numbers, random_slots)
    return torch.where(slots < room, slots, -1)
