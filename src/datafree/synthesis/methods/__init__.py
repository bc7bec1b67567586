"""Synthesis methods: frozen settings that are bound to a teacher and make images in chunks. One file each, found by
discovery.

A chunk depends only on the run's seed and its index, so that one process or many make the same bytes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ..._core.errors import UserError
from ..._core.plugins import Family
from ..._core.progress import Progress, silent
from ..._core.seeds import stream
from ..._core.settings import Settings
from ...models.network import Network
from ...records.divergence import has_statistics
from ...records.record import Record

__all__ = [
    "DEFAULT",
    "DEFAULT_WITHOUT_RECORD",
    "FAMILY",
    "Batch",
    "BoundMethod",
    "Synthesizer",
    "batches",
    "bind",
    "chunk_labels",
    "from_dict",
    "from_name",
    "methods",
    "needed",
    "reads_record",
    "resolve",
    "resolve_for",
    "stream",
]


DEFAULT = "distribution"
"""The default method with a record."""
DEFAULT_WITHOUT_RECORD = "meta-generator"
"""The default method without a record, for a network with batch norms."""


@dataclass(frozen=True)
class Batch:
    """One chunk: pixels (N, C, H, W) and the target class of each image (N,).

    Soft labels are not part of it: they are the teacher's logits on the finished image, never the target class.
    """

    pixels: Tensor
    labels: Tensor


class BoundMethod(Protocol):
    """A method bound to a teacher and its record, with all costly preparation done: a frozen dataclass.

    Another thread works on ``dataclasses.replace(bound, teacher=copy)``, because two threads cannot share a module's hooks.
    """

    @property
    def teacher(self) -> Network: ...

    def chunk(self, index: int, seed: int, size: int) -> Batch: ...


@runtime_checkable
class Synthesizer(Protocol):
    """Settings with a `method`; `bind` binds them to a teacher and record.

    A class may also have `targeted: ClassVar[bool] = False`, if its images are not made for target classes, and
    `reads_record(teacher, record) -> bool`, if some records have nothing that it uses.
    """

    summary: ClassVar[str]
    """One line for the help."""
    in_range: ClassVar[bool]
    """Pixels stay within the spec's range, so that a set can store them as bytes."""

    @property
    def method(self) -> str:
        """The method's name."""
        ...

    def bind(self, teacher: Network, record: Record | None) -> BoundMethod:
        """Raises UserError if the record lacks what the method needs.

        A method whose preparation takes long may also take `workers` and `progress`, which `methods.bind` passes.
        """
        ...


def resolve_for(method: Any, teacher: Network, record: Record | None) -> Synthesizer:
    """`resolve(method)`; for None a default method, by the record, or else by the teacher's batch norms."""
    if method is not None:
        return resolve(method)
    return from_name(DEFAULT_WITHOUT_RECORD if record is None and has_statistics(teacher) else DEFAULT)


def bind(
    method: Synthesizer,
    teacher: Network,
    record: Record | None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> BoundMethod:
    """The method bound to a teacher and its record. A long preparation runs on `workers` threads, by default as many as
    torch uses, and is shown as a stage of `progress`.
    """
    from ...models.precision import note_emulation

    note_emulation(getattr(method, "precision", None), teacher.device)
    taken = inspect.signature(method.bind).parameters
    options = {"workers": workers, "progress": progress}
    return method.bind(teacher, record, **{name: value for name, value in options.items() if name in taken})


def reads_record(method: Any, teacher: Network, record: Record) -> bool:
    """Whether the method uses anything of this record; True for one that does not say so."""
    reads = getattr(method, "reads_record", None)
    return True if reads is None else bool(reads(teacher, record))


def batches(
    method: Synthesizer, teacher: Network, record: Record | None, *, chunks: Iterable[int], seed: int, size: int
) -> Iterator[Batch]:
    """The chunks with these indices, in order."""
    if record is not None:
        record.check_teacher(teacher)
    bound = method.bind(teacher, record)
    for index in chunks:
        yield bound.chunk(index, seed, size)


def chunk_labels(index: int, size: int, classes: int) -> Tensor:
    """Target classes of a chunk's images. They continue those of the chunk before, so that sets are balanced."""
    import torch

    return (index * size + torch.arange(size)) % classes


def needed(method: str, record: Record | None, teacher: Network) -> Record:
    """The record. Raises UserError if there is none, naming a method that needs none."""
    if record is None:
        raise UserError(
            f"method {method!r} needs a record, got none; ask the publisher for it, give a `record`, or use the method "
            f"{_method_without_record(teacher)!r}, which needs none"
        )
    return record


def _method_without_record(teacher: Network) -> str:
    """The best method that only needs this teacher."""
    from ...models.behaviour import check_pixel_gradient

    try:
        check_pixel_gradient(teacher, "method inception")
    except UserError:
        return "gaussian"
    return "bns-inception" if has_statistics(teacher) else "inception"


FAMILY: Family[Synthesizer] = Family(__name__, "method", "synthesis method", ("summary", "in_range", "bind"))
"""The methods of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def methods() -> dict[str, type[Settings]]:
    """All methods by name: those in this folder and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A method by name with settings: ``method("spectral-pairs", steps=200)`` or ``method("mine.py:Mine")``."""
    return from_dict({"method": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A method from its dict; raises UserError for an unknown name or an invalid setting."""
    return FAMILY.from_dict(values)


def resolve(method: Any, name: str = "method") -> Synthesizer:
    """A method given as a name, a mapping with `method`, or settings; `name` is the parameter's, for messages.

    Raises UserError for a name that does not exist and for an object that cannot make images.
    """
    return FAMILY.resolve(method, name)
