"""A generator of images, sized to the teacher it works for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle
from torch.utils.flop_counter import FlopCounterMode

from ..._core.seeds import seed_of, stream
from ...models.input_spec import InputSpec
from ...models.network import Network, frozen
from .scene import Scene

__all__ = ["Generator", "new_generator", "untrained", "width_for"]

WIDTHS = (8, 16, 32, 64, 128, 256)
TAPS = [[[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]]
"""Of a kernel's side over doubled maps (last axis), those that fall on each pixel around, for either half of a pixel."""
PHASES = [
    [[[0.0, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]],
    [[[0, 0, 0], [1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]],
]
"""Of a kernel's side (last axis) over maps given as phases: the tap that falls on each phase of each pixel around, for
either phase of the result."""
LANES = 8
"""Numbers that a processor takes at a time: fewer maps than these are worked on as four times as many of half the size."""
GENERATORS, MOST, PIXELS = 8, 2048, 1 << 24
"""Of `untrained`: how many, their images, and those images' pixels."""


class Generator(nn.Module):
    """Latents (N, Z) to pixels (N, C, H, W) in the spec's range: linear, then twice upsampled and convolved.

    The shape is DAFL's and PRE-DFKD's with fewer channels. Its batch norms have no running statistics: it is
    used in batches alone, and so no phase that only draws from it can leave a trace in it.

    With a scene it makes the maps that images are composed of, and further latents say how (`scene.Scene`). Without,
    every image has the middle of the range as its mean, which few photographs and no digits have.
    """

    def __init__(self, spec: InputSpec, latent: int = 100, width: int = 32, *, scene: Scene | None = None):
        super().__init__()
        channels, height, width_px = spec.shape
        self.spec, self.latent, self.width, self.scene = spec, latent, width, scene
        self.start = (math.ceil(height / 4), math.ceil(width_px / 4))
        self.size = (height, width_px)
        narrow, maps = max(width // 2, 4), channels if scene is None else scene.maps(spec)
        few = narrow < LANES
        self.first = nn.Linear(latent, width * self.start[0] * self.start[1])
        self.body = nn.Sequential(
            _norm(width), nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), _norm(width),
            nn.LeakyReLU(0.2, inplace=True), Doubled(width, narrow, phases=few),
            PhaseNorm(narrow, track_running_stats=False) if few else _norm(narrow), nn.LeakyReLU(0.2, inplace=True),
            Merged(narrow, maps) if few else nn.Conv2d(narrow, maps, 3, padding=1),
            nn.BatchNorm2d(maps, affine=False, track_running_stats=False),
        )  # fmt: skip

    @property
    def drawn(self) -> int:
        """Z: standard normal numbers that an image is made of."""
        return self.latent + (0 if self.scene is None else self.scene.numbers(self.spec))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.body(self.first(latents[:, : self.latent]).view(len(latents), self.width, *self.start))
        x = x[:, :, : self.size[0], : self.size[1]]
        if self.scene is not None:
            return self.scene.compose(x, latents[:, self.latent :], self.spec)
        return self.spec.low + (self.spec.high - self.spec.low) * torch.sigmoid(2 * x)


class Doubled(nn.Conv2d):
    """A convolution (3 x 3, padded by 1) of maps (N, C, H, W) doubled by nearest neighbours, done at half the size.

    Each of the four places that a pixel becomes sees 2 x 2 pixels, by sums of the kernel's taps (the sub-pixel convolution
    of Shi et al. 2016). Same numbers up to rounding. The maps (N, C', 2 H, 2 W) are returned as they are, or as their
    `phases` (N, 4 C', H, W), the first phase's maps first.
    """

    taps: Tensor

    def __init__(self, channels: int, maps: int, *, phases: bool = False):
        super().__init__(channels, maps, 3, padding=1)
        self.phases = phases
        self.register_buffer("taps", torch.tensor(TAPS), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        order = "pqoiab" if self.phases else "opqiab"
        weight = torch.einsum(f"oiyx,pay,qbx->{order}", self.weight, self.taps, self.taps).flatten(0, 2)
        bias = None
        if self.bias is not None:
            bias = self.bias.repeat(4) if self.phases else self.bias.repeat_interleave(4)
        made = conv2d(input, weight, bias, padding=1)
        return made if self.phases else pixel_shuffle(made, 2)


class PhaseNorm(nn.BatchNorm2d):
    """A batch norm of maps (N, C, 2 H, 2 W) that are given as four phases (N, 4 C, H, W).

    By hand, over rows of 4 C numbers: torch's own takes three times as long for few channels.
    """

    def forward(self, input: Tensor) -> Tensor:
        rows = input.permute(0, 2, 3, 1).to(torch.promote_types(input.dtype, torch.float32))
        rows = rows - self._mean(rows).repeat(4)
        scale = self.weight * (self._mean(rows.square()) + self.eps).rsqrt()
        return torch.addcmul(self.bias.repeat(4), rows, scale.repeat(4)).permute(0, 3, 1, 2)

    def _mean(self, rows: Tensor) -> Tensor:
        return rows.mean((0, 1, 2)).view(4, -1).mean(0)


class Merged(nn.Conv2d):
    """A convolution (3 x 3, padded by 1) of maps (N, C, 2 H, 2 W) that are given as four phases, to (N, C', 2 H, 2 W)."""

    taps: Tensor

    def __init__(self, channels: int, maps: int):
        super().__init__(channels, maps, 3, padding=1)
        self.register_buffer("taps", torch.tensor(PHASES), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        weight = torch.einsum("oiyx,pacy,qbdx->opqabicd", self.weight, self.taps, self.taps)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return pixel_shuffle(conv2d(input, weight.flatten(3, 5).flatten(0, 2), bias, padding=1), 2)


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, track_running_stats=False)


def new_generator(
    teacher: Network, *, seed: int, latent: int = 100, width: int | None = None, scene: Scene | None = None
) -> Generator:
    """A fresh generator for the teacher's images; the same weights for the same seed. `width` None: sized to the teacher."""
    width = width or width_for(teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "generator", latent, width))
        return Generator(teacher.spec, latent, width, scene=scene).to(teacher.device)


@torch.no_grad()
def untrained(teacher: Network, scene: Scene | None, *, seed: int) -> Tensor:
    """Images (N, C, H, W) of several generators that nobody has trained: 2,048, or fewer of large ones."""
    count = max(GENERATORS, min(MOST, PIXELS // teacher.spec.pixels) // GENERATORS * GENERATORS)
    made, width = [], width_for(teacher)
    for index in range(GENERATORS):
        own = new_generator(teacher, seed=seed_of(seed, "untrained", index), width=width, scene=scene)
        latents = torch.randn((count // GENERATORS, own.drawn), generator=stream(seed, "untrained", index))
        made.append(own(latents.to(teacher.device)).cpu())
    return torch.cat(made)


def width_for(teacher: Network) -> int:
    """The widest generator whose forward pass costs no more than the teacher's; at least the narrowest."""
    most = _flops(teacher.module, teacher.logits, torch.zeros(2, *teacher.spec.shape, device=teacher.device))
    costs = _generator_flops(teacher.spec)  # pyright: ignore[reportArgumentType]: being frozen, it has a hash
    fitting = [width for width, flops in costs.items() if flops <= most]
    return max(fitting, default=WIDTHS[0])


@cache
def _generator_flops(spec: InputSpec) -> dict[int, int]:
    """Operations of a forward pass of two images, by width; once a process, since building all takes a while."""
    with torch.random.fork_rng(devices=[]):
        generators = {width: Generator(spec, 100, width) for width in WIDTHS}
    return {width: _flops(generator, generator, torch.zeros(2, 100)) for width, generator in generators.items()}


def _flops(module: nn.Module, call: Callable[[Tensor], Tensor], given: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), frozen(module):
        call(given)
    return counter.get_total_flops()
