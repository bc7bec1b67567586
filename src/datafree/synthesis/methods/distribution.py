"""Draws any number of images from the distribution of pixels that a record describes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..._core.progress import Progress, silent, stage
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...data.warp import Warp, warp
from ...models.network import Network
from ...records.presets import PIXELS_AT_MOST
from ...records.record import Record
from ..censored_gaussian import Censored, fit_censored
from ..cost import check_distribution, classes_at_a_time
from ..pixel_moments import PixelMoments, coarse_images, pixel_moments
from . import Batch, chunk_labels, needed

__all__ = ["Distribution"]

WARPS = tuple(Warp.model_fields)
PROBED = 512


class Distribution(Settings):
    """Images drawn from the class-conditional distribution of the pixels, if the record determines it."""

    method: Literal["distribution"] = "distribution"
    inflate: float = Field(default=1.4, ge=1, le=4)
    """Maximum random factor, from 1 up, on an image's deviation from its class mean."""
    mix: float = Field(default=0.5, ge=0, le=1)
    """Share of images that are blended with another image of any class, with a weight of up to 1/2."""
    degrees: float = Field(default=15.0, ge=0, le=180)
    """Maximum random rotation, in degrees. If warping can change an image's class, set all five warps to 0."""
    shift: float = Field(default=0.05, ge=0, le=1)
    """Maximum random shift, as a share of the larger side."""
    scale: float = Field(default=0.15, ge=0, le=1)
    """Maximum random change of the logarithm of the size."""
    shear: float = Field(default=0.15, ge=0, le=1)
    """Maximum random shear."""
    elastic: float = Field(default=0.025, ge=0, le=1)
    """Standard deviation of the smooth random displacement, as a share of the larger side."""
    warp_acceptance: float = Field(default=0.8, ge=0, le=1)
    """Warp strength is divided by 4 if the teacher's prediction changes too often under it: if the share of unchanged
    predictions is below this value times the teacher's accuracy on unwarped images. 0: never."""
    rank: int = Field(default=256, ge=1, le=4096)
    """Rank of each class's latent covariance."""

    summary: ClassVar[str] = "draws images from the record's censored Gaussian, if it determines the pixels (ours)"
    in_range: ClassVar[bool] = True

    def bind(
        self, teacher: Network, record: Record | None, *, workers: int | None = None, progress: Progress = silent
    ) -> BoundDistribution:
        """Fits `workers` classes at a time, fewer if memory is short; by default as many as torch uses threads."""
        distribution = self._distribution(teacher, record)
        if not isinstance(distribution, Censored):
            workers = classes_at_a_time(torch.get_num_threads() if workers is None else workers, teacher.spec.pixels)
            with stage(progress, "fit the pixels of each class") as report:
                distribution = fit_censored(
                    distribution.mean, distribution.covariance, rank=self.rank, workers=workers, progress=report
                )
        return BoundDistribution(self, teacher, distribution).with_accepted_warps()

    def check(self, teacher: Network, record: Record | None) -> None:
        """Raises UserError in the same cases as `bind`, without the fit, which takes seconds to a minute."""
        self._distribution(teacher, record)

    def _distribution(self, teacher: Network, record: Record | None) -> Censored | PixelMoments:
        """The pixels' moments from the record; for large images, the latent normals themselves, which need no fit."""
        record = needed(self.method, record, teacher)
        if teacher.spec.pixels > PIXELS_AT_MOST:
            return coarse_images(teacher, record)
        check_distribution(teacher, record, self.rank)
        return pixel_moments(teacher, record)


@dataclass(frozen=True)
class BoundDistribution:
    """Draws chunks from the fitted distribution."""

    settings: Distribution
    teacher: Network
    latent: Censored

    def with_accepted_warps(self) -> BoundDistribution:
        """This distribution; warps are divided by 4 if the teacher's predictions change too often. Fixed seed."""
        settings = self.settings
        if not settings.warp_acceptance or not any(self._warp().model_dump().values()):
            return self
        rng = stream(0, "caution")
        labels = chunk_labels(0, PROBED, len(self.teacher.spec.classes))
        plain_settings = settings.model_copy(update=dict.fromkeys(WARPS, 0.0) | {"mix": 0.0})
        unwarped = replace(self, settings=plain_settings).draw(labels, rng)
        predicted = self.teacher.predict(unwarped).argmax(1)
        predicted_warped = self.teacher.predict(warp(unwarped, self._warp(), rng)).argmax(1)
        unchanged = (predicted == predicted_warped).float().mean()
        correct = (predicted.cpu() == labels).float().mean()
        if unchanged >= settings.warp_acceptance * correct:
            return self
        return replace(self, settings=settings.model_copy(update={name: getattr(settings, name) / 4 for name in WARPS}))

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        rng, spec = stream(seed, "unit", index), self.teacher.spec
        labels = chunk_labels(index, size, len(spec.classes))[torch.randperm(size, generator=rng)]
        return Batch(self.draw(labels, rng), labels)

    def draw(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Images (N, C, H, W) in the spec's range, one per label (N,)."""
        spec = self.teacher.spec
        inflation = 1 + (self.settings.inflate - 1) * torch.rand(len(labels), generator=rng)
        images = self.latent.latent(labels, inflation, rng).clamp_(0, 1).view(len(labels), *spec.shape)
        images = self._blend(images, rng)
        images = warp(images, self._warp(), rng) if any(self._warp().model_dump().values()) else images
        return spec.low + (spec.high - spec.low) * images.clamp(0, 1)

    def _blend(self, images: Tensor, rng: torch.Generator) -> Tensor:
        """Blends a share of the images with others: (1 - w) x + w x', w uniform in [0, 1/2]."""
        count = int(len(images) * self.settings.mix)
        if count:
            other = torch.randperm(len(images), generator=rng)[:count]
            weight = 0.5 * torch.rand(count, 1, 1, 1, generator=rng)
            images = torch.cat([torch.lerp(images[:count], images[other], weight), images[count:]])
        return images

    def _warp(self) -> Warp:
        return Warp(**{name: getattr(self.settings, name) for name in WARPS})
