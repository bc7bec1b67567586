"""Matching a record: each image its own sampled target (the paper), or the batch its moments."""

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

__all__ = ["MatchMoments", "MatchTargets", "Measured", "measured"]


@dataclass(frozen=True)
class Measured:
    """An entry of a record with its meter, whose preparation (a graph's basis, say) is done once."""

    entry: Entry
    meter: Accumulator

    @property
    def taps(self) -> tuple[str, ...]:
        return self.entry.taps

    def observe(self, view: View) -> list[Tensor]:
        return self.meter.observe([view.activations[tap].float() for tap in self.taps])


def measured(network: Network, record: Record, entries: Iterable[str]) -> tuple[Measured, ...]:
    """The named entries with their meters for `network`, the record's teacher; each is made ready.

    Raises UserError where a graph's basis does not come out as at the publisher's.
    """
    found = tuple(Measured(record.entries[name], record.meter(name, network)) for name in entries)
    for own in found:
        if isinstance(own.meter, SpectralAccumulator):
            own.meter.ready(own.entry.summary)
    return found


@dataclass(frozen=True)
class MatchTargets(Term):
    """Squared distance between activations and targets drawn from the record, one target an image (sec. 3.1)."""

    entries: tuple[Measured, ...]
    normalise: bool = True
    """Each tap's sum of squares is divided by its number of units (sec. 3.1.2); the spectral loss is a plain sum."""
    relu: bool = True
    """ReLU on targets and activations of hidden layers (sec. 3.1.1)."""
    relu_logits: bool = True
    """The same on the logits. The paper's; it deletes every negative target."""
    dropout: float = 0.0
    """Share of hidden units masked, one mask an image and layer, held for all steps (sec. 3.1.2).

    A conv layer recorded by channels is masked unit by unit all the same, as in the teacher's training; its target is left
    as it is, since the average over positions keeps its expectation.
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
        drawn = [own.meter.sample(own.entry.summary, labels, rng) for own in self.entries]
        targets = tuple(tuple(t.to(network.device) for t in group) for group in drawn)
        return replace(self, targets=targets, masks=self._draw_masks(network, len(labels), top, rng), top=top)

    def _draw_masks(self, network: Network, count: int, top: str, rng: torch.Generator) -> dict[str, Tensor]:
        """Masks (N, ...) of hidden taps, 0 or 1 / keep, as dropout scales in training."""
        if not self.dropout:
            return {}
        keep = 1 - self.dropout
        shapes = tap_names.shapes(network, [tap for tap in self.taps if tap != top])
        draw = {tap: torch.rand(count, *shape, generator=rng) < keep for tap, shape in shapes.items()}
        return {tap: (mask.float() / keep).to(network.device) for tap, mask in draw.items()}

    def __call__(self, view: View) -> Tensor:
        total = view.pixels.new_zeros(())
        for own, targets in zip(self.entries, self.targets, strict=True):
            for tap, activation, target in zip(own.taps, own.observe(view), targets, strict=True):
                total = total + self._one(tap, activation, target)
        return total

    def _one(self, tap: str, activation: Tensor, target: Tensor) -> Tensor:
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
    """Distance between the batch's own statistics and the record's, averaged over entries; times the batch's size."""

    entries: tuple[Measured, ...]

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tap for entry in self.entries for tap in entry.taps))

    def __call__(self, view: View) -> Tensor:
        distances = [
            own.meter.distance(own.entry.summary, [view.activations[tap].float() for tap in own.taps], view.labels)
            for own in self.entries
        ]
        return torch.stack(distances).mean() * len(view.pixels)
