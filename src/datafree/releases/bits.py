"""How many bits, where, and how a quantized network is fine-tuned: the settings."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from .._core.settings import Settings

__all__ = ["Bits", "TargetCPU", "ends", "largest_weight"]

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
