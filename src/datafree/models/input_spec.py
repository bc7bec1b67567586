"""What a network takes and gives: the only place where image constants live."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from .._core.errors import UserError
from .._core.settings import Settings, parse
from .class_names import check_names

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["InputSpec"]


MOST_PIXELS = 1 << 24
"""Numbers in one image."""
LARGEST = 1e12
"""Of pixels, beyond which float32 cannot count; and, of their standard deviation, also the reciprocal."""
LEVELS = 256 * 2.0**-23
"""The share of the larger end of the range that 256 levels of float32 take there."""

NARROW = 0.05
"""The share of the range that images of another scale take at most."""
OVERSHOOT = 0.25
"""Of the range, by how much the weights below 0 of a bicubic or Lanczos resize take a corner between black and white beyond
it: 1.1 squared, and a little."""


class InputSpec(Settings):
    """Shape, normalisation and classes of a classifier. Pixels are float32 in [low, high], (N, C, H, W).

    The network itself sees ``(pixels - mean) / std``, channel by channel.
    """

    shape: tuple[int, int, int]
    """Channels, height, width."""
    mean: tuple[float, ...] = (0.0,)
    """Per channel, in pixel units; one number serves all channels."""
    std: tuple[float, ...] = (1.0,)
    """Per channel, in pixel units; one number serves all channels."""
    low: float = 0.0
    """The smallest value a pixel can have."""
    high: float = 1.0
    """The largest value a pixel can have."""
    classes: tuple[str, ...] = Field(min_length=2)
    """One name per class, in the order of the logits: 2 to 65,536 different ones of 1 to 255 characters."""

    @field_validator("shape")
    @classmethod
    def _positive(cls, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(shape) < 1 or math.prod(shape) > MOST_PIXELS:
            raise ValueError("channels, height and width, each at least 1 and at most 2^24 pixels together")
        return shape

    @field_validator("classes")
    @classmethod
    def _names(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        check_names(classes, "the network")
        return classes

    @classmethod
    def stored(cls, values: Any, source: object) -> InputSpec:
        """The spec in the file `source`. Names that are there twice, as in files of earlier versions, are a `Notice`."""
        names = values.get("classes") if isinstance(values, Mapping) else None
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            return parse(cls, values)  # raises
        check_names(names, str(source), stored=True)
        numbered = parse(cls, {**values, "classes": [str(place) for place in range(len(names))]})
        return numbered.model_copy(update={"classes": tuple(names)})

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.shape[0]):
                raise ValueError(f"{name} with 1 number or one for each of {self.shape[0]} channels")
        if min(self.std) <= 0 or not self.low < self.high:
            raise ValueError("std above 0 and low below high")
        largest = max(map(abs, (self.low, self.high, *self.mean)))
        if largest > LARGEST or not 1 / LARGEST <= min(self.std) <= max(self.std) <= LARGEST:
            raise ValueError(f"low, high and mean within {LARGEST:g} of 0, and std from {1 / LARGEST:g} to {LARGEST:g}")
        if self.high - self.low < LEVELS * max(abs(self.low), abs(self.high)):
            raise ValueError("low and high so far apart that float32 has 256 levels between them")
        return self

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return math.prod(self.shape)

    @property
    def normalises(self) -> bool:
        """Whether the network sees anything else than the pixels themselves."""
        return set(self.mean) != {0.0} or set(self.std) != {1.0}

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) to what the network's module takes."""
        if not self.normalises:
            return pixels
        return (pixels - self._channels(pixels, self.mean)) / self._channels(pixels, self.std)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return inputs * self._channels(inputs, self.std) + self._channels(inputs, self.mean)

    def clamp(self, pixels: Tensor) -> Tensor:
        """Pixels cut to [low, high]."""
        return pixels.clamp(self.low, self.high)

    def rescaled(self, pixels: Tensor, to: InputSpec) -> Tensor:
        """Pixels of this spec as the same images in the range of `to`; what lies outside one lies outside the other."""
        if (self.low, self.high) == (to.low, to.high):
            return pixels
        return (pixels - self.low) * ((to.high - to.low) / (self.high - self.low)) + to.low

    @property
    def black(self) -> float:
        """What images are padded with: the smallest value that a pixel can have."""
        return self.low

    def unnormalised(self) -> InputSpec:
        """This spec for a network that normalises for itself."""
        return self.model_copy(update={"mean": (0.0,), "std": (1.0,)})

    def check(self, pixels: Tensor) -> None:
        """Raises UserError unless `pixels` is a finite (N, C, H, W) batch of this shape within [low, high]."""
        self.check_finite(pixels)
        if not len(pixels):
            return
        low, high = map(float, pixels.aminmax())
        slack = 1e-6 * max(1.0, abs(self.low), abs(self.high))  # pixels are float32, the range is not
        if low < self.low - slack or high > self.high + slack:
            advice, over = "scale the images first", OVERSHOOT * (self.high - self.low)
            if (
                low >= self.low - over
                and high <= self.high + over
                and max(self.low - low, high - self.high) <= (high - low) / 4
            ):
                advice = f"clip them with .clamp({self.low:g}, {self.high:g}), if a resize made them overshoot"
            raise UserError(f"pixels from {low:.4g} to {high:.4g}, wanted {self.low:g} to {self.high:g}; {advice}")

    def check_set(self, pixels: Tensor) -> None:
        """As `check`, of all images together: raises UserError too where they take a twentieth of the range or less."""
        self.check(pixels)
        if not len(pixels):
            return
        low, high = map(float, pixels.aminmax())
        if high - low < NARROW * (self.high - self.low):
            raise UserError(
                f"pixels from {low:.4g} to {high:.4g} alone, wanted images in a range of {self.low:g} to {self.high:g}, of "
                "which these are one colour; scale them to that range"
            )

    def check_finite(self, pixels: Tensor) -> None:
        """As `check`, without the range, which synthetic images may exceed."""
        self.check_form(pixels)
        if len(pixels) and not all(map(math.isfinite, map(float, pixels.aminmax()))):  # of which NaN makes NaN
            raise UserError("images with NaN or infinity, wanted finite pixels; clean the data")

    def check_form(self, pixels: Tensor, *, stored: bool = False) -> None:
        """Raises UserError unless `pixels` is a dense float32 or float64 tensor (N, C, H, W) of this shape.

        No value is read. Where `stored`, uint8 is accepted too: bytes, which stand for the range from low to high.
        """
        import torch

        from .._core.arguments import check_argument

        check_argument("pixels", pixels, torch.Tensor)
        if tuple(pixels.shape[1:]) != self.shape:
            raise UserError(
                f"images of shape {tuple(pixels.shape[1:])}, wanted {self.shape} (channels, height, width); "
                f"{self._reshaped(tuple(pixels.shape))}"
            )
        if pixels.dtype not in (torch.float32, torch.float64, *([torch.uint8] if stored else [])):
            scaled = ".float() / 255, where they are bytes" if pixels.dtype == torch.uint8 else ".float()"
            raise UserError(
                f"images of {pixels.dtype}, expected torch.float32 from {self.low:g} to {self.high:g}; use "
                f"{'real numbers' if pixels.is_complex() else scaled}"
            )
        if pixels.layout != torch.strided or pixels.device.type == "meta":
            got, advice = (
                ("without values (device meta)", "load them")
                if pixels.device.type == "meta"
                else (f"in the layout {pixels.layout}", "use .to_dense()")
            )
            raise UserError(f"images {got}, expected a dense tensor with values; {advice}")

    def _reshaped(self, shape: tuple[int, ...]) -> str:
        """What to do about images of another shape."""
        kinds = {1: "grey", 3: "colour"}
        channels, height, width = self.shape
        if shape == self.shape:
            return "that is one image: give a batch, with [None]"
        if shape[1:] == (height, width, channels):
            return "move the channels first, with .permute(0, 3, 1, 2)"
        if channels == 1 and shape[1:] == (height, width):
            return "add the dimension of the channel, with [:, None]"
        if len(shape) == 2 and shape[1] == self.pixels:
            return f"give them their shape, with .reshape(-1, {channels}, {height}, {width})"
        if len(shape) == 4 and {shape[1], channels} == kinds.keys():
            both = f"the images are {kinds[shape[1]]} and the network takes {kinds[channels]}"
            return f"{both}: convert them, or use another network"
        return "use data of that shape or another network"

    @staticmethod
    def _channels(like: Tensor, values: tuple[float, ...]) -> Tensor:
        return like.new_tensor(values).view(1, -1, 1, 1)
