"""Distribution matching (Zhao & Bilen 2023): images with the mean embedding of their class in random networks."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ...._core.errors import UserError
from ...._core.memory import check_cost
from ...._core.resume import (
    Environment,
    StateHeader,
    check_room_for,
    load_optimizer,
    load_state,
    open_state,
    optimizer_state,
    save_state,
)
from ...._core.seeds import seed_of, stream
from ...._core.settings import Settings
from ...._core.slots import Slot, Slots, optimizer_slots
from ....models.input_spec import InputSpec
from . import Job
from .siamese_augmentation import KINDS, Augmentation, draw

__all__ = ["DistributionMatching"]

KIND = "condensing-state"
TOGETHER = 64
"""Images per forward pass; more do not fit in a CPU's caches."""
MAPS = 3
"""Outputs of a block that its gradient needs: of the convolution, the norm and, in place, the ReLU; and the pooled
ones.
"""
PAUSE = 10
"""Seconds between saved states: the maximum work that a stopped run repeats."""


class MatchingHeader(StateHeader):
    """Header of the state file of a `DistributionMatching` run."""

    step: int = Field(ge=1)


class DistributionMatching(Settings):
    """Each step draws a network, an augmentation and real images, and matches the class means of the embeddings.

    differs from the paper: narrower networks, fewer real images and steps, and Adam with a decaying rate instead of
    SGD, so that a run takes minutes on one thread (the paper: width 128, 256 images, 20,000 steps, SGD 1.0); one
    augmentation per step for all classes, so that they share a pass; no mirroring by default, because mirrored digits
    are different digits.
    """

    method: Literal["dm"] = "dm"
    iterations: int = Field(default=500, ge=1, le=1 << 24)
    """Number of steps, each with a new random network."""
    rate: float = Field(default=0.05, gt=0, le=10)
    """Initial learning rate of Adam on the pixels, as a share of their range; decays to 0 along a half cosine."""
    real: int = Field(default=32, ge=1)
    """Number of real images per class and step."""
    width: int = Field(default=32, ge=1)
    """Number of channels of the networks."""
    depth: int = Field(default=3, ge=1)
    """Number of blocks of convolution, instance norm, ReLU and pooling; fewer for small images, to keep 2 x 2 maps."""
    start: Literal["real", "noise"] = "real"
    """Initial images: real ones, or noise around the data's mean."""
    augment: bool = True
    """Siamese augmentation: the same shift, scale, rotation, hole or colour for real and learned images."""
    mirror: bool = False
    """Mirror images left to right as well."""

    summary: ClassVar[str] = "images optimised to match mean embeddings in random networks (Zhao & Bilen 2023)"

    @property
    def leakage(self) -> str:
        """Depends on the initial images."""
        general = "These images were optimised to match the training images. There is no privacy guarantee."
        initial = " They were initialised with training images, which can still be visible after few steps."
        return general + (initial if self.start == "real" else "")

    def make(self, job: Job) -> Tensor:
        images = job.per_class * len(job.spec.classes)
        check_cost(
            self._bytes(job.spec, images),
            f"learning {images:,} images at once",
            otherwise="lower `per_class` or `width`",
        )
        pixels = self._initial(job).to(job.device).requires_grad_()
        width = job.spec.high - job.spec.low
        adam, first_step, saved = (
            torch.optim.Adam([pixels], lr=self.rate * width, eps=1e-8 / width),
            0,
            time.monotonic(),
        )
        if job.state is not None:
            first_step = _resume(job.state, _header(job, self.iterations), pixels, adam)
        for step in range(first_step, self.iterations):
            adam.param_groups[0]["lr"] = self.rate * width * 0.5 * (1 + math.cos(math.pi * step / self.iterations))
            loss = self._loss(job, pixels, step)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            if not math.isfinite(float(loss.detach())):
                raise UserError(f"the loss is not finite in step {step + 1}; lower `rate`")
            adam.step()
            job.progress(step + 1, self.iterations)
            if job.state is not None and time.monotonic() - saved > PAUSE and step + 1 < self.iterations:
                _save(job, pixels, adam, step + 1)
                saved = time.monotonic()
        return pixels.detach().cpu()

    def _initial(self, job: Job) -> Tensor:
        """Initial images (N, C, H, W): real ones, or noise with mean and standard deviation of the data."""
        classes = range(len(job.spec.classes))
        chosen = torch.cat(
            [_random_positions(job, label, job.per_class, stream(job.seed, "dm", label)) for label in classes]
        )
        pixels = job.pixels(chosen)
        if self.start == "real":
            return pixels.clone()
        noise = torch.randn(pixels.shape, generator=stream(job.seed, "dm", "noise"))
        return job.spec.clamp(pixels.mean() + pixels.std() * noise)

    def _loss(self, job: Job, pixels: Tensor, step: int) -> Tensor:
        """Squared distance of the mean embeddings, summed over classes (eq. 5)."""
        rng, classes = stream(job.seed, "dm", "step", step), len(job.spec.classes)
        count = min(self.real, int(job.data.labels.bincount(minlength=classes).min()))
        chosen = torch.cat([_random_positions(job, label, count, rng) for label in range(classes)])
        augment, low, width = self._augmentation(rng), job.spec.low, job.spec.high - job.spec.low
        network = _network(job.spec, self.width, self.depth, seed_of(job.seed, "dm", "network", step)).to(job.device)

        def means(images: Tensor) -> Tensor:
            augmented = [low + width * augment((chunk - low) / width) for chunk in images.split(TOGETHER)]
            embedded = torch.cat([network(job.spec.normalize(chunk)) for chunk in augmented])
            return embedded.view(classes, -1, embedded.shape[1]).mean(1)

        with torch.no_grad():
            target = means(job.pixels(chosen).to(job.device))
        return (means(pixels) - target).square().sum()

    def _bytes(self, spec: InputSpec, images: int) -> int:
        """Bytes of a step: the block outputs that the gradient needs, each block a quarter of the one before."""
        maps = self.width * spec.shape[1] * spec.shape[2] * 4 / 3
        return int(4 * images * (MAPS * maps + 8 * spec.pixels) + 4 * self.real * len(spec.classes) * spec.pixels)

    def _augmentation(self, rng: torch.Generator) -> Augmentation:
        kinds = [kind for kind in KINDS if kind != "mirror"] if self.augment else []
        return draw((*kinds, *(["mirror"] if self.mirror else [])), rng)


