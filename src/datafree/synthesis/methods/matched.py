"""Batch-moment matching: batches of images whose statistics at each layer match the record's.

Lopes et al. (2017) draw a target for each image independently at each layer, and such targets cannot all be reached.
Here a batch of one or a few classes is optimised until its means and spreads match the recorded ones. Distances are
measured in units of each unit's standard deviation, so that no layer dominates. A chunk holds one batch per group of
classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from ..._core.errors import UserError
from ..._core.progress import Progress, share_of, silent
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...models.behaviour import check_pixel_gradient
from ...models.network import Network
from ...records.presets import PIXELS_AT_MOST
from ...records.record import Record
from ..losses import Objective
from ..losses.match import MatchMoments, bind_entries
from ..losses.priors import TotalVariation
from . import Batch, chunk_labels, needed
from .distribution import BoundDistribution, Distribution
from .inversion import Inversion, invert, noise

__all__ = ["MomentMatching"]

BATCH = 256
"""Number of images in a batch: enough for stable statistics; fewer if fewer images are requested."""


class MomentMatching(Settings):
    """Batches whose moments at every recorded layer match the record's."""

    method: Literal["matched"] = "matched"
    start: Literal["distribution", "noise"] = "distribution"
    """Initial images: drawn from the record, which must determine the pixels, or noise as in the paper."""
    steps: int = Field(default=30, ge=1)
    """Number of Adam steps on the pixels."""
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    """Learning rate of Adam on the pixels, as a share of the range of pixel values."""
    classes: int = Field(default=2, ge=1)
    """Number of classes per batch; fewer classes need more batches."""
    smooth: float = Field(default=0.0, ge=0)
    """Weight of the total variation, which keeps neighbouring pixels similar."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the teacher's forward pass."""

    summary: ClassVar[str] = "matches the moments of whole batches at every recorded layer (ours)"
    in_range: ClassVar[bool] = True

    def chunk_size(self, classes: int, images: int) -> int:
        """Number of images per chunk for `images` in total: a batch for each group of classes, in chunks of about equal
        size.
        """
        largest = BATCH * -(-classes // min(self.classes, classes))
        return max(BATCH, -(-images // -(-images // largest)))

    def bind(
        self, teacher: Network, record: Record | None, *, workers: int | None = None, progress: Progress = silent
    ) -> BoundMatching:
        record = needed(self.method, record, teacher)
        check_pixel_gradient(teacher, f"method {self.method}")
        objective = 1.0 * MatchMoments(bind_entries(teacher, record, record.need("moments")))
        if self.smooth:
            objective = objective + self.smooth * TotalVariation()
        large = teacher.spec.pixels > PIXELS_AT_MOST
        # no augmentation: it would change the moments being matched
        plain = Distribution(inflate=1, mix=0, degrees=0, shift=0, scale=0, shear=0, elastic=0)
        if large and self.start == "distribution":
            raise UserError(
                f"start: got 'distribution' for images of {teacher.spec.pixels} numbers, expected at most "
                f"{PIXELS_AT_MOST}; give `start='noise'`"
            )
        distribution = None
        if self.start == "distribution":
            distribution = plain.bind(teacher, record, workers=workers, progress=progress)
        return BoundMatching(self, teacher, record, objective, distribution)


@dataclass(frozen=True)
class BoundMatching:
    """Chunks of all classes, optimised in batches of a few classes."""

    settings: MomentMatching
    teacher: Network
    record: Record
    objective: Objective
    distribution: BoundDistribution | None

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels = chunk_labels(index, size, len(self.teacher.spec.classes))
        batches = -(-len(self.teacher.spec.classes) // self.settings.classes)
        pixels = torch.empty(size, *self.teacher.spec.shape)
        for number in range(batches):
            rows = (labels // self.settings.classes == number).nonzero()[:, 0]
            if len(rows):
                with share_of(number, batches):
                    pixels[rows] = self._batch(labels[rows], stream(seed, "unit", index * batches + number))
        return Batch(pixels, labels)

    def _batch(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Optimised images (N, C, H, W) of a few classes, one per label."""
        start = self._start(labels, rng).to(self.teacher.device)
        bound = self.objective.bind(self.teacher, labels, rng)
        inversion = Inversion(self.settings.steps, self.settings.learning_rate, True, self.settings.precision)
        return invert(self.teacher, bound, start, labels.to(self.teacher.device), inversion).cpu()

    def _start(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        spec = self.teacher.spec
        if self.distribution is None:
            return spec.clamp(noise(self.teacher, self.record, labels, rng))
        return self.distribution.draw(labels, rng)
