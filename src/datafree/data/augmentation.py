"""Differentiable augmentation: shifts, warps, cutout, colour and exposure."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from .._core.settings import Settings
from ..models.input_spec import InputSpec
from .tone import drawing
from .warp import Warp, warp

__all__ = ["Augmentation", "cut", "exposed", "mirrored", "shifted", "tinted"]

WARP = Warp(degrees=15, shift=0, scale=0.2, shear=0.2, elastic=0.04)
"""Warp at strength 1; shifts are drawn separately."""


class Augmentation(Settings):
    """Differentiable augmentation (Zhao et al. 2020), drawn independently for each image at each use. All 0: none."""

    translate: float = Field(default=0.1, ge=0, lt=1)
    """Maximum random shift as a share of the smaller side, in whole pixels."""
    cutout: float = Field(default=0.0, ge=0, lt=1)
    """Size of a random black rectangle in each image, as a share of the image's sides."""
    colour: float = Field(default=0.5, ge=0, le=1)
    """Strength of changes in brightness, saturation and contrast of colour images; 1 as in the paper."""

    bend: float = Field(default=1.0, ge=0, le=4)
    """Strength of rotation, scaling, shear and elastic warps; at 1 up to 15 degrees, 20 % and 20 %."""
    exposure: float = Field(default=0.9, ge=0, le=1)
    """Share of grey images with random brightness and contrast, up to black and white."""

    def steady(self) -> Augmentation:
        """The same without warps and exposure, for images that already have theirs."""
        return Augmentation(translate=self.translate, cutout=self.cutout, colour=self.colour, bend=0, exposure=0)

    def show(self, pixels: Tensor, spec: InputSpec, rng: torch.Generator) -> Tensor:
        """Augmented pixels (N, C, H, W), not clamped. No mirroring, because digits and letters are not symmetric."""
        if not len(pixels):
            return pixels
        if self.colour and pixels.shape[1] > 1:
            pixels = tinted(pixels, self.colour, rng, spec.high - spec.low)
        if self.bend:
            pixels = warp(pixels, _scaled(WARP, self.bend), rng, together=1)
        if self.exposure and pixels.shape[1] == 1:
            pixels = exposed(pixels, self.exposure, rng, spec)
        pixels = shifted(pixels, round(self.translate * min(pixels.shape[2:])), rng, spec.border_colour(pixels))
        return cut(pixels, self.cutout, rng, spec.black) if self.cutout else pixels


def _scaled(warp_settings: Warp, strength: float) -> Warp:
    return Warp(**{name: value * strength for name, value in warp_settings})


def exposed(pixels: Tensor, share: float, rng: torch.Generator, spec: InputSpec) -> Tensor:
    """A share of the images (N, C, H, W) with random contrast and brightness, like drawings on a dark background.

    In blurred images, brightness changes the thickness of strokes.
    """
    deviation, mean = torch.std_mean(pixels, (1, 2, 3), correction=0, keepdim=True)
    draws = torch.rand(3, len(pixels), 1, 1, 1, generator=rng).to(pixels)
    h = (pixels - mean) / (deviation + 1e-3 * (spec.high - spec.low))
    exposed_pixels = spec.low + (spec.high - spec.low) * drawing(h, draws[:2].movedim(0, 1), "dark")
    return torch.where(draws[2] < share, exposed_pixels, pixels)


def shifted(pixels: Tensor, limit: int, rng: torch.Generator, border: Tensor | float = 0.0) -> Tensor:
    """Each image (N, C, H, W) shifted by up to `limit` pixels: a random crop of the image padded with `border`, a number or
    (1, C, 1, 1).
    """
    if not limit:
        return pixels
    count, channels, height, width = pixels.shape
    moves = torch.randint(0, 2 * limit + 1, (2, count), generator=rng)
    rows = (torch.arange(height) + moves[0][:, None])[:, None, :, None]
    columns = (torch.arange(width) + moves[1][:, None])[:, None, None, :]
    if isinstance(border, torch.Tensor):
        wide = border.expand(count, channels, height + 2 * limit, width + 2 * limit).clone()
        wide[..., limit:-limit, limit:-limit] = pixels
    else:
        wide = pad(pixels, (limit,) * 4, value=border)
    return wide[torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns]


def mirrored(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Mirrors each image left to right with probability 1/2."""
    is_mirrored = torch.rand(len(pixels), 1, 1, 1, generator=rng) < 0.5
    return torch.where(is_mirrored.to(pixels.device), pixels.flip(3), pixels)


def cut(pixels: Tensor, share: float, rng: torch.Generator, ground: float = 0.0) -> Tensor:
    """Each image (N, C, H, W) with a random rectangle of `share` of each side set to `ground`."""
    sides = []
    for size in pixels.shape[2:]:
        width = round(share * size)
        start = torch.randint(size, (len(pixels), 1), generator=rng) - width // 2
        positions = torch.arange(size)
        sides.append((positions >= start) & (positions < start + width))
    hole = sides[0][:, None, :, None] & sides[1][:, None, None, :]
    return pixels.masked_fill(hole.to(pixels.device), ground)


def tinted(pixels: Tensor, strength: float, rng: torch.Generator, width: float = 1.0) -> Tensor:
    """Random changes of brightness, then saturation, then contrast per image; `width` is that of the pixels' range.

    At strength 1: brightness by up to a quarter of the range, saturation by a factor in [0, 2], contrast in [0.5, 1.5].
    """
    brightness, saturation, contrast = (
        ((torch.rand(len(pixels), generator=rng) * 2 - 1) * strength * maximum).view(-1, 1, 1, 1).to(pixels)
        for maximum in (width / 4, 1.0, 0.5)
    )
    pixels = pixels + brightness
    pixels = pixels + saturation * (pixels - pixels.mean(1, keepdim=True))
    return pixels + contrast * (pixels - pixels.mean((1, 2, 3), keepdim=True))
