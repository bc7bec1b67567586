"""Settings of fine-tuning a quantized network. Free of torch."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from .._core.errors import UserError
from .._core.limits import EPOCHS
from ..distillation.schedule import Distillation

__all__ = ["FineTuning"]


class FineTuning(Distillation):
    """How a quantized network is fine-tuned: its weights and grids are trained alike."""

    later: ClassVar[dict[str, Any]] = {"optimizer": "adam"}

    epochs: int = Field(default=30, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=64, ge=1)
    """Number of images per step, including augmented copies."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1e30)
    """Peak learning rate of the optimizer."""
    temperature: float | None = Field(default=4.0, gt=0)
    """Temperature of the KL divergence."""
    repeats: int = Field(default=1, ge=1)
    """Number of augmented copies of each image in a batch (Hoffer et al. 2020)."""
    shift: int | None = Field(default=None, ge=0)
    """Maximum random shift in pixels; by default an eighth of the height."""
    flip: bool = True
    """Mirror each image left to right with probability 1/2."""
    mixup: float = Field(default=0.5, ge=0, le=1)
    """Share of images that are blended with another one, with a weight uniform in 0 to 1."""

    @model_validator(mode="after")
    def _check(self) -> FineTuning:
        if self.repeats > self.batch:
            raise UserError(
                f"repeats: got {self.repeats}, expected at most {self.batch}, the images per step; give fewer, or a larger "
                "`batch`"
            )
        return self
