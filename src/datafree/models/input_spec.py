"""The input and output of a network: the only place where image constants are defined."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from .._core.errors import UserError, unknown
from .._core.settings import Settings, parse
from .class_names import check_names

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Border", "InputSpec"]

Border = Literal["black", "mean"]
"""Colour on which training images were shifted: black, or the mean, which is 0 after normalisation."""


MOST_PIXELS = 1 << 24
"""Maximum number of values in one image."""
LARGEST = 1e12
"""Largest pixel and standard deviation; the reciprocal is the smallest standard deviation. Beyond it float32 cannot
count.
"""
LEVELS = 256 * 2.0**-23
"""Smallest width of the range as a share of its larger end, so that float32 has 256 levels in it."""

NARROW = 0.05
"""Share of the range below which images are taken for those of another scale."""
OVERSHOOT = 0.25
"""Share of the range by which a bicubic or Lanczos resize may exceed it, at a corner between black and white: 1.1
squared.
"""


class InputSpec(Settings):
    """Shape, normalisation and classes of a classifier. Pixels are float32 in [low, high], (N, C, H, W).

    The network's module gets ``(pixels - mean) / std``, channel by channel.
    """

    later: ClassVar[dict[str, Any]] = {"border": None}
    descriptive: ClassVar[set[str]] = {"classes", "border"}
    """Fields that do not change what the network computes."""

    shape: tuple[int, int, int]
    """Channels, height, width."""
    mean: tuple[float, ...] = (0.0,)
    """Mean per channel, in pixel units; one number stands for all channels."""
    std: tuple[float, ...] = (1.0,)
    """Standard deviation per channel, in pixel units; one number stands for all channels."""
    low: float = 0.0
    """Smallest value of a pixel."""
    high: float = 1.0
    """Largest value of a pixel."""
    classes: tuple[str, ...] = Field(min_length=2)
    """One name per class, in the order of the logits: 2 to 65,536 different names of 1 to 255 characters."""

    border: tuple[float, ...] | None = None
    """Colour of the border on which the training images were shifted, in pixel units; one number stands for all channels.

    `mean` if they were shifted after normalisation, as in many scripts. None: not known, and taken for black. It does not
    change what the network computes, but its batch norms contain such borders.
    """

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
        """The spec in the file `source`. Repeated names, as in files of earlier versions, cause a `Notice`."""
        names = values.get("classes") if isinstance(values, Mapping) else None
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            return parse(cls, values)  # raises
        check_names(names, str(source), stored=True)
        numbered = parse(cls, {**values, "classes": [str(place) for place in range(len(names))]})
        return numbered.model_copy(update={"classes": tuple(names)})

    @model_validator(mode="after")
    def _consistent(self) -> InputSpec:
        for name in ("mean", "std", "border"):
            values = getattr(self, name)
            if values is not None and len(values) not in (1, self.shape[0]):
                raise ValueError(f"{name} with 1 number or one for each of {self.shape[0]} channels")
        if min(self.std) <= 0 or not self.low < self.high:
            raise ValueError("std above 0 and low below high")
        largest = max(map(abs, (self.low, self.high, *self.mean, *(self.border or ()))))
        if largest > LARGEST or not 1 / LARGEST <= min(self.std) <= max(self.std) <= LARGEST:
            raise ValueError(
                f"low, high, mean and border within {LARGEST:g} of 0, and std from {1 / LARGEST:g} to {LARGEST:g}"
            )
        if self.high - self.low < LEVELS * max(abs(self.low), abs(self.high)):
            raise ValueError("low and high so far apart that float32 has 256 levels between them")
        return self

    @property
    def pixels(self) -> int:
        """Number of values in one image."""
        return math.prod(self.shape)

    @property
    def normalises(self) -> bool:
        """Whether the network's module gets anything other than the pixels themselves."""
        return set(self.mean) != {0.0} or set(self.std) != {1.0}

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels (N, C, H, W) as the network's module takes them."""
        if not self.normalises:
            return pixels
        return (pixels - self._channels(pixels, self.mean)) / self._channels(pixels, self.std)

    def denormalize(self, inputs: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return inputs * self._channels(inputs, self.std) + self._channels(inputs, self.mean)

    def clamp(self, pixels: Tensor) -> Tensor:
        """Pixels cut to [low, high]."""
        return pixels.clamp(self.low, self.high)

    def rescaled(self, pixels: Tensor, target: InputSpec) -> Tensor:
        """Pixels of this spec, scaled linearly to the range of `target`; pixels beyond this range stay beyond the new
        one.
        """
        if (self.low, self.high) == (target.low, target.high):
            return pixels
        return (pixels - self.low) * ((target.high - target.low) / (self.high - self.low)) + target.low

    @property
    def black(self) -> float:
        """The value of a black pixel: the smallest."""
        return self.low

    def with_border(self, border: Border) -> InputSpec:
        """This spec with a black border, or one of the mean colour. Raises UserError for another word."""
        if border not in get_args(Border):
            raise unknown("border", str(border), get_args(Border))
        return self.model_copy(update={"border": self.mean if border == "mean" else (self.black,)})

    def border_colour(self, pixels: Tensor) -> Tensor:
        """The colour of the border on which images are shifted (1, C, 1, 1) or (1, 1, 1, 1), like `pixels`."""
        return self._channels(pixels, (self.black,) if self.border is None else self.border)

    def unnormalised(self) -> InputSpec:
        """This spec for a network that normalises its input itself."""
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
            raise UserError(f"pixels from {low:.4g} to {high:.4g}, expected {self.low:g} to {self.high:g}; {advice}")

    def check_set(self, pixels: Tensor) -> None:
        """Like `check`, for all images together: also raises UserError if they cover less than a twentieth of the range."""
        self.check(pixels)
        if not len(pixels):
            return
        low, high = map(float, pixels.aminmax())
        if high - low < NARROW * (self.high - self.low):
            raise UserError(
                f"pixels from {low:.4g} to {high:.4g} only, expected images that cover {self.low:g} to {self.high:g}; in "
                "that range these are one colour; scale them to it"
            )

    def check_finite(self, pixels: Tensor) -> None:
        """Like `check`, without the range, which synthetic images may exceed."""
        self.check_form(pixels)
        if len(pixels) and not all(map(math.isfinite, map(float, pixels.aminmax()))):  # the range of NaN is NaN
            raise UserError("images with NaN or infinity, expected finite pixels; clean the data")

    def check_form(self, pixels: Tensor, *, stored: bool = False) -> None:
        """Raises UserError unless `pixels` is a dense float32 or float64 tensor (N, C, H, W) of this shape.

        No value is read. With `stored`, uint8 is accepted too: bytes that stand for the range from low to high.
        """
        import torch

        from .._core.arguments import check_argument

        check_argument("pixels", pixels, torch.Tensor)
        if tuple(pixels.shape[1:]) != self.shape:
            raise UserError(
                f"images of shape {tuple(pixels.shape[1:])}, expected {self.shape} (channels, height, width); "
                f"{self._reshaped(tuple(pixels.shape))}"
            )
        if pixels.dtype not in (torch.float32, torch.float64, *([torch.uint8] if stored else [])):
            scaled = ".float() / 255, if they are bytes" if pixels.dtype == torch.uint8 else ".float()"
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
        """Advice for images of another shape."""
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
            difference = f"the images are {kinds[shape[1]]} and the network takes {kinds[channels]}"
            return f"{difference}: convert them, or use another network"
        return "use data of that shape or another network"

    @staticmethod
    def _channels(pixels: Tensor, values: tuple[float, ...]) -> Tensor:
        return pixels.new_tensor(values).view(1, -1, 1, 1)
