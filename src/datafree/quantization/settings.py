"""Settings of fine-tuning a quantized network. Free of torch."""

from __future__ import annotations

from pydantic import Field, model_validator

from .._core.limits import EPOCHS
from ..distillation.schedule import Distillation

__all__ = ["FineTuning"]


class FineTuning(Distillation):
    """How a quantized network is fine-tuned: its weights and grids are trained alike."""

    epochs: int = Field(default=30, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=64, ge=1)
    """Number of images per step, augmented copies counted."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1e30)
    """Peak learning rate of the optimizer."""
    temperature: float | None = Field(default=4.0, gt=0)
    """Both sides' logits are divided by it."""
    repeats: int = Field(default=1, ge=1)
    """Augmented copies of each image in a batch (Hoffer et al. 2020)."""
    shift: int | None = Field(default=None, ge=0)
    """Move images by up to this many pixels, with zeros around; an eighth of the height by default."""
    flip: bool = True
    """Mirror each image left to right with probability 1/2."""
    mixup: float = Field(default=0.5, ge=0, le=1)
    """Share of images blended with another, by a weight uniform in 0 to 1."""

    @model_validator(mode="after")
    def _check(self) -> FineTuning:
        if self.repeats > self.batch:
            raise ValueError(f"repeats of at most the batch of {self.batch}, got {self.repeats}")
        return self
