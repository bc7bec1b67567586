"""The settings of trainings: of a network, and of a student. Free of torch, so that flags are checked before it is there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .._core.limits import EPOCHS
from .._core.settings import Settings

__all__ = ["Distillation", "Schedule"]


class Schedule(Settings):
    """How a network is trained, the same for a teacher, a student and every baseline."""

    epochs: int = Field(default=10, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=64, ge=1)
    """Number of images per step."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1e30)
    """Highest learning rate of Adam."""
    decay: Literal["constant", "cosine"] = "cosine"
    """The learning rate over the run: constant, or down to 0 along a half cosine."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of forward and backward passes; weights stay float32."""


class Distillation(Schedule):
    """How the student is trained; the same settings make the data-free student and its baseline on real data."""

    epochs: int = Field(default=30, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=128, ge=1)
    """Number of images per step."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1e30)
    """Highest learning rate of Adam."""
    temperature: float | None = Field(default=None, gt=0)
    """Both sides' logits are divided by it; by default chosen from the scale of the teacher's logits."""
    loss: Literal["kl", "mse"] = "kl"
    """KL divergence at the temperature, or the mean squared difference of centred logits."""
