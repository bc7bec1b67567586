"""The moving average of the generator as a memory: what it made on the way here, without an image or a second model."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..._core.errors import UserError
from ..._core.settings import Settings
from ..._core.slots import Slot, Slots
from ...models.network import Network
from ..online.generator import Generator
from . import BYTES, Written

__all__ = ["Ema"]


class Ema(Settings):
    """An exponential moving average of the generator's weights."""

    replay: Literal["ema"] = "ema"
    replay_bytes: int = Field(default=BYTES, ge=1)
    """Number of bytes of the averaged weights, in float32; a generator that does not fit is refused."""
    decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average, per generator step."""

    summary: ClassVar[str] = "the moving average of the generator's weights; no image is kept"

    def bind(self, teacher: Network, seed: int) -> Averaged:  # noqa: ARG002
        if self.replay_bytes < 4 * teacher.spec.pixels:
            raise UserError(
                f"--replay-bytes: got {self.replay_bytes:,}, wanted at least {4 * teacher.spec.pixels:,}, less than any "
                "generator of such images takes; give more, or --replay none"
            )
        return Averaged(self, teacher)


class Averaged:
    """Begins at the first generator it is shown, and anew where that one is given up."""

    def __init__(self, settings: Ema, teacher: Network):
        self.settings, self.spec, self.steps = settings, teacher.spec, 0
        self.own: Generator | None = None

    def begin(self, generator: Generator) -> None:
        if (needed := _nbytes(generator)) > self.settings.replay_bytes:
            raise UserError(
                f"--replay-bytes: got {self.settings.replay_bytes:,}, wanted at least {needed:,}, which the generator's "
                "weights take; give more, a smaller --width or another --replay"
            )
        self.own, self.steps = copy.deepcopy(generator).requires_grad_(False), 0

    @torch.no_grad()
    def follow(self, generator: Generator) -> None:
        assert self.own is not None
        for own, now in zip(self.own.parameters(), generator.parameters(), strict=True):
            own.lerp_(now, 1 - self.settings.decay)
        self.steps += 1

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        pass

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        """None before the first step. Its batch norms want a batch, so at least 32 are drawn."""
        if self.own is None or not self.steps:
            return None
        latents = torch.randn((max(count, 32), self.own.drawn), generator=rng)
        return self.own(latents.to(self.own.first.weight.device))[:count].float()

    def nbytes(self) -> int:
        return 0 if self.own is None else _nbytes(self.own)

    def state(self) -> dict[str, Tensor]:
        if self.own is None:
            return {}
        weights = {f"weights/{name}": own.detach().cpu().clone() for name, own in self.own.named_parameters()}
        return {**weights, "steps": torch.tensor(self.steps)}

    def slots(self, written: Written) -> Slots:
        if self.own is None:
            return {}
        weights = {f"weights/{name}": Slot.like(own) for name, own in self.own.named_parameters()}
        return {**weights, "steps": Slot.count(written.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        found = {name.removeprefix("weights/"): own for name, own in state.items() if name.startswith("weights/")}
        if self.own is None and not found:
            return
        kept = {} if self.own is None else dict(self.own.named_parameters())
        if {name: own.shape for name, own in kept.items()} != {name: own.shape for name, own in found.items()}:
            raise UserError("the memory of that run is of another generator; repeat that run's command")
        with torch.no_grad():
            for name, own in kept.items():
                own.copy_(found[name])
        self.steps = int(state["steps"])


def _nbytes(generator: Generator) -> int:
    return 4 * sum(own.numel() for own in generator.parameters())
