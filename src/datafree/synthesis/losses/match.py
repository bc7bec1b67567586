"""Losses that match a record: each image its own sampled target (Lopes et al. 2017), or the batch its moments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ...models import hooks as tap_names
from ...models.hooks import Edit
from ...models.network import Network
from ...records.record import Entry, Record
from ...records.statistics import Accumulator
from ...records.statistics.spectral_accumulator import SpectralAccumulator
from . import Term, View

__all__ = ["BoundEntry", "MatchMoments", "MatchTargets", "bind_entries"]


@dataclass(frozen=True)
class BoundEntry:
    """An entry of a record with its accumulator, which is prepared once (for example, a graph's basis)."""

    entry: Entry
    accumulator: Accumulator

    @property
    def taps(self) -> tuple[str, ...]:
        return self.entry.taps

    def observe(self, view: View) -> list[Tensor]:
        return self.accumulator.observe([view.activations[tap].float() for tap in self.taps])


def bind_entries(network: Network, record: Record, entries: Iterable[str]) -> tuple[BoundEntry, ...]:
    """The named entries of `record`, with accumulators that are ready for its teacher `network`.

    Raises UserError if a graph's basis differs from the publisher's.
    """
    bound = tuple(BoundEntry(record.entries[name], record.accumulator(name, network)) for name in entries)
    for entry in bound:
        if isinstance(entry.accumulator, SpectralAccumulator):
            entry.accumulator.ready(entry.entry.summary)
    return bound


@dataclass(frozen=True)
class MatchTargets(Term):
    """Squared distance of activations from targets drawn from the record, one target per image (sec. 3.1)."""

    entries: tuple[BoundEntry, ...]
    normalise: bool = True
    """Divide each tap's sum of squares by its number of units (sec. 3.1.2); the spectral loss is a plain sum."""
    relu: bool = True
    """Apply ReLU to targets and activations of hidden layers (sec. 3.1.1)."""
    relu_logits: bool = True
    """Apply ReLU to the logits too, as in the paper; this discards all negative targets."""
    dropout: float = 0.0
    """Share of hidden units masked, with one mask per image and layer for all steps (sec. 3.1.2).

    A conv layer recorded by channels is still masked unit by unit, as in the teacher's training. Its target does not
    change, because masking keeps the expectation of the average over positions.
    """
    targets: tuple[tuple[Tensor, ...], ...] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    top: str = ""

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tap for entry in self.entries for tap in entry.taps))

    @property
    def edits(self) -> dict[str, Edit]:
        return {tap: partial(_masked, mask=mask) for tap, mask in self.masks.items()}

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> MatchTargets:
        top = tap_names.layers(network)[-1]
        samples = [entry.accumulator.sample(entry.entry.summary, labels, rng) for entry in self.entries]
        targets = tuple(tuple(target.to(network.device) for target in entry_targets) for entry_targets in samples)
        return replace(self, targets=targets, masks=self._draw_masks(network, len(labels), top, rng), top=top)

    def _draw_masks(self, network: Network, count: int, top: str, rng: torch.Generator) -> dict[str, Tensor]:
        """Masks (N, ...) of hidden taps with values 0 or 1 / keep, the scale of dropout in training."""
        if not self.dropout:
            return {}
        keep = 1 - self.dropout
        shapes = tap_names.shapes(network, [tap for tap in self.taps if tap != top])
        draw = {tap: torch.rand(count, *shape, generator=rng) < keep for tap, shape in shapes.items()}
        return {tap: (mask.float() / keep).to(network.device) for tap, mask in draw.items()}

    def __call__(self, view: View) -> Tensor:
        total = view.pixels.new_zeros(())
        for entry, targets in zip(self.entries, self.targets, strict=True):
            for tap, activation, target in zip(entry.taps, entry.observe(view), targets, strict=True):
                total = total + self._distance(tap, activation, target)
        return total

    def _distance(self, tap: str, activation: Tensor, target: Tensor) -> Tensor:
        if tap in self.masks and activation.shape[1] == self.masks[tap][0].numel():
            target = target * self.masks[tap].flatten(1)
        if self.relu_logits if tap == self.top else self.relu:
            activation, target = activation.relu(), target.relu()
        squares = (activation - target).square().sum()
        return squares / activation.shape[1] if self.normalise else squares


def _masked(activation: Tensor, mask: Tensor) -> Tensor:
    return activation * mask.to(activation.dtype)


@dataclass(frozen=True)
class MatchMoments(Term):
    """Distance of the batch's statistics from the record's, averaged over entries, times the batch size."""

    entries: tuple[BoundEntry, ...]

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tap for entry in self.entries for tap in entry.taps))

    def __call__(self, view: View) -> Tensor:
        distances = [
            bound.accumulator.distance(
                bound.entry.summary, [view.activations[tap].float() for tap in bound.taps], view.labels
            )
            for bound in self.entries
        ]
        return torch.stack(distances).mean() * len(view.pixels)
