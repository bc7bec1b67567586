"""The record as a distribution: images drawn from it, in closed form, as many as wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..._core.seeds import stream
from ..._core.settings import Settings
from ...data.warp import Warp, warp
from ...models.network import Network
from ...records.presets import PIXELS_AT_MOST
from ...records.record import Record
from ..censored_gaussian import Censored, fit_censored
from ..cost import check_distribution
from ..pixel_moments import PixelMoments, pixel_factors, pixel_moments
from . import Batch, needed, unit_labels

__all__ = ["Distribution"]

WARPS = tuple(Warp.model_fields)
PROBED = 512


class Distribution(Settings):
    """Images drawn from the class-conditional distribution of the pixels, where the record determines it."""

    method: Literal["distribution"] = "distribution"
    inflate: float = Field(default=1.4, ge=1, le=4)
    """An image's deviation from its class mean is multiplied by a random factor between 1 and this."""
    mix: float = Field(default=0.5, ge=0, le=1)
    """Share of images blended with another one, of any class, by up to a half."""
    degrees: float = Field(default=15.0, ge=0, le=180)
    """Random rotation, at most. Warps suppose that a bent image keeps its class: set all five to 0 where it does not."""
    shift: float = Field(default=0.05, ge=0, le=1)
    """Random shift, at most, as a share of the larger side."""
    scale: float = Field(default=0.15, ge=0, le=1)
    """Random change of the logarithm of the size, at most."""
    shear: float = Field(default=0.15, ge=0, le=1)
    """Random shear, at most."""
    elastic: float = Field(default=0.025, ge=0, le=1)
    """Standard deviation of a smooth random displacement, as a share of the larger side."""
    warp_acceptance: float = Field(default=0.8, ge=0, le=1)
    """Warps are cut to a quarter where they change the teacher's mind: where it keeps its class on fewer bent images than
    this, times its share of unbent ones that it sees the wanted class in. 0: warps as they are set."""
    rank: int = Field(default=256, ge=1, le=4096)
    """Directions kept of a class's latent covariance."""

    summary: ClassVar[str] = "drawn from the record as a censored Gaussian, where it determines the pixels (ours)"
    in_range: ClassVar[bool] = True

    def bind(self, teacher: Network, record: Record | None) -> BoundDistribution:
        known = self._known(teacher, record)
        if not isinstance(known, Censored):
            known = fit_censored(known.mean, known.covariance, rank=self.rank)
        return BoundDistribution(self, teacher, known).cautious()

    def check(self, teacher: Network, record: Record | None) -> None:
        """Raises UserError where `on` would, without the fit, which takes seconds to minutes."""
        self._known(teacher, record)

    def _known(self, teacher: Network, record: Record | None) -> Censored | PixelMoments:
        """What the record says of the pixels: of many, the latent normals themselves; else the moments to be fitted."""
        record = needed(self.method, record, teacher)
        if teacher.spec.pixels > PIXELS_AT_MOST:
            return Censored(*pixel_factors(teacher, record))
        check_distribution(teacher, record, self.rank)
        return pixel_moments(teacher, record)


@dataclass(frozen=True)
class BoundDistribution:
    """Draws units from the fitted distribution."""

    settings: Distribution
    teacher: Network
    latent: Censored

    def cautious(self) -> BoundDistribution:
        """This maker, its warps cut to a quarter where the teacher does not follow them; always decided alike."""
        own = self.settings
        if not own.warp_acceptance or not any(self._warp().model_dump().values()):
            return self
        rng = stream(0, "caution")
        labels = unit_labels(0, PROBED, len(self.teacher.spec.classes))
        straight = replace(self, settings=own.model_copy(update=dict.fromkeys(WARPS, 0.0) | {"mix": 0.0})).draw(
            labels, rng
        )
        before = self.teacher.predict(straight).argmax(1)
        after = self.teacher.predict(warp(straight, self._warp(), rng)).argmax(1)
        kept, seen = (before == after).float().mean(), (before.cpu() == labels).float().mean()
        if kept >= own.warp_acceptance * seen:
            return self
        return replace(self, settings=own.model_copy(update={name: getattr(own, name) / 4 for name in WARPS}))

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        rng, spec = stream(seed, "unit", index), self.teacher.spec
        labels = unit_labels(index, size, len(spec.classes))[torch.randperm(size, generator=rng)]
        return Batch(self.draw(labels, rng), labels)

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """One image (N, C, H, W) a label, in the spec's range."""
        spec = self.teacher.spec
        spread = 1 + (self.settings.inflate - 1) * torch.rand(len(labels), generator=rng)
        images = self.latent.latent(labels, spread, rng).clamp_(0, 1).view(len(labels), *spec.shape)
        images = self._mixed(images, rng)
        images = warp(images, self._warp(), rng) if any(self._warp().model_dump().values()) else images
        return spec.low + (spec.high - spec.low) * images.clamp(0, 1)

    def _mixed(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """A share of the images blended with others: (1 - w) x + w x', w uniform in [0, 1/2]."""
        count = int(len(images) * self.settings.mix)
        if count:
            other = torch.randperm(len(images), generator=rng)[:count]
            weight = 0.5 * torch.rand(count, 1, 1, 1, generator=rng)
            images = torch.cat([torch.lerp(images[:count], images[other], weight), images[count:]])
        return images

    def _warp(self) -> Warp:
        return Warp(**{name: getattr(self.settings, name) for name in WARPS})
