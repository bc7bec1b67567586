"""Images with targets for the training loops, real or synthetic."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .._core.arguments import check_count, check_fields, checked
from .._core.errors import UserError
from .._core.memory import check_cost
from .._core.progress import Progress, silent
from .._core.seeds import stream
from ..data.adapters import LabelledData, as_dataset
from ..data.augmentation import Augmentation
from ..data.dataset_checks import as_input
from ..models.class_names import check_order
from ..models.input_spec import InputSpec
from ..models.network import LARGE, Network
from ..models.pixel_bytes import to_pixels
from ..records.record import Record
from ..synthesis import methods
from ..synthesis.cost import affordable_chunk, check_chunk
from ..synthesis.made_chunk import made_chunk
from ..synthesis.methods import BoundMethod, Synthesizer
from ..synthesis.sampling import Samples
from ..synthesis.synthetic_set import SyntheticSet, is_optimised

__all__ = [
    "EPOCH_IMAGES",
    "FreshImages",
    "MixedImages",
    "Source",
    "StoredImages",
    "fresh_images",
    "labelled",
    "labelled_samples",
    "soft_labelled",
    "stored_images",
]


EPOCH_IMAGES = 20_000
"""Default number of new images per epoch."""


FRESH = 1024
"""Default number of new images that are made at a time."""
ORDER_BYTES = 24
"""Bytes for each image of an epoch's order: random positions, their parts and the joined ones, all int64."""


@runtime_checkable
class Source(Protocol):
    """Epochs of batches. `targets` are class indices (N,) in training and logits (N, classes) in distillation."""

    @property
    def spec(self) -> InputSpec: ...

    def __len__(self) -> int:
        """Number of images per epoch."""
        ...

    def distinct(self, epochs: int) -> int:
        """Number of different images in `epochs` epochs."""
        ...

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled (pixels float32, targets); the same for the same seed and epoch. An incomplete last batch is dropped."""
        ...


@dataclass(frozen=True)
class StoredImages:
    """A fixed set in memory: pixels (N, C, H, W), uint8 or float32 in the spec's range, and one target each.

    Targets are class numbers (N,), int64, to train on, or the teacher's logits (N, classes), float32, to distill from.
    Raises UserError if spec, pixels and targets do not fit together.
    """

    spec: InputSpec
    pixels: Tensor
    targets: Tensor
    in_range: bool = True
    """Whether all pixels lie in the spec's range; some methods of synthesis make images that do not."""

    def __post_init__(self) -> None:
        check_fields(self)
        self.spec.check_form(self.pixels, stored=True)
        if not len(self.pixels):
            raise UserError("pixels: got no image, expected at least one; give some images")
        if self.pixels.dtype != torch.uint8:
            (self.spec.check if self.in_range else self.spec.check_finite)(self.pixels)
        _check_targets(self.targets, len(self.pixels), len(self.spec.classes))

    def __len__(self) -> int:
        return len(self.pixels)

    def distinct(self, epochs: int) -> int:
        return len(self) if epochs else 0

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=stream(seed, "order", epoch))
        for part in _parts(order, batch):
            yield to_pixels(self.pixels[part], self.spec), self.targets[part]


def _check_targets(targets: Tensor, images: int, classes: int) -> None:
    """Raises UserError unless there is a class number, or a row of finite logits, for each image."""
    shape = tuple(targets.shape)
    if shape not in ((images,), (images, classes)):
        raise UserError(
            f"targets: got shape {shape}, expected ({images},) class numbers or ({images}, {classes}) logits, one for each "
            "image; give as many targets as images"
        )
    expected = (torch.int64,) if targets.ndim == 1 else (torch.float32, torch.float64)
    if targets.dtype not in expected:
        kind, advice = ("class numbers", ".long()") if targets.ndim == 1 else ("logits", ".float()")
        raise UserError(f"targets: got {kind} of {targets.dtype}, expected {expected[0]}; use {advice}")
    low, high = map(float, targets.aminmax())
    if targets.ndim == 1 and not 0 <= low <= high < classes:
        raise UserError(
            f"targets: got classes from {low:g} to {high:g}, expected 0 to {classes - 1}; correct the class numbers"
        )
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UserError("targets: got logits with NaN or infinity, expected finite ones; check the teacher")


def _parts(order: Tensor, batch: int) -> list[Tensor]:
    batch = min(batch, len(order))
    return list(order[: len(order) - len(order) % batch].split(batch))


