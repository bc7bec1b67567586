"""The image generator, sized to its teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle
from torch.utils.flop_counter import FlopCounterMode

from .._core.memory import check_cost
from .._core.seeds import seed_of, stream
from ..models.input_spec import InputSpec
from ..models.network import Network, frozen
from ..records.cost import FLOAT32
from .scene import Scene

__all__ = ["Generator", "check_generator", "new_generator", "untrained", "width_for"]

WIDTHS = (8, 16, 32, 64, 128, 256)
TAPS = [[[1.0, 0, 0], [0, 1, 1], [0, 0, 0]], [[0, 0, 0], [1, 1, 0], [0, 0, 1]]]
"""Taps of one side of a 3 x 3 kernel (last axis) that read each neighbour, for both halves of a doubled pixel."""
PHASES = [
    [[[0.0, 0, 0], [0, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]],
    [[[0, 0, 0], [1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]],
]
"""Tap of one side of a kernel (last axis) that reads each phase of each neighbour, for both resulting phases."""
LANES = 8
"""Width of a CPU vector. Layers with fewer maps are computed with four times as many maps of half the size."""
GENERATORS, IMAGES_AT_MOST, PIXELS_AT_MOST = 8, 2048, 1 << 24
"""For `untrained`: the number of generators and the maximum numbers of images and pixels."""


class Generator(nn.Module):
    """Latents (N, Z) to pixels (N, C, H, W) in the spec's range: a linear layer, then two upsamplings and convolutions.

    The architecture of DAFL and PRE-DFKD with fewer channels. Its batch norms have no running statistics, because it is
    only used in batches; so generating images never changes it.

    With `contrast`, mean and contrast of each colour are learned; otherwise they are fixed.

    With a `scene`, the generator makes maps, and further latents control how they become images (see `scene.Scene`).
    Without one, the mean of every image is the middle of the range, which is rare in photographs and digits.
    """

    def __init__(
        self, spec: InputSpec, latent: int = 100, width: int = 32, *, scene: Scene | None = None, contrast: bool = False
    ):
        super().__init__()
        channels, height, columns = spec.shape
        self.spec, self.latent, self.width, self.scene = spec, latent, width, scene
        self.start = (math.ceil(height / 4), math.ceil(columns / 4))
        self.size = (height, columns)
        inner, maps = max(width // 2, 4), channels if scene is None else scene.maps(spec)
        by_phase = inner < LANES
        self.first = nn.Linear(latent, width * self.start[0] * self.start[1])
        self.body = nn.Sequential(
            _norm(width), nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), _norm(width),
            nn.LeakyReLU(0.2, inplace=True), UpsampledConv(width, inner, phases=by_phase),
            PhaseNorm(inner, track_running_stats=False) if by_phase else _norm(inner), nn.LeakyReLU(0.2, inplace=True),
            PhaseConv(inner, maps) if by_phase else nn.Conv2d(inner, maps, 3, padding=1),
            nn.BatchNorm2d(maps, affine=contrast, track_running_stats=False),
        )  # fmt: skip

    @property
    def latents_per_image(self) -> int:
        """Z, the number of standard normal latents per image."""
        return self.latent + (0 if self.scene is None else self.scene.numbers(self.spec))

    def forward(self, latents: Tensor) -> Tensor:
        x = self.body(self.first(latents[:, : self.latent]).view(len(latents), self.width, *self.start))
        x = x[:, :, : self.size[0], : self.size[1]]
        if self.scene is not None:
            return self.scene.compose(x, latents[:, self.latent :], self.spec)
        return self.spec.low + (self.spec.high - self.spec.low) * torch.sigmoid(2 * x)


class UpsampledConv(nn.Conv2d):
    """Nearest-neighbour upsampling of maps (N, C, H, W) by 2 and a 3 x 3 convolution, computed at the small size.

    Each of the four output pixels of an input pixel reads 2 x 2 input pixels, with sums of the kernel's taps (sub-pixel
    convolution, Shi et al. 2016). The result equals the plain layers up to rounding. It is (N, C', 2 H, 2 W), or with
    `phases` the four phases (N, 4 C', H, W), all maps of the first phase first.
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
        result = conv2d(input, weight, bias, padding=1)
        return result if self.phases else pixel_shuffle(result, 2)


class PhaseNorm(nn.BatchNorm2d):
    """Batch norm of maps (N, C, 2 H, 2 W) stored as four phases (N, 4 C, H, W).

    Written by hand over rows of 4 C numbers, because torch's batch norm takes three times as long for few channels.
    """

    def forward(self, input: Tensor) -> Tensor:
        rows = input.permute(0, 2, 3, 1).to(torch.promote_types(input.dtype, torch.float32))
        rows = rows - self._mean(rows).repeat(4)
        scale = self.weight * (self._mean(rows.square()) + self.eps).rsqrt()
        return torch.addcmul(self.bias.repeat(4), rows, scale.repeat(4)).permute(0, 3, 1, 2)

    def _mean(self, rows: Tensor) -> Tensor:
        return rows.mean((0, 1, 2)).view(4, -1).mean(0)


class PhaseConv(nn.Conv2d):
    """A 3 x 3 convolution with padding 1 of maps (N, C, 2 H, 2 W) stored as four phases; returns (N, C', 2 H, 2 W)."""

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
    """A new generator for the teacher's images, with weights from `seed`. `width` None: sized to the teacher."""
    width = width or width_for(teacher)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "generator", latent, width))
        return Generator(teacher.spec, latent, width, scene=scene).to(teacher.device)


