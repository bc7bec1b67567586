"""Augmented views of a source's images, new in every epoch and labelled by the teacher."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .._core.errors import UserError
from .._core.seeds import stream
from ..data.augmentation import mirrored, shifted
from ..models.input_spec import InputSpec
from ..models.network import Network
from ..models.precision import autocast
from .schedule import Distillation
from .sources import Source

__all__ = ["Views", "check_shift", "moved", "view", "viewed"]


class _Moving(Protocol):
    """Settings with a shift and mirroring: `Distillation` and `OnlineDistillation`."""

    @property
    def shift(self) -> int | None: ...

    @property
    def flip(self) -> bool: ...


def viewed(teacher: Network, source: Source, settings: Distillation) -> Source:
    """The source, or views of its images if the settings ask for them; `check_shift` has checked these."""
    return Views(teacher, source, settings) if settings.shift != 0 or settings.flip or settings.mixup else source


def check_shift(settings: _Moving, spec: InputSpec) -> None:
    """Raises UserError for a shift that can move an image out of itself."""
    side = min(spec.shape[1:])
    if settings.shift is not None and settings.shift >= side:
        raise UserError(f"shift: got {settings.shift}, expected below {side}, the images' smaller side; give less")


@dataclass(frozen=True)
class Views:
    """The images of a source with new shifts, flips and blends in every epoch, labelled by the teacher after that."""

    teacher: Network
    source: Source
    settings: Distillation

    @property
    def spec(self) -> InputSpec:
        return self.source.spec

    def __len__(self) -> int:
        return len(self.source)

    def distinct(self, epochs: int) -> int:
        """Number of different images before augmentation."""
        return self.source.distinct(epochs)

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        rng = stream(seed, "views", epoch)
        for pixels, _ in self.source.epoch(seed, epoch, batch):
            views = view(pixels, self.settings, self.spec, rng)
            with autocast(self.settings.precision, self.teacher.device):
                logits = self.teacher.predict(views, batch=len(views))
            yield views, logits


def view(pixels: Tensor, settings: Distillation, spec: InputSpec, rng: torch.Generator) -> Tensor:
    """Pixels (N, C, H, W), each shifted, mirrored, and blended with another one, as the settings say."""
    pixels = moved(pixels, settings, spec, rng)
    if settings.mixup:
        share = torch.rand(len(pixels), 1, 1, 1, generator=rng)
        share = torch.where(torch.rand(len(pixels), 1, 1, 1, generator=rng) < settings.mixup, share, torch.ones(()))
        pixels = share * pixels + (1 - share) * pixels[torch.randperm(len(pixels), generator=rng)]
    return pixels


def moved(pixels: Tensor, settings: _Moving, spec: InputSpec, rng: torch.Generator) -> Tensor:
    """Pixels (N, C, H, W), each shifted on the border of `spec` and mirrored as the settings say."""
    largest_shift = spec.shape[1] // 8 if settings.shift is None else settings.shift
    pixels = shifted(pixels, largest_shift, rng, spec.border_colour(pixels))
    return mirrored(pixels, rng) if settings.flip else pixels
