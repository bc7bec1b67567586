"""Settings for training a network or distilling a student. No torch import, so that flags are checked early."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypedDict

from pydantic import Field

from .._core.limits import EPOCHS
from .._core.settings import Settings
from .._core.unused import Use

__all__ = ["FAST", "GENTLE", "USES", "Distillation", "Schedule", "ScheduleChanges", "with_fast_optimizer"]


class Schedule(Settings):
    """How a network is trained: teachers, students and baselines alike."""

    later: ClassVar[dict[str, Any]] = {"optimizer": "adam"}

    epochs: int = Field(default=10, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=64, ge=1)
    """Number of images per step."""
    learning_rate: float = Field(default=1e-3, gt=0, le=1e30)
    """Peak learning rate of the optimizer."""
    optimizer: Literal["adam", "muon"] = "adam"
    """Optimizer: Adam, or Muon, which orthogonalises the updates of weight matrices (Jordan et al. 2024)."""
    decay: Literal["constant", "cosine"] = "cosine"
    """Learning rate over the run: constant, or decaying to 0 along a half cosine."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps during which the learning rate rises from 0."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of forward and backward passes; weights are always float32."""


class ScheduleChanges(TypedDict, total=False):
    """Fields of `Schedule` as keywords."""

    epochs: int
    batch: int
    learning_rate: float
    optimizer: Literal["adam", "muon"]
    decay: Literal["constant", "cosine"]
    warmup: float
    precision: Literal["float32", "bfloat16"]


class Distillation(Schedule):
    """How a student is distilled, from synthetic or from real images.

    A student with batch norm gets another optimizer, if neither that, nor its rate, nor its warm-up is chosen: see `FAST`.
    """

    later: ClassVar[dict[str, Any]] = {"optimizer": "adam", "shift": 0, "flip": False, "mixup": 0.0}

    epochs: int = Field(default=30, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=128, ge=1)
    """Number of images per step."""
    learning_rate: float = Field(default=2e-3, gt=0, le=1e30)
    """Peak learning rate of the optimizer. A student with batch norm has by default Muon, 0.02 and a warm-up of 0.1;
    0.002 if it starts from the teacher."""
    temperature: float | None = Field(default=None, gt=0)
    """Temperature of the KL divergence; by default chosen from the scale of the teacher's logits."""
    loss: Literal["kl", "mse"] = "kl"
    """Loss: KL divergence at `temperature`, or mean squared difference of centred logits."""
    shift: int | None = Field(default=0, ge=0)
    """Maximum random shift of each image in pixels, on the border of the set, or else of the release, or else black; the
    teacher labels every view."""
    flip: bool = False
    """Mirror each image left to right with probability 1/2; the teacher labels every view."""
    mixup: float = Field(default=0.0, ge=0, le=1)
    """Share of images that are blended with another one, with a weight uniform in 0 to 1."""


FAST: Mapping[str, Any] = {"optimizer": "muon", "learning_rate": 0.02, "warmup": 0.1}
"""Default optimizer of a student with batch norm: it needs several times fewer steps than Adam at 0.002."""
GENTLE = 0.002
"""Its learning rate for a student that starts from its teacher: higher rates destroy what it starts with."""


def with_fast_optimizer(settings: Distillation, start: str) -> Distillation:
    """The settings with `FAST`, unless optimizer, learning rate or warm-up were chosen."""
    if settings.model_fields_set & FAST.keys():
        return settings
    return settings.model_copy(update={**FAST, **({"learning_rate": GENTLE} if start == "teacher" else {})})


USES = (Use("temperature", "loss", lambda loss: loss == "kl", "`loss='kl'`"),)
"""Settings of `Distillation` that have an effect beside some others alone."""
