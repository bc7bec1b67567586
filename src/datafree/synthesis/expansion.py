"""Condensed data expanded by guided inversion (Binici et al. 2024): a few anchors become as many images as wanted.

Images are inverted from the teacher class by class, and pulled to where the anchors lie in its penultimate features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from .._core.arguments import checked
from .._core.progress import Progress, silent
from .._core.seeds import seed_of, stream
from .._core.settings import parse
from ..data.condensed.condensed_set import Condensed
from ..models.behaviour import check_pixel_gradient
from ..models.network import Network
from ..records.divergence import known, stored_statistics
from ..records.record import Record
from .losses import Objective
from .losses import alignment as alignments
from .losses.alignment import Alignment
from .losses.alignment.anchors import check_anchors
from .losses.alignment_loss import AlignmentLoss
from .losses.batchnorm import BatchNormDivergence
from .losses.classes import TargetClass
from .methods import Batch, unit_labels
from .methods.batch_norm import PriorSettings
from .methods.inversion import Inversion, invert, noise
from .synthetic_set import IMAGES, SyntheticSet, renamed_chunk, synthesize

__all__ = ["BoundExpansion", "Expansion", "GuidedInversion", "expand"]


class Expansion(PriorSettings):
    """How images are inverted and guided; every weight of 0 leaves its term out."""

    start: Literal["noise", "anchors"] = "anchors"
    """What an image is before the first step: an anchor of its class as it is shown, or noise, which wants more steps.
    """
    steps: int = Field(default=20, ge=1)
    """Number of Adam steps on the pixels; few steps keep what an anchor shows."""
    guidance: float | None = Field(default=None, ge=0)
    """Weight of the alignment to the anchors, by default the kind's own; 0 is plain inversion."""
    classes: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy to the target class."""
    balance: float = Field(default=1.0, ge=0)
    """Weight of the batch's class balance."""
    statistics: float | None = Field(default=None, ge=0)
    """Weight of the divergence from the teacher's batch norms, or from a record's moments by channel where it has none;
    by default 1 where there are any."""

    summary: ClassVar[str] = "a few anchors expanded by images inverted near them (Binici et al. 2024)"

    def objective(self, teacher: Network, record: Record | None) -> Objective:
        """All but the alignment, which begins anew with every unit. Raises UserError for `statistics` that nobody
        knows.
        """
        parts = Objective(((self.classes, TargetClass()),) if self.classes else ()) + self.priors()
        weight = float(known(teacher, record)) if self.statistics is None else self.statistics
        return parts + weight * BatchNormDivergence(stored_statistics(teacher, record)) if weight else parts


@dataclass(frozen=True)
class GuidedInversion:
    """A method of synthesis that has its anchors with it: pixels (N, C, H, W), labels (N, classes) as probabilities."""

    pixels: Tensor
    labels: Tensor
    settings: Expansion = field(default_factory=Expansion)
    alignment: Alignment = field(default_factory=lambda: alignments.from_name(alignments.DEFAULT))

    method: ClassVar[str] = "expand"
    summary: ClassVar[str] = Expansion.summary

    @property
    def in_range(self) -> bool:
        return self.settings.in_range

    def model_dump(self, mode: str = "json") -> dict[str, Any]:
        """What a set stores: the settings of both, and the anchors' number and checksum."""
        digest = hashlib.sha256()
        for tensor in (self.pixels, self.labels):
            digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
        anchors = {"images": len(self.pixels), "sha256": digest.hexdigest()}
        own: Any = self.alignment
        settings = {"method": self.method, **self.settings.model_dump(mode=mode)}
        return {**settings, "alignment": own.model_dump(mode=mode), "anchors": anchors}

    def bind(self, teacher: Network, record: Record | None) -> BoundExpansion:
        """Raises UserError for anchors that do not fit, a weight of statistics that nobody knows, and a teacher through
        which no gradient comes to its images.
        """
        check_pixel_gradient(teacher, "expand")
        check_anchors(teacher, self.pixels, self.labels)
        objective = self.settings.with_extra_loss(self.settings.objective(teacher, record))
        return BoundExpansion(teacher, record, objective, self)


@dataclass(frozen=True)
class BoundExpansion:
    """Units that each have a guide of their own, so that one depends on seed and index alone."""

    teacher: Network
    record: Record | None
    objective: Objective
    method: GuidedInversion

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = unit_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        start = self._start(labels, rng).to(self.teacher.device)
        bound = self._guided(seed_of(seed, "guide", index)).bind(self.teacher, labels, rng)
        pixels = invert(self.teacher, bound, start, labels.to(self.teacher.device), self._how(), rng).cpu()
        return Batch(pixels, labels)

    def _guided(self, seed: int) -> Objective:
        own, weight = self.method, self.method.settings.guidance
        if weight == 0:
            return self.objective
        guide = own.alignment.bind(self.teacher, own.pixels, own.labels, seed)
        return self.objective + (own.alignment.guidance if weight is None else weight) * AlignmentLoss(guide)

    def _how(self) -> Inversion:
        own, moved = self.method.settings, (self.method.settings.jitter, self.method.settings.flip)
        augment = self.method.alignment.steady()
        return Inversion(own.steps, own.learning_rate, own.box, own.precision, *moved, augment=augment)

    def _start(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Noise; where anchors are asked for, an augmented one wherever the class has any."""
        images, own, spec = noise(self.teacher, self.record, labels, rng), self.method, self.teacher.spec
        if own.settings.start == "anchors":
            classes = own.labels.argmax(1).cpu()
            for row, label in enumerate(labels):
                held = (classes == label).nonzero()[:, 0]
                if len(held):
                    images[row] = own.pixels[held[int(torch.randint(len(held), (1,), generator=rng))]]
            images = own.alignment.show(images, spec, rng)
        return spec.clamp(images) if own.settings.box else images


@checked
def expand(
    teacher: Network,
    condensed: Condensed | str | Path | tuple[Tensor, Tensor],
    out: str | Path,
    settings: Expansion | Mapping[str, Any] | None = None,
    alignment: str | Mapping[str, Any] | Alignment = alignments.DEFAULT,
    *,
    images: int = IMAGES,
    record: Record | None = None,
    seed: int = 0,
    chunk: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    unit: int | None = None,
) -> SyntheticSet:
    """A set of `images` images near the condensed ones, in the folder `out`; the condensed images are not part of it.

    `condensed` is a condensed set, its path, or a pair: pixels (N, C, H, W) in the spec's range and labels (N, classes),
    probabilities. `settings` are an Expansion or a mapping, `alignment` a name, a mapping with `alignment`, or settings.
    Made in chunks of 256 images by default, as every set is: the same for any number of workers, and resumable; `unit` is
    the earlier name of `chunk`. Raises UserError for anchors that do not fit the teacher.
    """
    chunk = renamed_chunk(chunk, unit)
    anchors = condensed
    if not isinstance(condensed, tuple):
        opened = condensed.fitted(teacher) if isinstance(condensed, Condensed) else Condensed.open(condensed, teacher)
        anchors = opened.clamped(), opened.labels
    if isinstance(settings, Mapping):
        settings = parse(Expansion, settings, strict=False)
    kind = alignments.FAMILY.resolve(alignment, "alignment")
    method = GuidedInversion(*cast(tuple[Tensor, Tensor], anchors), settings or Expansion(), kind)
    return synthesize(
        teacher,
        record,
        cast(Any, method),
        out,
        images=images,
        seed=seed,
        chunk=chunk,
        workers=workers,
        progress=progress,
    )
