"""Expansion of condensed data by guided inversion (Binici et al. 2024): makes any number of images from a few anchors.

Images are inverted from the teacher, and pulled towards the anchors of their class in its penultimate features.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from .._core.arguments import checked
from .._core.errors import UserError
from .._core.progress import Progress, silent
from .._core.seeds import seed_of, stream
from .._core.settings import parse
from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..models.behaviour import check_pixel_gradient
from ..models.network import Network
from ..records.divergence import has_statistics, stored_statistics
from ..records.record import Record
from .losses import Objective
from .losses import alignment as alignments
from .losses.alignment import Alignment
from .losses.alignment.anchors import check_anchors
from .losses.alignment_loss import AlignmentLoss
from .losses.batchnorm import BatchNormDivergence
from .losses.classes import TargetClass
from .methods import Batch, chunk_labels
from .methods.batch_norm import PriorSettings
from .methods.inversion import Inversion, invert, noise, shapes_noise
from .methods.meta_generator import BoundMetaGenerator, MetaGenerator
from .synthetic_set import IMAGES, SyntheticSet, make_set, renamed_chunk, write_log

__all__ = ["BoundExpansion", "BoundGuidedGenerator", "Expansion", "GuidedGenerator", "GuidedInversion", "expand"]


GENERATOR_GUIDANCE = 1.0
"""Default weight of the alignment for a generator: 10, as for pixels, costs it its classes."""


class Expansion(PriorSettings):
    """How images are inverted and guided. A loss with weight 0 is not computed."""

    start: Literal["noise", "anchors"] = "anchors"
    """Initial image: an augmented anchor of its class, or noise, which needs more steps."""
    steps: int = Field(default=20, ge=1)
    """Number of Adam steps on the pixels; few steps stay close to the anchor."""
    guidance: float | None = Field(default=None, ge=0)
    """Weight of the alignment to the anchors; by default the alignment's own weight. 0 is plain inversion."""
    classes: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy to the target class."""
    balance: float = Field(default=1.0, ge=0)
    """Weight of the batch's class balance."""
    statistics: float | None = Field(default=None, ge=0)
    """Weight of the divergence from the teacher's batch norms, or else from a record's moments by channel; by default 1 if
    there are such statistics, else 0."""

    summary: ClassVar[str] = "images inverted near a few anchors (Binici et al. 2024)"

    def objective(self, teacher: Network, record: Record | None) -> Objective:
        """All losses but the alignment, of which each chunk has its own. Raises UserError for `statistics` above 0 if
        neither teacher nor record has any.
        """
        parts = Objective(((self.classes, TargetClass()),) if self.classes else ()) + self.priors()
        weight = float(has_statistics(teacher, record)) if self.statistics is None else self.statistics
        return parts + weight * BatchNormDivergence(stored_statistics(teacher, record)) if weight else parts


@dataclass(frozen=True)
class GuidedInversion:
    """A synthesis method with its anchors: pixels (N, C, H, W) and labels (N, classes) as probabilities."""

    pixels: Tensor
    labels: Tensor
    settings: Expansion = field(default_factory=Expansion)
    alignment: Alignment = field(default_factory=lambda: alignments.from_name(alignments.DEFAULT))

    method: ClassVar[str] = "expand"
    summary: ClassVar[str] = Expansion.summary

    @property
    def in_range(self) -> bool:
        return self.settings.in_range

    @property
    def weight(self) -> float:
        """Weight of the alignment."""
        return self.alignment.guidance if self.settings.guidance is None else self.settings.guidance

    def model_dump(self, mode: str = "json") -> dict[str, Any]:
        """The settings that a set stores: those of the inversion and the alignment, and the anchors' number and checksum."""
        settings = {"method": self.method, **self.settings.model_dump(mode=mode)}
        return settings | _described(self.pixels, self.labels, self.alignment, mode)

    def reads_record(self, teacher: Network, record: Record) -> bool:
        """Whether the record shapes the noise that images start from, or has statistics for the loss."""
        classes = set(self.labels.argmax(1).tolist())
        from_noise = self.settings.start == "noise" or len(classes) < len(teacher.spec.classes)
        matched = self.settings.statistics != 0 and not has_statistics(teacher)
        return (from_noise and shapes_noise(record)) or matched

    def bind(self, teacher: Network, record: Record | None) -> BoundExpansion:
        """Raises UserError for anchors that do not fit, `statistics` above 0 if neither teacher nor record has any, a
        teacher without a gradient to its pixels, and settings without any loss.
        """
        check_pixel_gradient(teacher, "expand")
        check_anchors(teacher, self.pixels, self.labels)
        objective = self.settings.with_extra_loss(self.settings.objective(teacher, record))
        if not self.weight and not any(weight for weight, _ in objective.parts):
            raise UserError(
                "all weights of the losses are 0, expected at least one above 0; give `classes=1`, or leave one of "
                "`classes`, `guidance` and `balance` out"
            )
        return BoundExpansion(teacher, record, objective, self)