def _random_positions(job: Job, label: int, count: int, rng: torch.Generator) -> Tensor:
    """Positions (count,) of random images of a class, without replacement."""
    positions = job.of_class(label)
    return positions[torch.randperm(len(positions), generator=rng)[:count]]


def _network(spec: InputSpec, width: int, depth: int, seed: int) -> nn.Module:
    """The usual ConvNet without classifier, with torch's random initialisation: (N, C, H, W) to (N, features)."""
    layers, channels = [], spec.shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(max(1, min(depth, int(math.log2(min(spec.shape[1:]))) - 1))):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(width, width), nn.ReLU(inplace=True)]
            layers += [nn.AvgPool2d(2)] if min(spec.shape[1:]) > 1 else []
            channels = width
    return nn.Sequential(*layers, nn.Flatten()).requires_grad_(False)


def _header(job: Job, step: int) -> MatchingHeader:
    identity = json.loads(json.dumps(job.identity))
    return MatchingHeader(identity=identity, environment=Environment.here(), step=step)


def _layout(header: MatchingHeader, pixels: Tensor, adam: torch.optim.Adam) -> Slots:
    return {"pixels": Slot.like(pixels), **optimizer_slots(adam, "adam", header.step)}


def _save(job: Job, pixels: Tensor, adam: torch.optim.Adam, step: int) -> None:
    assert job.state is not None
    tensors = {"pixels": pixels.detach().cpu(), **optimizer_state(adam, "adam")}
    save_state(job.state, KIND, _header(job, step), tensors)


def _resume(path: Path, final: MatchingHeader, pixels: Tensor, adam: torch.optim.Adam) -> int:
    """Restores images and optimizer from the state file and returns the next step; 0 for a new run."""
    if not path.exists():
        check_room_for(path, KIND, final, _layout(final, pixels, adam))
        return 0
    header = open_state(path, KIND, MatchingHeader, final.identity)
    if header.step >= final.step:
        raise UserError(
            f"{path} belongs to a run of more than {final.step} steps; name another `state`, or repeat that run's command"
        )
    tensors = load_state(path, KIND, header, _layout(header, pixels, adam))
    with torch.no_grad():
        pixels.copy_(tensors["pixels"])
    load_optimizer(adam, tensors, "adam")
    return header.step
