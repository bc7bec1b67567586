"""The last images written (MB-DFKD)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .stored import Images, Stored

__all__ = ["Bank"]


class Ring(Images):
    """The oldest makes room."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return (self.seen + torch.arange(count)) % self.room


class Bank(Stored):
    """The last images written: a ring (Binici et al. 2021, in a third party's code)."""

    replay: Literal["bank"] = "bank"

    summary: ClassVar[str] = "the last images written, first in, first out (Binici et al. 2021)"
    memory: ClassVar[type[Images]] = Ring