@dataclass(frozen=True)
class BoundExpansion:
    """Makes chunks. Each has its own guide, so that it only depends on seed and index."""

    teacher: Network
    record: Record | None
    objective: Objective
    method: GuidedInversion

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = chunk_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        start = self._start(labels, rng).to(self.teacher.device)
        bound = self._guided_objective(seed_of(seed, "guide", index)).bind(self.teacher, labels, rng)
        pixels = invert(self.teacher, bound, start, labels.to(self.teacher.device), self._inversion(), rng).cpu()
        return Batch(pixels, labels)

    def _guided_objective(self, seed: int) -> Objective:
        method = self.method
        return self.objective + _guide(
            self.teacher, method.pixels, method.labels, method.alignment, method.weight, seed
        )

    def _inversion(self) -> Inversion:
        settings = self.method.settings
        return Inversion(
            settings.steps, settings.learning_rate, settings.box, settings.precision, settings.jitter, settings.flip,
            augment=self.method.alignment.steady(),
        )  # fmt: skip

    def _start(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Initial images: noise, or with `start` "anchors" augmented anchors, for classes that have any."""
        images, method, spec = noise(self.teacher, self.record, labels, rng), self.method, self.teacher.spec
        if method.settings.start == "anchors":
            anchor_classes = method.labels.argmax(1).cpu()
            for row, label in enumerate(labels):
                anchors = (anchor_classes == label).nonzero()[:, 0]
                if len(anchors):
                    images[row] = method.pixels[anchors[int(torch.randint(len(anchors), (1,), generator=rng))]]
            images = method.alignment.show(images, spec, rng)
        return spec.clamp(images) if method.settings.box else images


@dataclass(frozen=True)
class GuidedGenerator:
    """The same with images of a meta-learned generator, which sees the anchors through the alignment alone.

    The anchors are not bent or exposed, because the generator's images are not either.
    """

    pixels: Tensor
    labels: Tensor
    settings: MetaGenerator = field(default_factory=MetaGenerator)
    alignment: Alignment = field(default_factory=lambda: alignments.from_name(alignments.DEFAULT))
    guidance: float = GENERATOR_GUIDANCE
    """Weight of the alignment; that of the batch-norm divergence is 1."""

    method: ClassVar[str] = "expand"
    summary: ClassVar[str] = Expansion.summary
    in_range: ClassVar[bool] = MetaGenerator.in_range

    def model_dump(self, mode: str = "json") -> dict[str, Any]:
        """The settings that a set stores: those of the generator and the alignment, and the anchors' number and checksum."""
        settings = {"method": self.method, "generator": self.settings.model_dump(mode=mode), "guidance": self.guidance}
        return settings | _described(self.pixels, self.labels, self.alignment, mode)

    def reads_record(self, teacher: Network, record: Record) -> bool:  # noqa: ARG002
        """Whether the record has the statistics that are matched."""
        return not has_statistics(teacher)

    def chunk_size(self, classes: int, images: int) -> int:
        """Number of images per chunk for `images` in total."""
        return self.settings.chunk_size(classes, images)

    def bind(self, teacher: Network, record: Record | None, *, progress: Progress = silent) -> BoundGuidedGenerator:
        """Raises UserError for anchors that do not fit, and as `MetaGenerator.bind`."""
        check_anchors(teacher, self.pixels, self.labels)
        generator = self.settings.bind(teacher, record, progress=progress)
        return BoundGuidedGenerator(generator.teacher, replace(self, settings=generator.settings), generator)


@dataclass(frozen=True)
class BoundGuidedGenerator:
    """Makes chunks. Each has a generator and a guide of its own, so that it only depends on seed and index."""

    teacher: Network
    settings: GuidedGenerator
    generator: BoundMetaGenerator

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        method = self.settings
        alignment, guide_seed = method.alignment, seed_of(seed, "guide", index)
        if isinstance(alignment, Augmentation):
            alignment = alignment.model_copy(update={"bend": 0.0, "exposure": 0.0})
        guide = _guide(self.teacher, method.pixels, method.labels, alignment, method.guidance, guide_seed)
        return replace(self.generator, teacher=self.teacher, guide=guide).chunk(index, seed, size)


def _guide(
    teacher: Network, pixels: Tensor, labels: Tensor, alignment: Alignment, weight: float, seed: int
) -> Objective:
    """The alignment as a loss, with a guide of its own; no loss for weight 0."""
    return weight * AlignmentLoss(alignment.bind(teacher, pixels, labels, seed)) if weight else Objective(())


def _described(pixels: Tensor, labels: Tensor, alignment: Any, mode: str) -> dict[str, Any]:
    digest = hashlib.sha256()
    for tensor in (pixels, labels):
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    anchors = {"images": len(pixels), "sha256": digest.hexdigest()}
    return {"alignment": alignment.model_dump(mode=mode), "anchors": anchors}


@checked
def expand(
    teacher: Network,
    condensed: Condensed | str | Path | tuple[Tensor, Tensor],
    out: str | Path,
    settings: Expansion | MetaGenerator | Mapping[str, Any] | None = None,
    alignment: str | Mapping[str, Any] | Alignment = alignments.DEFAULT,
    *,
    guidance: float | None = None,
    images: int = IMAGES,
    record: Record | None = None,
    seed: int = 0,
    chunk: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
    unit: int | None = None,
) -> SyntheticSet:
    """Makes `images` images near the condensed ones in the folder `out`. The condensed images are not part of the set.

    `condensed` is a condensed set, its path, or a pair: pixels (N, C, H, W) in the spec's range and labels (N, classes),
    probabilities. With `settings` that are an Expansion, or its fields in a mapping, pixels are optimised; a MetaGenerator,
    or a mapping with `"method": "meta-generator"`, makes the images with a generator. `alignment` is a name, a mapping with
    `alignment`, or settings; `guidance` is its weight. `chunk` is the number of images that are made together, by default
    256, or up to 10,240 with a generator; `unit` is its earlier name. As with `synthesize`, the result is the same for any
    number of workers, and a stopped run continues. Raises UserError for anchors that do not fit the teacher.
    """
    chunk = renamed_chunk(chunk, unit)
    began, method = time.perf_counter(), guided(teacher, condensed, settings, alignment, guidance)
    options: dict[str, Any] = {"images": images, "seed": seed, "chunk": chunk, "workers": workers, "progress": progress}
    synthetic_set = make_set(teacher, record, cast(Any, method), out, **options)
    anchors = synthetic_set.about["method"]["anchors"]["sha256"]
    write_log("expand", synthetic_set, teacher, record, began, condensed=anchors)
    return synthetic_set


def guided(
    teacher: Network,
    condensed: Condensed | str | Path | tuple[Tensor, Tensor],
    settings: Expansion | MetaGenerator | Mapping[str, Any] | None,
    alignment: str | Mapping[str, Any] | Alignment,
    guidance: float | None = None,
) -> GuidedInversion | GuidedGenerator:
    """The method of `expand`, for its arguments."""
    anchors = condensed
    if not isinstance(condensed, tuple):
        fitted = condensed.fitted(teacher) if isinstance(condensed, Condensed) else Condensed.open(condensed, teacher)
        anchors = fitted.clamped(), fitted.labels
    if isinstance(settings, Mapping):
        chosen = MetaGenerator if settings.get("method") == MetaGenerator.model_fields["method"].default else Expansion
        settings = parse(chosen, settings, strict=False)
    kind = alignments.FAMILY.resolve(alignment, "alignment")
    pixels, labels = cast(tuple[Tensor, Tensor], anchors)
    if isinstance(settings, MetaGenerator):
        weight = Expansion(guidance=guidance).guidance  # refuses what is no weight
        return GuidedGenerator(pixels, labels, settings, kind, GENERATOR_GUIDANCE if weight is None else weight)
    settings = settings or Expansion()
    if guidance is not None:
        settings = Expansion(**{**settings.model_dump(), "guidance": guidance})
    return GuidedInversion(pixels, labels, settings, kind)
