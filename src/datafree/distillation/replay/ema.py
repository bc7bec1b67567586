"""A moving average of the generator as a memory: it generates images like earlier ones and stores none."""

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
from ...synthesis.generator import Generator
from . import BYTES, Written

__all__ = ["Ema"]


class Ema(Settings):
    """An exponential moving average of the generator's weights."""

    replay: Literal["ema"] = "ema"
    replay_bytes: int = Field(default=BYTES, ge=1)
    """Maximum size of the averaged weights, in bytes of float32."""
    decay: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average, per generator step."""

    summary: ClassVar[str] = "a moving average of the generator's weights; no images are stored"

    def bind(self, teacher: Network, seed: int) -> EmaMemory:  # noqa: ARG002
        if self.replay_bytes < 4 * teacher.spec.pixels:
            raise UserError(
                f"replay_bytes: got {self.replay_bytes:,}, expected at least {4 * teacher.spec.pixels:,}, and any "
                "generator of such images needs more; give more, or use `replay='none'`"
            )
        return EmaMemory(self, teacher)


class EmaMemory:
    """The average of the current generator's weights; a new generator restarts it."""

    def __init__(self, settings: Ema, teacher: Network):
        self.settings, self.spec, self.steps = settings, teacher.spec, 0
        self.average: Generator | None = None

    def on_new_generator(self, generator: Generator) -> None:
        if (size := _nbytes(generator)) > self.settings.replay_bytes:
            raise UserError(
                f"replay_bytes: got {self.settings.replay_bytes:,}, expected at least {size:,}, the size of the "
                "generator's weights; give more, a smaller `width`, or another kind of `replay`"
            )
        self.average, self.steps = copy.deepcopy(generator).requires_grad_(False), 0

    @torch.no_grad()
    def on_generator_step(self, generator: Generator) -> None:
        assert self.average is not None
        for average, current in zip(self.average.parameters(), generator.parameters(), strict=True):
            average.lerp_(current, 1 - self.settings.decay)
        self.steps += 1

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        pass

    @torch.no_grad()
    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        """As in `Memory`; None before the first step. Generates at least 32 images, which batch norms need."""
        if self.average is None or not self.steps:
            return None
        latents = torch.randn((max(count, 32), self.average.latents_per_image), generator=rng)
        return self.average(latents.to(self.average.first.weight.device))[:count].float()

    def nbytes(self) -> int:
        return 0 if self.average is None else _nbytes(self.average)

    def state(self) -> dict[str, Tensor]:
        if self.average is None:
            return {}
        weights = {f"weights/{name}": tensor.detach().cpu().clone() for name, tensor in self.average.named_parameters()}
        return {**weights, "steps": torch.tensor(self.steps)}

    def slots(self, written: Written) -> Slots:
        if self.average is None:
            return {}
        weights = {f"weights/{name}": Slot.like(tensor) for name, tensor in self.average.named_parameters()}
        return {**weights, "steps": Slot.count(written.steps)}

    def load(self, state: dict[str, Tensor]) -> None:
        weights = {
            name.removeprefix("weights/"): tensor for name, tensor in state.items() if name.startswith("weights/")
        }
        if self.average is None and not weights:
            return
        averages = {} if self.average is None else dict(self.average.named_parameters())
        if {name: tensor.shape for name, tensor in averages.items()} != {
            name: tensor.shape for name, tensor in weights.items()
        }:
            raise UserError("the saved memory is of another generator; repeat that run's command")
        with torch.no_grad():
            for name, tensor in averages.items():
                tensor.copy_(weights[name])
        self.steps = int(state["steps"])


def _nbytes(generator: Generator) -> int:
    return 4 * sum(parameter.numel() for parameter in generator.parameters())
