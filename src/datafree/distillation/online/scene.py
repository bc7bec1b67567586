"""Maps to images of something on a ground: a generator's maps become drawings, or things with a silhouette and a texture.

What most classified images have in common, without anybody's data. Our own addition to the generators of the field, whose
images all have the middle of the range as their mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..._core.arguments import check_fields
from ...data.tone import Ground, between, drawing, expose
from ...models.input_spec import InputSpec

__all__ = [
    "Kind",
    "Scene",
]

Kind = Literal["things", "drawings"]

EDGE, SIZE = (0.7, 6.0), (-2.0, 1.0)
"""Of silhouettes: contrast, and how much of the image they fill, likewise."""
CONTRAST, BRIGHTNESS = (0.1, 3.0), (-2.0, 2.0)
"""Of textures, likewise."""
TINT = 1.0
"""By how much the brightness of a colour may differ from the texture's."""
GRAIN = 2.0
"""Spread of the weights of coarse and fine: the higher, the more images of one grain."""
COARSEST = 4
"""Blobs of the coarsest grain along the image's smaller side."""


@dataclass(frozen=True)
class Scene:
    """What generated images are of. Which one an image is, `numbers` standard normal numbers say.

    A drawing is a map h (C, H, W) of mean 0 and variance 1 over the batch: sigmoid(2 a (h + b)) with a, log-uniform, and b,
    uniform, drawn for each image, from grey ones to black and white, on a `dark` ground with b below 0.5.

    A thing is a silhouette, from one map more, and a texture: each blended of its map and the map's blurs in drawn
    proportions, its own mirror image in a share of `symmetry` of the images, brought to mean 0 and variance 1, and passed
    through such a sigmoid. The image is ground + silhouette * (texture - ground); `any` ground is drawn too.
    """

    kind: Kind = "things"
    ground: Ground = "any"
    symmetry: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def maps(self, spec: InputSpec) -> int:
        """How many maps an image is made of."""
        return spec.shape[0] + (self.kind == "things")

    def numbers(self, spec: InputSpec) -> int:
        """How many numbers are drawn for it."""
        return 2 if self.kind == "drawings" else 2 * len(_sizes(spec.shape[1:])) + 5 + 2 * spec.shape[0]

    def compose(self, maps: Tensor, drawn: Tensor, spec: InputSpec) -> Tensor:
        """Maps (N, `maps`, H, W) and numbers (N, `numbers`) to pixels (N, C, H, W). A gradient flows to the maps."""
        pixels = self._drawing(maps, drawn) if self.kind == "drawings" else self._thing(maps, drawn, spec)
        return spec.low + (spec.high - spec.low) * pixels

    def _drawing(self, maps: Tensor, drawn: Tensor) -> Tensor:
        return drawing(maps, torch.special.ndtr(drawn.float())[:, :, None, None, None], self.ground)

    def _thing(self, maps: Tensor, drawn: Tensor, spec: InputSpec) -> Tensor:
        sizes, channels = _sizes(spec.shape[1:]), spec.shape[0]
        numbers = drawn.float()[:, :, None, None, None]
        weights = (GRAIN * numbers[:, : 2 * len(sizes)].unflatten(1, (2, -1))).softmax(2)
        share = torch.special.ndtr(numbers[:, 2 * len(sizes) :])
        mirrored = share[:, 0] < self.symmetry
        silhouette, texture = (
            _whole(_blended(own, weights[:, part], sizes), mirrored)
            for part, own in enumerate(maps.split([1, channels], 1))
        )
        tint = 0.0 if channels == 1 else TINT * (2 * share[:, 5 : 5 + channels, 0] - 1)
        silhouette = expose(silhouette, between(EDGE, share[:, 1], log=True), between(SIZE, share[:, 2]))
        texture = expose(texture, between(CONTRAST, share[:, 3], log=True), between(BRIGHTNESS, share[:, 4]) + tint)
        behind = _behind(self.ground, share[:, 5 + channels :, 0])
        return behind + silhouette * (texture - behind)


def _sizes(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """From the image's own to the coarsest, each half of the one before."""
    found = [size]
    while min(found[-1]) >= 2 * COARSEST - 1:
        found.append(tuple(-(-side // 2) for side in found[-1]))
    return found


def _blended(own: Tensor, weights: Tensor, sizes: list[tuple[int, ...]]) -> Tensor:
    """The map and its blurs, each of variance 1 before it is weighed."""
    found, small = weights[:, 0] * _plain(own), own
    for index, size in enumerate(sizes[1:], 1):
        small = _resized(small, size)  # at half the size the mean of 2 x 2
        found = torch.addcmul(found, weights[:, index], _plain(_resized(small, sizes[0])))
    return found


def _resized(own: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear, as two products of matrices: twice as fast as torch's own for one map, and no slower at 224 x 224."""
    rows, columns = (_weights(old, new, own) for old, new in zip(own.shape[2:], size, strict=True))
    return rows.T @ (own @ columns)


def _weights(old: int, new: int, like: Tensor) -> Tensor:
    """(old, new): what each old place gives to each new one."""
    places = torch.eye(old, dtype=like.dtype, device=like.device)
    return interpolate(places[None], size=new, mode="linear")[0]


def _whole(own: Tensor, mirrored: Tensor) -> Tensor:
    return _plain(torch.where(mirrored, own + own.flip(3), own))


def _plain(own: Tensor) -> Tensor:
    """Of mean 0 and variance 1 in each image."""
    own = own - own.mean((1, 2, 3), keepdim=True)
    return own * (own.square().mean((1, 2, 3), keepdim=True) + 1e-6).rsqrt()


def _behind(ground: Ground, share: Tensor) -> Tensor:
    """The ground (N, C, 1, 1) in [0, 1]: a quarter of `any` is at each end."""
    if ground == "any":
        return (2 * share - 0.5).clamp(0, 1)
    return torch.full_like(share, 1.0 if ground == "bright" else 0.0)
