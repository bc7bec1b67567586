"""Images with targets, as the training loops take them: real or synthetic, through the same code."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from . import synthesis
from .data import Dataset
from .network import Network
from .progress import Progress, silent
from .records import Record, check_classes
from .seeds import stream
from .spec import InputSpec
from .synthesis import Maker
from .syntheticset import SyntheticSet, to_pixels

__all__ = ["Fresh", "Images", "Source", "fresh", "labelled", "soft_labelled", "stored"]


class Source(Protocol):
    """Epochs of batches. `targets` are class indices (N,) in training and logits (N, classes) in distillation."""

    @property
    def spec(self) -> InputSpec: ...

    def __len__(self) -> int:
        """Images an epoch."""
        ...

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled (pixels float32, targets); the same for the same seed and epoch. A last part batch is dropped."""
        ...


@dataclass(frozen=True)
class Images:
    """A fixed set in memory: pixels uint8 or float32 (N, C, H, W), one target each."""

    spec: InputSpec
    pixels: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self), generator=stream(seed, "order", epoch))
        for part in _parts(order, batch):
            yield to_pixels(self.pixels[part], self.spec), self.targets[part]


def _parts(order: Tensor, batch: int) -> list[Tensor]:
    batch = min(batch, len(order))
    return list(order[: len(order) - len(order) % batch].split(batch))


@dataclass(frozen=True)
class Fresh:
    """New images every epoch from a closed-form method: `images` an epoch, made in units and mixed."""

    spec: InputSpec
    maker: Maker
    images: int
    unit: int = 1024

    def __len__(self) -> int:
        return self.images

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        units, left, batch = -(-self.images // self.unit), self.images, min(batch, self.images)
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
        pixels = self.maker.unit(index, seed, self.unit).pixels
        return pixels, self.maker.teacher.predict(pixels, batch=self.unit)


def fresh(method: str | Any, teacher: Network, record: Record | None, *, images: int) -> Fresh:
    """`images` new images an epoch by a method, given by name or as settings; for methods that draw in closed form."""
    own = synthesis.of({"method": method}) if isinstance(method, str) else method
    return Fresh(teacher.spec, own.on(teacher, record), images)


def labelled(network: Network, data: Dataset, progress: Progress = silent) -> Images:
    """The data set with its class labels, as `network` takes it. Raises UserError for data that does not fit."""
    check_classes(network, data)
    parts = []
    for start in range(0, len(data), 4096):
        indices = torch.arange(start, min(start + 4096, len(data)))
        parts.append(data.pixels(indices.numpy(), network.spec.shape[1:]))
        network.spec.check(parts[-1])
        progress(start + len(indices), len(data))
    return Images(network.spec, torch.cat(parts), data.labels)


def soft_labelled(teacher: Network, data: Dataset) -> Images:
    """The data set with the teacher's logits: the baseline of a distillation with data."""
    own = labelled(teacher, data)
    return Images(own.spec, own.pixels, teacher.predict(own.pixels))


def stored(synthetic: SyntheticSet) -> Images:
    """A synthetic set with its stored logits."""
    pixels, _, logits = synthetic.load()
    return Images(synthetic.spec, pixels, logits)
