"""Memories that keep images, a byte a number: the last batches (MB-DFKD), a reservoir, as many of each class, all."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..errors import UserError
from ..generator import Generator
from ..network import Network
from ..settings import Settings
from ..syntheticset import to_bytes, to_pixels
from . import BYTES, room_for

__all__ = ["Balanced", "Bank", "Pool", "Reservoir"]


class _Stored(Settings):
    replay_bytes: int = Field(default=BYTES, ge=1)
    """Bytes that may be kept."""


class Bank(_Stored):
    """The last images written: a ring (Binici et al. 2021, in a third party's code)."""

    replay: Literal["bank"] = "bank"

    summary: ClassVar[str] = "the last images written, first in, first out (Binici et al. 2021)"

    def on(self, teacher: Network, seed: int) -> Ring:  # noqa: ARG002
        return Ring(teacher, room_for(teacher, self.replay_bytes))


class Reservoir(_Stored):
    """Every image ever written has the same chance to be kept (Vitter 1985)."""

    replay: Literal["reservoir"] = "reservoir"

    summary: ClassVar[str] = "a uniform sample of all images ever written (Vitter 1985)"

    def on(self, teacher: Network, seed: int) -> Uniform:  # noqa: ARG002
        return Uniform(teacher, room_for(teacher, self.replay_bytes))


class Balanced(_Stored):
    """As many images of each class that the teacher sees; of a class, a uniform sample."""

    replay: Literal["balanced"] = "balanced"

    summary: ClassVar[str] = "a uniform sample of each class, as many of each"

    def on(self, teacher: Network, seed: int) -> ByClass:  # noqa: ARG002
        return ByClass(teacher, room_for(teacher, self.replay_bytes, extra=1))


class Pool(_Stored):
    """Every image written, until the budget is full; then no more."""

    replay: Literal["pool"] = "pool"

    summary: ClassVar[str] = "the first images written, until the budget is full"

    def on(self, teacher: Network, seed: int) -> First:  # noqa: ARG002
        return First(teacher, room_for(teacher, self.replay_bytes))


class Images:
    """Images as bytes in a fixed number of slots; a subclass says which slot a new image takes."""

    def __init__(self, teacher: Network, room: int):
        self.spec, self.room, self.seen = teacher.spec, room, 0
        self.pixels = torch.empty((room, *teacher.spec.shape), dtype=torch.uint8)

    def begin(self, generator: Generator) -> None:
        pass

    def follow(self, generator: Generator) -> None:
        pass

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        slots = self._slots(len(pixels), logits.detach().cpu().argmax(1), rng)
        for slot, index in {int(slot): index for index, slot in enumerate(slots) if slot >= 0}.items():  # the last wins
            self.pixels[slot] = to_bytes(pixels[index].detach().cpu(), self.spec)
        self.seen += len(pixels)

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        if not self.seen:
            return None
        return to_pixels(self.pixels[self._drawn(count, rng)], self.spec)

    def nbytes(self) -> int:
        return min(self.seen, self.room) * self.spec.pixels

    def state(self) -> dict[str, Tensor]:
        return {"pixels": self.pixels[: min(self.seen, self.room)].clone(), "seen": torch.tensor(self.seen)}

    def load(self, state: dict[str, Tensor]) -> None:
        pixels = state["pixels"]
        if tuple(pixels.shape[1:]) != self.spec.shape or pixels.dtype != torch.uint8 or len(pixels) > self.room:
            raise UserError("the memory of that run has other images or more of them; repeat that run's command")
        self.pixels[: len(pixels)], self.seen = pixels, int(state["seen"])

    def _drawn(self, count: int, rng: torch.Generator) -> Tensor:
        """Slots (count,) to replay."""
        return torch.randint(min(self.seen, self.room), (count,), generator=rng)

    @abstractmethod
    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Slots (count,) for new images of those classes; -1 for one that is not kept."""


class Ring(Images):
    """The oldest makes room."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return (self.seen + torch.arange(count)) % self.room


class First(Images):
    """Full is full."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        slots = self.seen + torch.arange(count)
        return torch.where(slots < self.room, slots, -1)


class Uniform(Images):
    """Image k of all so far takes a slot with chance room / k (Vitter's algorithm R)."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return reservoir(self.seen + torch.arange(count), self.room, rng)


class ByClass(Images):
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

    def load(self, state: dict[str, Tensor]) -> None:
        self.by_class = state["classes"].clone()
        held, pixels = self._full(), state["pixels"]
        if tuple(pixels.shape) != (len(held), *self.spec.shape) or pixels.dtype != torch.uint8:
            raise UserError("the memory of that run has other images or more of them; repeat that run's command")
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
            found = reservoir(self.by_class[own] + torch.arange(len(where)), self.share, rng)
            slots[where] = torch.where(found >= 0, found + own * self.share, -1)
            self.by_class[own] += len(where)
        return slots


def reservoir(numbers: Tensor, room: int, rng: torch.Generator) -> Tensor:
    """Slots for images of those numbers, counted from 0; -1 for one that is not kept. Vitter 1985, algorithm R."""
    drawn = (torch.rand(len(numbers), generator=rng, dtype=torch.float64) * (numbers + 1)).long()
    slots = torch.where(numbers < room, numbers, drawn)
    return torch.where(slots < room, slots, -1)
