"""Statistics: how activations become a summary, and the distance of a batch from it. One file each.

A statistic is frozen settings with a `kind`. `bind` returns its `Accumulator` for a network and taps. A new statistic
is a new file in this folder: discovery makes it available to records, to the command line and to the tests of the
family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..._core.plugins import Family
from ..._core.settings import Settings
from ...models.network import Network

__all__ = [
    "FAMILY",
    "Accumulator",
    "State",
    "Statistic",
    "Summary",
    "Table",
    "difference",
    "from_dict",
    "kinds",
    "offered",
    "table",
]

State = dict[str, Tensor]
"""Sums in float64 and the number of samples; a monoid under `merge`."""
Summary = dict[str, Tensor]
"""The tensors that a record stores."""
Table = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> (number format, shape), compared by `check`."""


def table(summary: Summary) -> Table:
    """The number formats and shapes of a summary."""
    return {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in summary.items()}


def difference(actual: Table, expected: Table) -> str:
    """The first tensor that differs between two different tables, in words."""
    name = next(key for key in sorted({*actual, *expected}) if actual.get(key) != expected.get(key))
    actual_words, expected_words = (
        "none" if name not in entries else " ".join(str(part)[:80] for part in entries[name])
        for entries in (actual, expected)
    )
    return f"{name[:80]!r}: got {actual_words}, expected {expected_words}"


@runtime_checkable
class Accumulator(Protocol):
    """A statistic bound to one network and its taps.

    One of a statistic with `needs_data = False` has `read() -> Summary` instead of `reduce`, `merge` and `finish`: it takes
    its numbers from the network.
    """

    def reduce(self, activations: Sequence[Tensor], labels: Tensor) -> State:
        """Activations (N, ...) of each tap and labels (N,) as a state: tensors whose size does not depend on N.

        The state has `count`, the samples (images, or images times positions) of each class or group. Tensors called
        `square` (sums of squares) must not be negative, and those called `key` lie between 0 and 0.5: a stopped recording is
        checked by these rules when it is continued.
        """
        ...

    def merge(self, a: State, b: State) -> State:
        """The state of both batches together. Associative and commutative up to rounding."""
        ...

    def finish(self, state: State) -> Summary:
        """The summary to store. Raises UserError for a class without samples."""
        ...

    def layout(self) -> Table:
        """Names, number formats and shapes of a summary, which `record` compares with what `finish` returns. A built-in
        statistic whose shape depends on the data gives the largest.
        """
        ...

    def check(self, summary: Summary) -> None:
        """Raises UserError unless names, dtypes and shapes fit this network and all values are possible."""
        ...

    def sample(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> list[Tensor]:
        """One target activation for every label and tap, each (N, ...) as returned by `observe`."""
        ...

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Activations in the form that `sample` draws: scaled, pooled over positions, or unchanged."""
        ...

    def distance(self, summary: Summary, activations: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The distance between the batch's statistic and the summary: a differentiable scalar, 0 at equality."""
        ...

    def released_statistics(self, summary: Summary) -> float:
        """Sum over groups of (released statistics) / (samples they were computed from), for the forecast of leakage."""
        ...


@runtime_checkable
class Statistic(Protocol):
    """Settings with a `kind`. `plan` lists the entries it records for a network, `bind` binds it to taps."""

    kind: str
    needs_data: ClassVar[bool]

    def plan(self, network: Network, taps: Sequence[str]) -> Mapping[str, tuple[Statistic, tuple[str, ...]]]:
        """Entry name -> (the statistic to store with it, its taps)."""
        ...

    def bind(self, network: Network, taps: Sequence[str]) -> Accumulator:
        """The accumulator for these taps of the network."""
        ...


FAMILY: Family[Statistic] = Family(__name__, "kind", "statistic", ("needs_data", "bind", "plan"))
"""The statistics of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def kinds() -> dict[str, type[Settings]]:
    """Every statistic by its kind: those of this folder, and installed plug-ins."""
    return FAMILY.kinds()


def offered() -> dict[str, type[Settings]]:
    """The kinds that new records can have; files of earlier versions may hold the others of `kinds` too."""
    return {kind: settings for kind, settings in kinds().items() if getattr(settings, "offered", True)}


def from_dict(values: Any, *, strict: bool = False) -> Any:
    """A statistic from its dict. Raises UserError for an unknown kind or an invalid setting; with `strict`, for dicts from
    files, also for a value of another JSON type and for a kind whose code is not loaded.
    """
    return FAMILY.from_dict(values, strict=strict, typed=not strict)