def check_generator(spec: InputSpec, *, latent: int, width: int | None, batch: int) -> None:
    """Raises UserError if a generator, with gradients and Adam's moments, and one batch of its images do not fit in memory.

    A lower bound: the activations of its first layers and its images.
    """
    width = width or WIDTHS[0]
    places = math.ceil(spec.shape[1] / 4) * math.ceil(spec.shape[2] / 4)
    weights = width * (latent * places + 9 * width)
    activations = batch * (latent + 5 * width * places + 2 * spec.pixels)
    check_cost(
        FLOAT32 * (4 * weights + 2 * activations),
        f"a generator of {latent:,} latent values and {width:,} channels for {batch:,} images at a time",
        otherwise="give a smaller `batch`, `latent` or `width`",
    )


@torch.no_grad()
def untrained(teacher: Network, scene: Scene | None, *, seed: int) -> Tensor:
    """Images (N, C, H, W) of several untrained generators: 2,048, or fewer for large images."""
    count = max(GENERATORS, min(IMAGES_AT_MOST, PIXELS_AT_MOST // teacher.spec.pixels) // GENERATORS * GENERATORS)
    batches, width = [], width_for(teacher)
    for index in range(GENERATORS):
        generator = new_generator(teacher, seed=seed_of(seed, "untrained", index), width=width, scene=scene)
        latents = torch.randn(
            (count // GENERATORS, generator.latents_per_image), generator=stream(seed, "untrained", index)
        )
        batches.append(generator(latents.to(teacher.device)).cpu())
    return torch.cat(batches)


def width_for(teacher: Network) -> int:
    """Width of the largest generator whose forward pass costs no more than the teacher's; at least 8."""
    budget = _flops(teacher.module, teacher.logits, torch.zeros(2, *teacher.spec.shape, device=teacher.device))
    costs = _generator_flops(teacher.spec)  # pyright: ignore[reportArgumentType]: a frozen model is hashable
    return max((width for width, flops in costs.items() if flops <= budget), default=WIDTHS[0])


@cache
def _generator_flops(spec: InputSpec) -> dict[int, int]:
    """Operations of a forward pass of two images, by width. Cached, because building all generators is slow."""
    with torch.random.fork_rng(devices=[]):
        generators = {width: Generator(spec, 100, width) for width in WIDTHS}
    return {width: _flops(generator, generator, torch.zeros(2, 100)) for width, generator in generators.items()}


def _flops(module: nn.Module, call: Callable[[Tensor], Tensor], inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad(), frozen(module):
        call(inputs)
    return counter.get_total_flops()
