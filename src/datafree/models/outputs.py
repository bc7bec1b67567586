"""The logits among what a network returns: a tensor, a tuple, a mapping, or a dataclass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

from .._core.errors import UserError, cut

__all__ = ["has_several", "logits_of", "output_name"]

MOST_LISTED = 6
LONGEST = 80
"""Maximum number of characters of the name of an output."""


def logits_of(returned: Any, images: int, classes: int, *, name: str, output: str | None = None) -> Tensor:
    """The logits among what the network `name` returned for a batch of `images`.

    A tensor is taken as it is. Of a tuple, a mapping or a dataclass, `output` names the entry, by position or name, with `/`
    between nested ones. Without it, the entry is the one called `logits`, else the only one of shape (images, classes).
    Trailing dimensions of size 1, as of (images, classes, 1, 1), are dropped. Raises UserError if no entry or several fit.
    """
    if isinstance(returned, Tensor):
        return _flat(returned, classes)
    listed = list(_entries(returned))
    entries = dict(listed)
    if len(entries) < len(listed):
        twice = next(key for key, _ in listed if [other for other, _ in listed].count(key) > 1)
        raise UserError(f"{name} returns two outputs called {cut(twice)!r}, expected one; rename one of them")
    if not entries:
        raise UserError(
            f"{name} returns a {type(returned).__name__}, expected a tensor of logits, alone or in a tuple, a dict or a "
            "dataclass; return the logits"
        )
    if output is not None:
        if output not in entries:
            raise UserError(f"output: got {cut(output)}, expected one of {_listed(entries)}, which {name} returns")
        return _flat(entries[output], classes)
    if "logits" in entries:
        return _flat(entries["logits"], classes)
    fitting = [key for key, tensor in entries.items() if _flat(tensor, classes).shape == (images, classes)]
    if len(fitting) == 1:
        return _flat(entries[fitting[0]], classes)
    kind = f"a {type(returned).__name__} of {_listed(entries)}"
    if fitting:
        raise UserError(
            f"{name} returns {kind}, expected one output of shape (images, {classes} classes), which {len(fitting)} have; "
            f"choose it, such as `output={fitting[0]!r}`, or call one `logits`"
        )
    raise UserError(
        f"{name} returns {kind}, expected one of shape (images, {classes} classes); give the number of its classes"
    )


def has_several(returned: Any, output: str) -> bool:
    """Whether `returned` is no tensor alone and has an entry of the name `output`."""
    return not isinstance(returned, Tensor) and output in dict(_entries(returned))


def output_name(output: str | int | None) -> str | None:
    """The name of an output as text; None for None. Raises UserError for a name that cannot be one."""
    if output is None:
        return None
    text = str(output)
    if not text.isprintable() or not 0 < len(text) <= LONGEST:
        raise UserError(
            f"output: got {cut(text)!r}, expected the position or name of an output, of up to {LONGEST} printable "
            "characters; correct it"
        )
    return text


def _entries(returned: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors in it by position or name, with `/` between nested ones."""
    if isinstance(returned, Tensor):
        yield prefix.removesuffix("/"), returned
        return
    if depth > 3:
        return
    for key, value in _items(returned):
        yield from _entries(value, f"{prefix}{key}/", depth + 1)


def _items(returned: Any) -> list[tuple[Any, Any]]:
    if isinstance(returned, Mapping):
        return list(returned.items())
    if is_dataclass(returned) and not isinstance(returned, type):
        return [(field.name, getattr(returned, field.name)) for field in fields(returned)]
    names = getattr(returned, "_fields", None)
    if isinstance(returned, tuple) and names is not None:
        return list(zip(names, returned, strict=True))
    return list(enumerate(returned)) if isinstance(returned, (tuple, list)) else []


def _flat(logits: Tensor, classes: int) -> Tensor:
    """Without trailing dimensions of size 1 after that of the classes."""
    if logits.ndim > 2 and logits.shape[1] == classes and all(size == 1 for size in logits.shape[2:]):
        return logits.flatten(1)
    return logits


def _listed(entries: Mapping[str, Tensor]) -> str:
    listed = [f"{cut(key)} {tuple(tensor.shape)}" for key, tensor in list(entries.items())[:MOST_LISTED]]
    more = f" and {len(entries) - MOST_LISTED} more" if len(entries) > MOST_LISTED else ""
    return ", ".join(listed) + more
