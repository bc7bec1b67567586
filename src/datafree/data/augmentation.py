"""Images as networks are shown them: moved on a black ground, mirrored, cut, tinted. A gradient flows through all of it."""

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

BENT = Warp(degrees=15, shift=0, scale=0.2, shear=0.2, elastic=0.04)
"""How far images are bent at strength 1; shifts are drawn apart."""


class Augmentation(Settings):
    """Differentiable augmentation (Zhao et al. 2020): drawn anew for each image each time it is shown. All 0: none."""

    translate: float = Field(default=0.1, ge=0, lt=1)
    """Images are shown moved by up to this share of the smaller side, in whole pixels."""
    cutout: float = Field(default=0.0, ge=0, lt=1)
    """Side of a black rectangle cut out of each image shown, as a share of the image's sides."""
    colour: float = Field(default=0.5, ge=0, le=1)
    """Change of brightness, saturation and contrast of the images shown; 1 is the paper's. Grey images keep theirs."""

    bend: float = Field(default=1.0, ge=0, le=4)
    """Images are shown turned, scaled, sheared and elastically bent: at 1 by up to 15 degrees, a fifth and a fifth."""
    exposure: float = Field(default=0.9, ge=0, le=1)
    """Share of grey images shown whose brightness and contrast are drawn anew, up to black and white. Others keep theirs."""

    def steady(self) -> Augmentation:
        """The same without bends and exposures: for images that have been given theirs."""
        return Augmentation(translate=self.translate, cutout=self.cutout, colour=self.colour, bend=0, exposure=0)

    def show(self, pixels: Tensor, spec: InputSpec, rng: torch.Generator) -> Tensor:
        """Pixels (N, C, H, W) as they are shown, not clamped. No flips: digits and letters have a handedness."""
        if not len(pixels):
            return pixels
        if self.colour and pixels.shape[1] > 1:
            pixels = tinted(pixels, self.colour, rng, spec.high - spec.low)
        if self.bend:
            pixels = warp(pixels, _times(BENT, self.bend), rng, together=1)
        if self.exposure and pixels.shape[1] == 1:
            pixels = exposed(pixels, self.exposure, rng, spec)
        pixels = shifted(pixels, round(self.translate * min(pixels.shape[2:])), rng, spec.black)
        return cut(pixels, self.cutout, rng, spec.black) if self.cutout else pixels


def _times(how: Warp, strength: float) -> Warp:
    return Warp(**{name: own * strength for name, own in how})


def exposed(pixels: Tensor, share: float, rng: torch.Generator, spec: InputSpec) -> Tensor:
    """A share of the images (N, C, H, W) with contrast and brightness drawn anew, as drawings on a dark ground have them.

    Where an image is blurred, its brightness makes strokes thicker or thinner.
    """
    deviation, mean = torch.std_mean(pixels, (1, 2, 3), correction=0, keepdim=True)
    draws = torch.rand(3, len(pixels), 1, 1, 1, generator=rng).to(pixels)
    h = (pixels - mean) / (deviation + 1e-3 * (spec.high - spec.low))
    anew = spec.low + (spec.high - spec.low) * drawing(h, draws[:2].movedim(0, 1), "dark")
    return torch.where(draws[2] < share, anew, pixels)


def shifted(pixels: Tensor, most: int, rng: torch.Generator, ground: float = 0.0) -> Tensor:
    """Each image (N, C, H, W) moved by up to `most` pixels each way, on `ground`: a random crop of the padded image."""
    if not most:
        return pixels
    count, channels, height, width = pixels.shape
    moves = torch.randint(0, 2 * most + 1, (2, count), generator=rng)
    rows = (torch.arange(height) + moves[0][:, None])[:, None, :, None]
    columns = (torch.arange(width) + moves[1][:, None])[:, None, None, :]
    wide = pad(pixels, (most,) * 4, value=ground)
    return wide[torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns]


def mirrored(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """Each image left to right, or not, as a coin says."""
    return torch.where(torch.rand(len(pixels), 1, 1, 1, generator=rng) < 0.5, pixels.flip(3), pixels)


def cut(pixels: Tensor, share: float, rng: torch.Generator, ground: float = 0.0) -> Tensor:
    """Each image (N, C, H, W) with a rectangle of `share` of each side on `ground`; its centre is anywhere in the image."""
    sides = []
    for size in pixels.shape[2:]:
        width = round(share * size)
        first = torch.randint(size, (len(pixels), 1), generator=rng) - width // 2
        places = torch.arange(size)
        sides.append((places >= first) & (places < first + width))
    hole = sides[0][:, None, :, None] & sides[1][:, None, None, :]
    return pixels.masked_fill(hole.to(pixels.device), ground)


def tinted(pixels: Tensor, strength: float, rng: torch.Generator, width: float = 1.0) -> Tensor:
    """Brightness, then saturation, then contrast of each image changed; `width` is that of the pixels' range.

    At strength 1: brightness by up to a quarter of the range, saturation by a factor in [0, 2], contrast in [0.5, 1.5].
    """
    brightness, saturation, contrast = (
        ((torch.rand(len(pixels), generator=rng) * 2 - 1) * strength * most).view(-1, 1, 1, 1).to(pixels)
        for most in (width / 4, 1.0, 0.5)
    )
    pixels = pixels + brightness
    pixels = pixels + saturation * (pixels - pixels.mean(1, keepdim=True))
    return pixels + contrast * (pixels - pixels.mean((1, 2, 3), keepdim=True))
