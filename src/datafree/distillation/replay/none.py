"""No replay: the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._core.settings import Settings
from ..._core.slots import Slots
from ...models.network import Network
from ...synthesis.generator import Generator
from . import Written

__all__ = ["NoReplay"]


class NoReplay(Settings):
    """Stores nothing."""

    replay: Literal["none"] = "none"

    summary: ClassVar[str] = "no replay: the baseline"

    def bind(self, teacher: Network, seed: int) -> EmptyMemory:  # noqa: ARG002
        return EmptyMemory()


@dataclass
class EmptyMemory:
    """A memory that is always empty."""

    def on_new_generator(self, generator: Generator) -> None:
        pass

    def on_generator_step(self, generator: Generator) -> None:
        pass

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        pass

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:  # noqa: ARG002
        return None

    def nbytes(self) -> int:
        return 0

    def state(self) -> dict[str, Tensor]:
        return {}

    def slots(self, written: Written) -> Slots:  # noqa: ARG002
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        pass
