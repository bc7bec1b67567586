"""Synthesis methods: frozen settings whose one verb makes work units of images. One file each, found by discovery.

A unit's images depend on the run's seed and the unit's index alone, so that one process or many make the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ..._core.errors import UserError
from ..._core.plugins import Family
from ..._core.settings import Settings
from ...models.network import Network
from ...records.record import Record

__all__ = [
    "DEFAULT",
    "FAMILY",
    "Batch",
    "BoundMethod",
    "Synthesizer",
    "batches",
    "from_dict",
    "from_name",
    "methods",
    "needed",
    "resolve",
    "unit_labels",
]


DEFAULT = "distribution"


@dataclass(frozen=True)
class Batch:
    """One work unit: pixels (N, C, H, W) and the class each image was made for (N,).

    Soft labels are not part of it: they come from the teacher on the finished image, never from the wanted class.
    """

    pixels: Tensor
    labels: Tensor


class BoundMethod(Protocol):
    """A method bound to a teacher and its record, all costly preparation done: a frozen dataclass.

    Another thread works on ``dataclasses.replace(maker, teacher=copy)``, since hooks on one module are not for two.
    """

    @property
    def teacher(self) -> Network: ...

    def chunk(self, index: int, seed: int, size: int) -> Batch: ...


@runtime_checkable
class Synthesizer(Protocol):
    """Settings with a `method`; `on` binds them to a teacher and record."""

    method: str
    summary: ClassVar[str]
    """One line for the help."""
    in_range: bool
    """Pixels stay within the spec's range, so that a set can store them as bytes."""

    def bind(self, teacher: Network, record: Record | None) -> BoundMethod:
        """Raises UserError where the record lacks what the method needs."""
        ...


def batches(
    method: Synthesizer, teacher: Network, record: Record | None, *, units: Iterable[int], seed: int, size: int
) -> Iterator[Batch]:
    """The named work units, in order."""
    if record is not None:
        record.check_teacher(teacher)
    maker = method.bind(teacher, record)
    for index in units:
        yield maker.chunk(index, seed, size)


def unit_labels(index: int, size: int, classes: int) -> Tensor:
    """The classes of a unit's images: the unit goes on counting where the one before stopped, so sets are balanced."""
    import torch

    return (index * size + torch.arange(size)) % classes


def needed(method: str, record: Record | None, teacher: Network) -> Record:
    """The record, for the method of that name, which cannot do without. Raises UserError where there is none, naming a
    method that asks the teacher alone.
    """
    if record is None:
        other = _without_record(teacher)
        raise UserError(
            f"method {method!r} needs a record, got none; ask the publisher for it, name --record, or use --method {other}, "
            "which needs none"
        )
    return record


def _without_record(teacher: Network) -> str:
    """The best method that does with this teacher alone."""
    from ...models.behaviour import check_pixel_gradient
    from ...records.divergence import known

    try:
        check_pixel_gradient(teacher, "method inception")
    except UserError:
        return "gaussian"
    return "bns-inception" if known(teacher) else "inception"


FAMILY: Family[Synthesizer] = Family(__name__, "method", "synthesis method", ("summary", "in_range", "bind"))
"""The methods of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def methods() -> dict[str, type[Settings]]:
    """Every method by its name: those of this folder, and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A method by name with settings: ``method("spectral-pairs", steps=200)``, or ``method("mine.py:Mine")``."""
    return from_dict({"method": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A method from its dict; raises UserError for an unknown name or a setting that is off."""
    return FAMILY.from_dict(values)


def resolve(method: Any, name: str = "method") -> Synthesizer:
    """A method given as a name, a mapping with `method`, or settings; `name` is the parameter's, for messages.

    Raises UserError for a name that does not exist and for an object that cannot make images.
    """
    return FAMILY.resolve(method, name)
