"""Statistics: how activations become a summary, and how far a live batch is from it, in one file each.

A statistic is frozen settings with a `kind`. Bound to a network and its taps by `on`, it is a `Meter`. A new statistic
is a new file in this folder: discovery finds it, the record's loader and the family's tests with it.
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
"""Sums in float64: a monoid under `merge`, counted in samples."""
Summary = dict[str, Tensor]
"""What a record stores."""
Table = dict[str, tuple[str, tuple[int, ...]]]
"""Name -> (number format, shape): what `check` compares."""


def table(summary: Summary) -> Table:
    """The number formats and shapes of a summary."""
    return {name: (str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in summary.items()}


def difference(got: Table, wanted: Table) -> str:
    """The first tensor that is missing, too much or of another format or shape, in words; for tables that differ."""
    name = next(key for key in sorted({*got, *wanted}) if got.get(key) != wanted.get(key))
    one, other = (
        "none" if name not in entries else " ".join(str(part)[:80] for part in entries[name])
        for entries in (got, wanted)
    )
    return f"{name[:80]!r}: got {one}, wanted {other}"


@runtime_checkable
class Accumulator(Protocol):
    """A statistic bound to one network and its taps."""

    def reduce(self, activations: Sequence[Tensor], labels: Tensor) -> State:
        """Activations (N, ...) of each tap and labels (N,) as a state."""
        ...

    def merge(self, a: State, b: State) -> State:
        """The state of both batches together; associative and commutative up to rounding."""
        ...

    def finish(self, state: State) -> Summary:
        """What is stored. Raises UserError for a class without samples."""
        ...

    def layout(self) -> Table:
        """Names, number formats and shapes of a summary; of a shape that depends on the data, the largest."""
        ...

    def check(self, summary: Summary) -> None:
        """Raises UserError unless names, dtypes and shapes are those of this network, and values are possible ones."""
        ...

    def sample(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> list[Tensor]:
        """One target activation for every label and tap, each (N, ...) like what `live` gives."""
        ...

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Activations as `sample` draws them: scaled, pooled over positions, or as they are."""
        ...

    def distance(self, summary: Summary, activations: Sequence[Tensor], labels: Tensor) -> Tensor:
        """How far the batch's own statistic is from the summary: a scalar with a gradient, 0 at equality."""
        ...

    def released_statistics(self, summary: Summary) -> float:
        """Sum over groups of (statistics released) / (samples they were taken from): what a forecast of leakage needs."""
        ...


@runtime_checkable
class Statistic(Protocol):
    """Settings with a `kind`; `plan` says what it records of a network, `on` binds it to taps."""

    kind: str
    needs_data: ClassVar[bool]

    def plan(self, network: Network, taps: Sequence[str]) -> Mapping[str, tuple[Statistic, tuple[str, ...]]]:
        """Entry name -> (the statistic to store with it, its taps)."""
        ...

    def bind(self, network: Network, taps: Sequence[str]) -> Accumulator:
        """The meter for those taps of that network."""
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
    """A statistic from its dict; raises UserError for an unknown kind or a setting that is off; where `strict`, as in a
    file, for a value of another JSON type too, and for a kind whose code is not loaded.
    """
    return FAMILY.from_dict(values, strict=strict, typed=not strict)
