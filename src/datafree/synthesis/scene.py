"""Turns a generator's maps into images: drawings, or things with a silhouette and a texture on a background.

A prior that most classified images share, and that needs no data. It is our addition: the mean of images from the
published generators is always the middle of the range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .._core.arguments import check_fields
from ..data.tone import Ground, between, drawing, expose
from ..models.input_spec import InputSpec

__all__ = ["Kind", "Scene"]

Kind = Literal["things", "drawings"]

EDGE, SIZE = (0.7, 6.0), (-2.0, 1.0)
"""Ranges of the contrast and the offset of silhouettes; the offset controls how much of the image they fill."""
CONTRAST, BRIGHTNESS = (0.1, 3.0), (-2.0, 2.0)
"""Ranges of the contrast and brightness of textures."""
TINT = 1.0
"""Maximum difference of a colour channel's brightness from the texture's."""
GRAIN = 2.0
"""Scale of the random weights of coarse and fine maps: higher values make more images of a single grain."""
AXES, POWER = (0.4, 1.2), 3
"""Superellipse in which things are centred: range of the half-axes, as shares of half of each side, and exponent."""
COARSEST = 4
"""Number of cells of the coarsest grain along the image's smaller side."""


@dataclass(frozen=True)
class Scene:
    """How maps become images. `numbers` standard normal numbers per image control the random choices.

    A drawing is sigmoid(2 a (h + b)) of a map h (C, H, W) with mean 0 and variance 1 over the batch. Contrast a
    (log-uniform) and brightness b (uniform) are drawn per image, from grey to black and white; `dark` means b below
    0.5.

    A thing has a texture and a silhouette, which comes from one more map. Each is a random blend of its map and blurred
    versions of it, mirrored in a share of `symmetry` of the images, normalised to mean 0 and variance 1, and passed
    through such a sigmoid. The image is ground + silhouette * (texture - ground). The `any` ground is drawn per image.

    With `centre`, k (1 - |x / a|^3 - |y / b|^3), at least -2 k, is added to the normalised silhouette before that, where x
    and y are from -1 to 1, a and b are log-uniform and k is uniform from 0 to `centre`, all drawn per image: it becomes
    one thing in the middle.
    """

    kind: Kind = "things"
    ground: Ground = "any"
    symmetry: float = 0.5
    centre: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def maps(self, spec: InputSpec) -> int:
        """Number of maps per image."""
        return spec.shape[0] + (self.kind == "things")

    def numbers(self, spec: InputSpec) -> int:
        """Number of random numbers per image."""
        if self.kind == "drawings":
            return 2
        return 2 * len(_sizes(spec.shape[1:])) + 5 + 2 * spec.shape[0] + 3 * (self.centre > 0)

    def compose(self, maps: Tensor, numbers: Tensor, spec: InputSpec) -> Tensor:
        """Pixels (N, C, H, W) from maps (N, `maps`, H, W) and numbers (N, `numbers`); differentiable in the maps."""
        pixels = self._drawing(maps, numbers) if self.kind == "drawings" else self._thing(maps, numbers, spec)
        return spec.low + (spec.high - spec.low) * pixels

    def _drawing(self, maps: Tensor, numbers: Tensor) -> Tensor:
        return drawing(maps, torch.special.ndtr(numbers.float())[:, :, None, None, None], self.ground)

    def _thing(self, maps: Tensor, numbers: Tensor, spec: InputSpec) -> Tensor:
        sizes, channels = _sizes(spec.shape[1:]), spec.shape[0]
        numbers = numbers.float()[:, :, None, None, None]
        weights = (GRAIN * numbers[:, : 2 * len(sizes)].unflatten(1, (2, -1))).softmax(2)
        share = torch.special.ndtr(numbers[:, 2 * len(sizes) :])
        is_mirrored = share[:, 0] < self.symmetry
        silhouette, texture = (
            _mirrored(_blend(grain_maps, weights[:, part], sizes), is_mirrored)
            for part, grain_maps in enumerate(maps.split([1, channels], 1))
        )
        tint = 0.0 if channels == 1 else TINT * (2 * share[:, 5 : 5 + channels, 0] - 1)
        if self.centre:
            silhouette = silhouette + self.centre * _in_the_middle(share[:, 5 + 2 * channels :, 0], spec.shape[1:])
        silhouette = expose(silhouette, between(EDGE, share[:, 1], log=True), between(SIZE, share[:, 2]))
        texture = expose(texture, between(CONTRAST, share[:, 3], log=True), between(BRIGHTNESS, share[:, 4]) + tint)
        background = _background(self.ground, share[:, 5 + channels : 5 + 2 * channels, 0])
        return background + silhouette * (texture - background)


def _in_the_middle(share: Tensor, size: tuple[int, ...]) -> Tensor:
    """A map (N, 1, H, W) that is high within a superellipse in the middle, from `share` (N, 3, 1, 1) in [0, 1]."""
    y, x = (torch.linspace(-1, 1, side, device=share.device).abs() for side in size)
    across, down, strength = between(AXES, share[:, :1], log=True), between(AXES, share[:, 1:2], log=True), share[:, 2:]
    bump = 1 - (x / across) ** POWER - (y[:, None] / down) ** POWER
    return strength * bump.clamp(min=-2)


def _sizes(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Map sizes from the image's own to the coarsest, each half of the one before."""
    sizes = [size]
    while min(sizes[-1]) >= 2 * COARSEST - 1:
        sizes.append(tuple(-(-side // 2) for side in sizes[-1]))
    return sizes


def _blend(maps: Tensor, weights: Tensor, sizes: list[tuple[int, ...]]) -> Tensor:
    """Weighted sum of the maps and their blurs, each normalised to variance 1 first."""
    total, small = weights[:, 0] * _standardised(maps), maps
    for index, size in enumerate(sizes[1:], 1):
        small = _resized(small, size)  # halving the size averages 2 x 2 pixels
        total = torch.addcmul(total, weights[:, index], _standardised(_resized(small, sizes[0])))
    return total


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear resize as two matrix products: twice as fast as torch's for one map, and no slower at 224 x 224."""
    rows, columns = (_weights(source, target, maps) for source, target in zip(maps.shape[2:], size, strict=True))
    return rows.T @ (maps @ columns)


def _weights(source: int, target: int, like: Tensor) -> Tensor:
    """Interpolation weights (source, target) of each source position for each target position."""
    identity = torch.eye(source, dtype=like.dtype, device=like.device)
    return interpolate(identity[None], size=target, mode="linear")[0]


def _mirrored(maps: Tensor, is_mirrored: Tensor) -> Tensor:
    return _standardised(torch.where(is_mirrored, maps + maps.flip(3), maps))


def _standardised(maps: Tensor) -> Tensor:
    """Maps normalised to mean 0 and variance 1 per image."""
    maps = maps - maps.mean((1, 2, 3), keepdim=True)
    return maps * (maps.square().mean((1, 2, 3), keepdim=True) + 1e-6).rsqrt()


def _background(ground: Ground, share: Tensor) -> Tensor:
    """Background (N, C, 1, 1) in [0, 1]. `any`: a quarter of the images at each end, the rest uniform."""
    if ground == "any":
        return (2 * share - 0.5).clamp(0, 1)
    return torch.full_like(share, 1.0 if ground == "bright" else 0.0)
