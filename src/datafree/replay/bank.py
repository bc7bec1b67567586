"""The last images written (MB-DFKD)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..network import Network
from . import room_for
from .stored import Images, Stored

__all__ = ["Bank"]


class Bank(Stored):
    """The last images written: a ring (Binici et al. 2021, in a third party's code)."""

    replay: Literal["bank"] = "bank"

    summary: ClassVar[str] = "the last images written, first in, first out (Binici et al. 2021)"

    def on(self, teacher: Network, seed: int) -> Ring:  # noqa: ARG002
        return Ring(teacher, room_for(teacher, self.replay_bytes))


class Ring(Images):
    """The oldest makes room."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return (self.seen + torch.arange(count)) % self.room
