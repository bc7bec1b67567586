"""How many bits, where, and how a quantized network is fine-tuned: the settings."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from ..schedule import EPOCHS, Distillation
from ..settings import Settings

__all__ = ["Bits", "FineTuning", "TargetCPU", "ends", "largest_weight"]

TargetCPU: TypeAlias = Literal["any", "vnni"]
"""`any`: weights of 8 bits that meet activations of 8 bits use 7 of them, so that sums of two products fit 16 bits, to which
x86 processors without VNNI cut them in onnxruntime. `vnni`: all 8."""


def ends(first: object, last: object) -> str:
    """The bits of the first and last layer in words, in brackets; nothing where none were chosen."""
    found = [f"{what} layer {own} bits" for what, own in (("first", first), ("last", last)) if own is not None]
    return f" ({', '.join(found)})" if found else ""


def largest_weight(weights: int, activations: int, target_cpu: TargetCPU) -> int:
    """The end of a weight's grid -end..end: 127 at 8 bits; 63 where `target_cpu` is any and activations have 8 bits too."""
    if target_cpu == "any" and weights == activations == 8:
        return 2**6 - 1
    return 2 ** (weights - 1) - 1


class Bits(Settings):
    """Uniform quantization: weights symmetric by output channel, activations by tensor, with a zero point.

    Inputs of conv and linear layers are rounded. With 8-bit activations the operands of residual additions and pools are
    too, so that an integer kernel runs them; with fewer they stay in floating point, as in the field's tables.
    """

    weights: int = Field(default=8, ge=2, le=16)
    """Bits of the weights; below 8 they are simulated, since no such kernels exist."""
    activations: int = Field(default=8, ge=2, le=16)
    """Bits of the activations; below 8 they are simulated."""
    first: int | None = Field(default=None, ge=2, le=16)
    """Bits of the first layer's weights; as the others by default. The image itself always has 8 or more."""
    last: int | None = Field(default=None, ge=2, le=16)
    """Bits of the last layer's weights and input; as the others by default."""

    @property
    def name(self) -> str:
        """`w4a4`, as the field writes it."""
        return f"w{self.weights}a{self.activations}"

    @property
    def words(self) -> str:
        """The name, and the ends where they differ."""
        return self.name + ends(self.first, self.last)

    @property
    def integer(self) -> bool:
        """Whether an integer kernel computes what is simulated: all weights within 8 bits, activations exactly 8."""
        return self.activations == 8 and self.last in (None, *range(2, 9)) and max(self.weights, self.first or 2) <= 8

    @property
    def simulated(self) -> bool:
        """Whether some number of bits has no kernel, so that size and speed are those of a wider one."""
        return {self.weights, self.activations, self.first, self.last} - {8, None} != set()


class FineTuning(Distillation):
    """How a quantized network is fine-tuned: Adam on weights and grids alike."""

    epochs: int = Field(default=30, ge=1, le=EPOCHS)
    """Number of passes over the images."""
    batch: int = Field(default=64, ge=1)
    """Number of images per step, augmented copies counted."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1e30)
    """Highest learning rate of Adam."""
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
