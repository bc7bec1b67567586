"""Batch-moment matching: whole batches of images whose statistics, layer by layer, are the record's.

The paper gives every image a target of its own, drawn independently at each layer, and such targets cannot be reached
together. Here a batch of one class (or a few) is optimised until its own means and spreads are those recorded, in units
of each unit's standard deviation, so that no layer outweighs another. A work unit holds a batch for each few classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field

from ..._core.errors import UserError
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...models.behaviour import check_pixel_gradient
from ...models.network import Network
from ...records.presets import PIXELS_AT_MOST
from ...records.record import Record
from ..losses import Objective
from ..losses.match import MatchMoments, measured
from ..losses.priors import TotalVariation
from . import Batch, needed, unit_labels
from .distribution import BoundDistribution, Distribution
from .inversion import Inversion, invert, noise

__all__ = ["MomentMatching"]

BATCH = 256
"""Images in a batch, as many as statistics want; fewer where fewer images are asked for."""


class MomentMatching(Settings):
    """Batches whose moments at every recorded layer match the record's."""

    method: Literal["matched"] = "matched"
    start: Literal["distribution", "noise"] = "distribution"
    """Begin with images drawn from the record, where it determines the pixels, or with the paper's noise."""
    steps: int = Field(default=30, ge=1)
    """Number of Adam steps on the pixels."""
    learning_rate: float = Field(default=0.01, gt=0, le=10)
    """Learning rate of Adam on the pixels, as a share of the range of pixel values."""
    classes: int = Field(default=2, ge=1)
    """Classes in a batch; the fewer, the more batches a work unit is made in."""
    smooth: float = Field(default=0.0, ge=0)
    """Weight of the total variation, which keeps neighbouring pixels alike."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the teacher's forward pass."""

    summary: ClassVar[str] = "batches whose moments at every recorded layer are the record's (ours)"
    in_range: ClassVar[bool] = True

    def unit_size(self, classes: int, images: int) -> int:
        """Images in a work unit, of so many in all: whole batches of all classes, in units that are alike."""
        whole = BATCH * -(-classes // min(self.classes, classes))
        return max(BATCH, -(-images // -(-images // whole)))

    def bind(self, teacher: Network, record: Record | None) -> BoundMatching:
        record = needed(self.method, record, teacher)
        check_pixel_gradient(teacher, f"--method {self.method}")
        objective = 1.0 * MatchMoments(measured(teacher, record, record.need("moments")))
        if self.smooth:
            objective = objective + self.smooth * TotalVariation()
        large = teacher.spec.pixels > PIXELS_AT_MOST
        # unwarped and unblended: these images are to have the record's moments, not to be a diet
        plain = Distribution(inflate=1, mix=0, degrees=0, shift=0, scale=0, shear=0, elastic=0)
        if large and self.start == "distribution":
            raise UserError(
                f"--start: got 'distribution' for images of {teacher.spec.pixels} numbers, wanted at most {PIXELS_AT_MOST}; "
                "give --start noise"
            )
        drawn = plain.bind(teacher, record) if self.start == "distribution" else None
        return BoundMatching(self, teacher, record, objective, drawn)


@dataclass(frozen=True)
class BoundMatching:
    """Units of all classes, of which a few at a time are optimised as one batch."""

    settings: MomentMatching
    teacher: Network
    record: Record
    objective: Objective
    drawn: BoundDistribution | None

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels = unit_labels(index, size, len(self.teacher.spec.classes))
        batches = -(-len(self.teacher.spec.classes) // self.settings.classes)
        pixels = torch.empty(size, *self.teacher.spec.shape)
        for number in range(batches):
            rows = (labels // self.settings.classes == number).nonzero()[:, 0]
            if len(rows):
                pixels[rows] = self._batch(labels[rows], stream(seed, "unit", index * batches + number))
        return Batch(pixels, labels)

    def _batch(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Images of a few classes, optimised together."""
        start = self._start(labels, rng).to(self.teacher.device)
        bound = self.objective.bind(self.teacher, labels, rng)
        how = Inversion(self.settings.steps, self.settings.learning_rate, True, self.settings.precision)
        return invert(self.teacher, bound, start, labels.to(self.teacher.device), how).cpu()

    def _start(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        spec = self.teacher.spec
        if self.drawn is None:
            return spec.clamp(noise(self.teacher, self.record, labels, rng))
        return self.drawn.draw(labels, rng)
