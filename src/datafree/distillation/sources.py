"""Images with targets, as the training loops take them: real or synthetic, through the same code."""

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
from .._core.progress import Progress, silent
from .._core.seeds import stream
from ..data.adapters import LabelledData, as_dataset
from ..data.augmentation import Augmentation
from ..data.dataset_checks import as_input
from ..models.class_names import check_order
from ..models.input_spec import InputSpec
from ..models.network import Network
from ..models.pixel_bytes import to_pixels
from ..records.record import Record
from ..synthesis import methods
from ..synthesis.methods import BoundMethod, Synthesizer
from ..synthesis.synthetic_set import SyntheticSet

__all__ = [
    "EPOCH_IMAGES",
    "FreshImages",
    "MixedImages",
    "Source",
    "StoredImages",
    "fresh_images",
    "labelled",
    "soft_labelled",
    "stored_images",
]


EPOCH_IMAGES = 20_000
"""New images per epoch by default."""


@runtime_checkable
class Source(Protocol):
    """Epochs of batches. `targets` are class indices (N,) in training and logits (N, classes) in distillation."""

    @property
    def spec(self) -> InputSpec: ...

    def __len__(self) -> int:
        """Images an epoch."""
        ...

    def distinct(self, epochs: int) -> int:
        """Different images in so many epochs."""
        ...

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled (pixels float32, targets); the same for the same seed and epoch. A last part batch is dropped."""
        ...


@dataclass(frozen=True)
class StoredImages:
    """A fixed set in memory: pixels (N, C, H, W), uint8 or float32 in the spec's range, and one target each.

    Targets are class numbers (N,), int64, to train on, or the teacher's logits (N, classes), float32, to distill from.
    Raises UserError where the three do not fit together.
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
            f"image; give as many targets as images"
        )
    expected = (torch.int64,) if targets.ndim == 1 else (torch.float32, torch.float64)
    if targets.dtype not in expected:
        what, advice = ("class numbers", ".long()") if targets.ndim == 1 else ("logits", ".float()")
        raise UserError(f"targets: got {what} of {targets.dtype}, expected {expected[0]}; use {advice}")
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
    """New images every epoch from a closed-form method: `images` per epoch, made `chunk` at a time and mixed."""

    spec: InputSpec
    maker: BoundMethod
    images: int
    chunk: int = 1024

    def __post_init__(self) -> None:
        check_fields(self)
        check_count("images", self.images)
        check_count("chunk", self.chunk)

    @property
    def teacher(self) -> Network:
        return self.maker.teacher

    def __len__(self) -> int:
        return self.images

    def distinct(self, epochs: int) -> int:
        return self.images * epochs

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        units, left, batch = -(-self.images // self.chunk), self.images, min(batch, self.images)
        rest: tuple[Tensor, Tensor] | None = None  # of the unit before, less than a batch
        with ThreadPoolExecutor(1) as ahead:  # the next unit is made while the student learns from this one
            coming = ahead.submit(self._made, epoch * units, seed)
            for index in range(epoch * units, (epoch + 1) * units):
                pixels, logits = coming.result()
                if index + 1 < (epoch + 1) * units:
                    coming = ahead.submit(self._made, index + 1, seed)
                order = torch.randperm(len(pixels), generator=stream(seed, "order", index))[:left]
                left -= len(order)
                made = pixels[order], logits[order]
                own = made if rest is None else tuple(torch.cat(both) for both in zip(rest, made))
                whole = len(own[0]) // batch * batch
                yield from zip(own[0][:whole].split(batch), own[1][:whole].split(batch)) if whole else ()
                rest = own[0][whole:], own[1][whole:]

    def _made(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        pixels = self.maker.chunk(index, seed, self.chunk).pixels
        return pixels, self.maker.teacher.predict(pixels, batch=self.chunk)


@dataclass(frozen=True)
class MixedImages:
    """A few images among many: `share` of what is learnt from are `pixels` (N, C, H, W), in the spec's range.

    They are augmented anew each time, and the target is what the teacher says of that showing. `images` an epoch, however
    few there are: all are shown equally often. Without `others` they are all that is learnt from.
    """

    teacher: Network
    pixels: Tensor
    others: Source | None
    images: int
    share: float = 0.5
    how: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.share <= 1:
            raise UserError(f"share: got {self.share:g}, expected above 0 and at most 1; give such a share")
        self.teacher.spec.check_set(self.pixels)
        if self.images < 1 or not len(self.pixels):
            counts = f"{self.images} an epoch of {len(self.pixels)} images"
            raise UserError(f"epoch_images: got {counts}, expected at least 1; give a positive count")
        if self.others is not None:
            _check_alike(self.others.spec, self.spec)

    @property
    def spec(self) -> InputSpec:
        return self.teacher.spec

    def __len__(self) -> int:
        return self.images

    def distinct(self, epochs: int) -> int:
        """Before they are augmented."""
        return (len(self.pixels) if epochs else 0) + (0 if self.others is None else self.others.distinct(epochs))

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        batch = min(batch, self.images)
        own = [batch] * (self.images // batch) if self.others is None else self._own(batch)
        order, rng = _rounds(len(self.pixels), sum(own), stream(seed, "few", epoch)), stream(seed, "shown", epoch)
        rest = self._others(seed, epoch, [batch - count for count in own])
        for rows in order.split(own):
            shown = self.spec.clamp(self.how.show(self.pixels[rows], self.spec, rng))
            few, many = (shown, self.teacher.predict(shown, batch=batch)), next(rest, None)
            yield few if many is None else (torch.cat([few[0], many[0]]), torch.cat([few[1], many[1]]))

    def _own(self, batch: int) -> list[int]:
        """How many of each batch; the sum over the epoch is the share of it, to less than an image."""
        due = [math.floor(step * batch * self.share + 1e-9) for step in range(self.images // batch + 1)]
        return [after - before for before, after in pairwise(due)]

    def _others(self, seed: int, epoch: int, counts: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts of those sizes, from as many of the others' epochs as it takes; each of them has its number but once."""
        if self.others is None or not sum(counts):
            return
        size = min(max(counts), len(self.others))
        rounds = -(-sum(counts) // (len(self.others) // size * size))
        turns = (part for turn in range(rounds) for part in self.others.epoch(seed, epoch * rounds + turn, size))
        held = next(turns)
        for count in counts:
            while len(held[0]) < count:
                more = next(turns)
                held = torch.cat([held[0], more[0]]), torch.cat([held[1], more[1]])
            yield held[0][:count], held[1][:count]
            held = held[0][count:], held[1][count:]


def _check_alike(others: InputSpec, spec: InputSpec) -> None:
    """Raises UserError for images that are not of the teacher's shape and range, which stand in one batch with its own."""
    if others.shape != spec.shape:
        raise UserError(
            f"others: got images of shape {others.shape}, expected {spec.shape}; give images for this teacher"
        )
    if (others.low, others.high) != (spec.low, spec.high):
        raise UserError(
            f"others: got pixels from {others.low:g} to {others.high:g}, expected {spec.low:g} to {spec.high:g}, as the "
            "teacher takes them; give images for this teacher"
        )
    check_order(others.classes, spec.classes, "others", "the teacher", advice="have this teacher label them")


def _rounds(size: int, count: int, rng: torch.Generator) -> Tensor:
    """`count` positions below `size`, each as often as any other, give or take one."""
    turns = -(-count // size)
    return torch.cat([torch.randperm(size, generator=rng) for _ in range(turns)] or [torch.empty(0).long()])[:count]


@checked
def fresh_images(
    method: str | Mapping[str, Any] | Synthesizer,
    teacher: Network,
    record: Record | None = None,
    *,
    images: int = EPOCH_IMAGES,
    chunk: int = 1024,
) -> FreshImages:
    """`images` new images per epoch by a method: a name, a mapping with `method`, or settings.

    They are made `chunk` at a time. Suits methods that draw in closed form; others take their steps for every image.
    """
    check_count("images", images)
    if record is not None:
        record.check_teacher(teacher)
    settings = methods.resolve(method)
    return FreshImages(teacher.spec, settings.bind(teacher, record), images, chunk)


@checked
def labelled(network: Network, data: LabelledData, progress: Progress = silent, *, part: bool = False) -> StoredImages:
    """The data set with its class labels, as `network` takes it; with `part`, some of its classes will do.

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
def soft_labelled(teacher: Network, data: LabelledData) -> StoredImages:
    """The data set with the teacher's logits: the baseline of a distillation with data."""
    images = labelled(teacher, data, part=True)
    return StoredImages(images.spec, images.pixels, teacher.predict(images.pixels))


@checked
def stored_images(synthetic: SyntheticSet) -> StoredImages:
    """A synthetic set with its stored logits."""
    pixels, _, logits = synthetic.load()
    return StoredImages(
        synthetic.spec, pixels, logits, in_range=pixels.dtype == torch.uint8
    )  # floats are of a method without a box
