"""Epochs of any number of steps over stored images: passes follow each other without a break."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from ...distillation.sources import StoredImages
from ...models.input_spec import InputSpec

__all__ = ["Passes"]


@dataclass(frozen=True)
class Passes:
    """A source whose epochs have `steps` batches of `batch` images each, whatever the number of its images.

    Each image is used once before any is used again, up to an incomplete last batch of a pass, so that an equal number of
    steps is possible for sets of any size.
    """

    source: StoredImages
    steps: int
    batch: int

    @property
    def spec(self) -> InputSpec:
        return self.source.spec

    def __len__(self) -> int:
        return self.steps * self.batch

    def distinct(self, epochs: int) -> int:
        return self.source.distinct(epochs)

    def epoch(self, seed: int, epoch: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches number `epoch * steps` to `(epoch + 1) * steps - 1` of all passes."""
        per_pass = max(1, len(self.source) // min(batch, len(self.source)))
        first = epoch * self.steps
        yield from islice(self._from(seed, first, per_pass, batch), self.steps)

    def _from(self, seed: int, first: int, per_pass: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        number, skipped = divmod(first, per_pass)
        while True:
            yield from islice(self.source.epoch(seed, number, batch), skipped, None)
            number, skipped = number + 1, 0