@dataclass(frozen=True)
class FreshImages:
    """New images every epoch from a synthesis method: `images` per epoch, made in chunks of `chunk` images and shuffled."""

    spec: InputSpec
    bound_method: BoundMethod
    images: int
    chunk: int = FRESH

    def __post_init__(self) -> None:
        check_fields(self)
        check_count("images", self.images)
        check_count("chunk", self.chunk)
        check_chunk(self.chunk, self.spec)

    @property
    def teacher(self) -> Network:
        return self.bound_method.teacher

    def __len__(self) -> int:
        return self.images

    def distinct(self, epochs: int) -> int:
        return self.images * epochs

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        chunks, missing, batch = -(-self.images // self.chunk), self.images, min(batch, self.images)
        leftover: tuple[Tensor, Tensor] | None = None  # images of the chunk before, fewer than a batch
        with ThreadPoolExecutor(1) as pool:  # the next chunk is made while the student learns from this one
            future = pool.submit(self._labelled_chunk, epoch * chunks, seed)
            for index in range(epoch * chunks, (epoch + 1) * chunks):
                pixels, logits = future.result()
                if index + 1 < (epoch + 1) * chunks:
                    future = pool.submit(self._labelled_chunk, index + 1, seed)
                order = torch.randperm(len(pixels), generator=stream(seed, "order", index))[:missing]
                missing -= len(order)
                pixels, logits = pixels[order], logits[order]
                if leftover is not None:
                    pixels, logits = torch.cat([leftover[0], pixels]), torch.cat([leftover[1], logits])
                end = len(pixels) // batch * batch
                yield from zip(pixels[:end].split(batch), logits[:end].split(batch)) if end else ()
                leftover = pixels[end:], logits[end:]

    def _labelled_chunk(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        pixels = made_chunk(self.bound_method, index, seed, self.chunk).pixels
        batch = self.chunk if self.spec.pixels <= LARGE else None
        return pixels, self.bound_method.teacher.predict(pixels, batch=batch)


@dataclass(frozen=True)
class MixedImages:
    """A few images mixed with others: a share of `share` of each batch are `pixels` (N, C, H, W), in the spec's range.

    They are augmented differently each time, and labelled by the teacher after that. An epoch has `images` images, whatever
    N is; each of the N is used equally often. Without `others` the student learns from these alone.
    """

    teacher: Network
    pixels: Tensor
    others: Source | None
    images: int
    share: float = 0.5
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.share <= 1:
            raise UserError(f"share: got {self.share:g}, expected above 0 and at most 1; give such a share")
        self.teacher.spec.check_set(self.pixels)
        check_count("images", self.images)
        if not len(self.pixels):
            raise UserError("pixels: got no image, expected at least one; give some images")
        check_cost(
            ORDER_BYTES * self.images,
            f"the order of {self.images:,} images per epoch",
            otherwise="give fewer images per epoch",
        )
        if self.others is not None:
            _check_same_images(self.others.spec, self.spec)

    @property
    def spec(self) -> InputSpec:
        return self.teacher.spec

    def __len__(self) -> int:
        return self.images

    def distinct(self, epochs: int) -> int:
        """Number of different images before augmentation."""
        return (len(self.pixels) if epochs else 0) + (0 if self.others is None else self.others.distinct(epochs))

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        batch = min(batch, self.images)
        counts = [batch] * (self.images // batch) if self.others is None else self._counts(batch)
        order, rng = _rounds(len(self.pixels), sum(counts), stream(seed, "few", epoch)), stream(seed, "shown", epoch)
        other_parts = self._others(seed, epoch, [batch - count for count in counts])
        for rows in order.split(counts):
            pixels = self.spec.clamp(self.augmentation.show(self.pixels[rows], self.spec, rng))
            logits, others = self.teacher.predict(pixels, batch=batch), next(other_parts, None)
            if others is not None:
                pixels, logits = torch.cat([pixels, others[0]]), torch.cat([logits, others[1]])
            yield pixels, logits

    def _counts(self, batch: int) -> list[int]:
        """Number of own images in each batch. Over an epoch they are a share of `share`, up to one image."""
        totals = [math.floor(step * batch * self.share + 1e-9) for step in range(self.images // batch + 1)]
        return [end - start for start, end in pairwise(totals)]

    def _others(self, seed: int, epoch: int, counts: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches with these numbers of other images, from as many of the others' epochs as needed, none used twice."""
        if self.others is None or not sum(counts):
            return
        size = min(max(counts), len(self.others))
        rounds = -(-sum(counts) // (len(self.others) // size * size))
        parts = (part for turn in range(rounds) for part in self.others.epoch(seed, epoch * rounds + turn, size))
        pixels, logits = next(parts)
        for count in counts:
            while len(pixels) < count:
                more_pixels, more_logits = next(parts)
                pixels, logits = torch.cat([pixels, more_pixels]), torch.cat([logits, more_logits])
            yield pixels[:count], logits[:count]
            pixels, logits = pixels[count:], logits[count:]


def _check_same_images(others: InputSpec, spec: InputSpec) -> None:
    """Raises UserError unless the other images have the teacher's shape, range and classes."""
    if others.shape != spec.shape:
        raise UserError(
            f"others: got images of shape {others.shape}, expected {spec.shape}; give images for this teacher"
        )
    if (others.low, others.high) != (spec.low, spec.high):
        raise UserError(
            f"others: got pixels from {others.low:g} to {others.high:g}, expected {spec.low:g} to {spec.high:g}, the range "
            "of the teacher; give images for this teacher"
        )
    check_order(others.classes, spec.classes, "others", "the teacher", advice="have this teacher label them")


def _rounds(size: int, count: int, rng: torch.Generator) -> Tensor:
    """`count` random positions below `size`, all equally often, up to one."""
    rounds = -(-count // size)
    return torch.cat([torch.randperm(size, generator=rng) for _ in range(rounds)] or [torch.empty(0).long()])[:count]


@checked
def fresh_images(
    method: str | Mapping[str, Any] | Synthesizer,
    teacher: Network,
    record: Record | None = None,
    *,
    images: int = EPOCH_IMAGES,
    chunk: int | None = None,
) -> FreshImages:
    """`images` new images per epoch from `method`: a name, a mapping with `method`, or settings.

    `chunk` images are made at a time, by default 1,024, or fewer large ones. Suits methods that draw images in closed form;
    others optimise every image.
    """
    check_count("images", images)
    if record is not None:
        record.check_teacher(teacher)
    settings = methods.resolve(method)
    if chunk is None:
        chunk = affordable_chunk(teacher, FRESH) if is_optimised(settings) else FRESH
    bound = settings.bind(teacher, record)
    return FreshImages(bound.teacher.spec, bound, images, chunk)


@checked
def labelled(network: Network, data: LabelledData, progress: Progress = silent, *, part: bool = False) -> StoredImages:
    """The data set with its class labels, as input of `network`. With `part`, the data may have only some of its classes.

    Raises UserError for data that does not fit.
    """
    data = as_input(network, as_dataset(data, network), part=part)
    network.spec.check(data.pixels([0], network.spec.shape[1:]))
    pixels = data.empty(len(data), network.spec.shape[1:])
    for start in range(0, len(data), 4096):
        indices = torch.arange(start, min(start + 4096, len(data)))
        chunk = data.pixels(indices.numpy(), network.spec.shape[1:])
        network.spec.check(chunk)
        pixels[start : start + len(chunk)] = chunk
        progress(start + len(indices), len(data))
    return StoredImages(network.spec, pixels, data.labels)


@checked
def soft_labelled(teacher: Network, data: LabelledData | Samples) -> StoredImages:
    """The data set, or what `sample` returned, with the teacher's logits; with data, the baseline of distillation."""
    if isinstance(data, Samples):
        return labelled_samples(teacher, data, "data")
    images = labelled(teacher, data, part=True)
    return StoredImages(images.spec, images.pixels, teacher.predict(images.pixels))


def labelled_samples(teacher: Network, samples: Samples, name: str) -> StoredImages:
    """Images that `sample` returned, with this teacher's logits. Raises UserError, with `name`, for images that do not
    fit.
    """
    pixels, logits, own = samples.labelled_by(teacher, name)
    spec = teacher.spec if samples.border is None else teacher.spec.model_copy(update={"border": samples.border})
    return StoredImages(spec, pixels, logits, in_range=not own)


@checked
def stored_images(synthetic: SyntheticSet) -> StoredImages:
    """A synthetic set with its stored logits."""
    pixels, _, logits = synthetic.load()
    in_range = pixels.dtype == torch.uint8  # a method that does not keep pixels in range stores floats
    return StoredImages(synthetic.spec, pixels, logits, in_range=in_range)
