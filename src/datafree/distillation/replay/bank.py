"""The last images written (MB-DFKD)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from .stored import ImageMemory, StoredReplay

__all__ = ["Bank"]


class BankMemory(ImageMemory):
    """A ring buffer: a new image replaces the oldest one."""

    def _slots(self, count: int, labels: Tensor, rng: torch.Generator) -> Tensor:  # noqa: ARG002
        return (self.seen + torch.arange(count)) % self.room


class Bank(StoredReplay):
    """The last images written, in a ring buffer (Binici et al. 2021, after a third party's code)."""

    replay: Literal["bank"] = "bank"

    summary: ClassVar[str] = "the last images written, first in, first out (Binici et al. 2021)"
    memory: ClassVar[type[ImageMemory]] = BankMemory
