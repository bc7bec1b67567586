"""The number of bits of weights and activations, as settings."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from .._core.settings import Settings
from .._core.unused import unused

__all__ = ["Bits", "TargetCPU", "check_target_cpu", "ends", "largest_weight"]

TargetCPU: TypeAlias = Literal["any", "vnni"]
"""`any`: 8-bit weights that are multiplied by 8-bit activations use 7 bits, so that sums of two products fit into the
16 bits that onnxruntime has for them on x86 processors without VNNI. `vnni`: all 8 bits."""


def ends(first: object, last: object) -> str:
    """The bits of the first and last layer in words, in brackets; empty if neither was chosen."""
    parts = [f"{layer} layer {bits} bits" for layer, bits in (("first", first), ("last", last)) if bits is not None]
    return f" ({', '.join(parts)})" if parts else ""


def largest_weight(weights: int, activations: int, target_cpu: TargetCPU) -> int:
    """The end of a weight's grid -end..end: 127 at 8 bits; 63 if `target_cpu` is any and activations have 8 bits too."""
    if target_cpu == "any" and weights == activations == 8:
        return 2**6 - 1
    return 2 ** (weights - 1) - 1


class Bits(Settings):
    """Uniform quantization: weights symmetric per output channel, activations per tensor, with a zero point.

    Inputs of conv and linear layers are rounded. With 8-bit activations, so are the operands of residual additions and
    pools, which then run in integer kernels; with fewer bits they stay in floating point, as in published tables.
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
        """The usual notation, `w4a4`."""
        return f"w{self.weights}a{self.activations}"

    @property
    def words(self) -> str:
        """The name, and the bits of the first and last layer if they were chosen."""
        return self.name + ends(self.first, self.last)

    @property
    def integer(self) -> bool:
        """Whether an integer kernel computes what is simulated: all weights within 8 bits, activations exactly 8."""
        return self.activations == 8 and self.last in (None, *range(2, 9)) and max(self.weights, self.first or 2) <= 8

    @property
    def simulated(self) -> bool:
        """Whether some number of bits has no kernel, so that size and speed are those of a wider one."""
        return {self.weights, self.activations, self.first, self.last} - {8, None} != set()


def check_target_cpu(target_cpu: TargetCPU, bits: Bits) -> None:
    """Raises UserError for a chosen processor where no layer has 8-bit weights and inputs, which it decides on."""
    layers = [
        (bits.weights, bits.activations),
        (bits.first or bits.weights, max(bits.activations, 8)),  # the image has 8 bits or more
        (bits.last or bits.weights, bits.last or bits.activations),
    ]
    if target_cpu != "any" and (8, 8) not in layers:
        unused("target_cpu", target_cpu, f"with {bits.words}", "8-bit weights of a layer with 8-bit inputs")
