"""Finds the state dict of a network in the described content of a torch file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ..errors import Notice, UserError, unknown
from .header import why_not_weight_name
from .pickle_reader import Described, Opaque

__all__ = ["KEYS", "behind", "state_dict"]

T = TypeVar("T")
KEYS = (
    "state_dict", "model_state_dict", "model", "model_state", "net", "network", "params", "weights", "module", "backbone",
    "encoder", "student", "teacher", "generator", "ema", "model_ema", "ema_state_dict", "state_dict_ema", "params_ema",
)  # fmt: skip
"""Keys under which training scripts store weights; an earlier one is preferred."""
_NOT_WEIGHTS = re.compile(
    "(?<![a-z])(?:optim|opts?|optim(?:iz|is)er[a-z]*|sched|scheduler[a-z]*|scaler[a-z]*|amp|rng|hyper|hparams|hyperparam[a-z]*)"
    "(?![a-z])"
)
"""Keys, in lower case, whose tensors are no weights: a word of them is that of an optimizer or the like."""
_DEPTH = 3
"""Maximum number of nested keys."""


def state_dict(content: Any, subject: str, key: str | None = None) -> dict[str, Described]:
    """The described tensors by name, without the enclosing dicts and a prefix 'module.' that all names share.

    `key`, with `/` between nested keys, names the dict to use, or what the names in it begin with. Without one it is the
    content itself if it holds no further tables of tensors; else the one under the first of `KEYS`, or the only one. Raises
    UserError if there is none or if they cannot be told apart, and warns with a `Notice` if there are others.
    """
    tables = dict(_tables(content, set()))
    if key is not None and (part := _under(content, key, tables, subject)) is not None:
        content, tables = part, {f"{key}/{name}": table for name, table in _tables(part, set())}
        key = None
    if tables and not (isinstance(content, dict) and _of_tensors(content) and not any(map(_has_usual_key, tables))):
        content = _chosen(content, tables, subject, key)
    elif isinstance(content, dict) and not _of_tensors(content):
        _check_module(content, subject)
    _check(content, subject)
    return _without_module(content)


def _chosen(content: Any, tables: dict[str, dict[str, Any]], subject: str, part: str | None) -> dict[str, Any]:
    """The preferred table, or those of its tensors whose names begin with `part`. Warns if there is another network."""
    chosen = min(tables, key=_rank)
    others = [name for name in tables if name != chosen]
    if others and not _has_usual_key(chosen) and part is not None:
        raise unknown("key", part, _listed(tables), subject)
    if others and not _has_usual_key(chosen):
        names = ", ".join(map(_quoted, list(tables)[:5]))
        raise UserError(f"{subject} holds weights under {names}, expected one of them; give `key`")
    table = tables[chosen]
    if part is not None:
        try:
            table = behind(part, table, subject)
        except UserError:
            raise unknown("key", part, [*_listed(tables), *_starts(table)], subject) from None
    _check(table, f"{_quoted(chosen)} of {subject}" if others else subject)
    others += [name for name in _unreadable(content) if name != chosen]
    if others or any(_is_loose(name, value) for name, value in content.items()):
        names = ", ".join(map(_quoted, others[:5])) or "the tensors beside them"
        warnings.warn(
            Notice(
                f"{subject} holds more than one network: the weights under {_quoted(chosen)} are used, not {names}"
                + ("; `key` chooses another one" if others else "")
            ),
            stacklevel=5,
        )
    return table


def _without_module(table: dict[str, T]) -> dict[str, T]:
    """The table without a prefix `module.` that all names share."""
    if not table or not all(isinstance(name, str) and name.startswith("module.") for name in table):
        return table
    return {name.removeprefix("module."): value for name, value in table.items()}


def _listed(tables: dict[str, Any]) -> dict[str, None]:
    """The keys of the tables, and the outermost ones of nested tables, each once."""
    return dict.fromkeys(key for path in tables for key in (path.partition("/")[0], path))


def _starts(table: dict[str, Any]) -> list[str]:
    """What names of tensors begin with that may belong to one of several networks."""
    names = [name for name in _without_module(table) if isinstance(name, str)]
    return sorted({name.partition(".")[0] for name in names if name.count(".") > 1})


def _unreadable(content: dict[Any, Any]) -> list[str]:
    """Keys under which training scripts store weights, and this one a whole network, or nothing."""
    return [name for name in content if name in KEYS and (isinstance(content[name], Opaque) or content[name] == {})]


def _check_module(content: dict[Any, Any], subject: str) -> None:
    """Raises UserError for a dict that holds a whole network, with its code, and no weights."""
    for name in _unreadable(content):
        value = content[name]
        if isinstance(value, Opaque) and not _is_tensor(value):
            raise UserError(
                f"{subject} holds {value.name[:80]!r} under {_quoted(name)}, which needs code; expected a state dict; "
                "save its state_dict() where it runs"
            )


def _is_loose(name: object, value: Any) -> bool:
    """Whether an entry beside tables is a weight rather than a number or the state of a random number generator."""
    return (
        isinstance(value, Described)
        and bool(value.shape)
        and not value.storage.endswith("ByteStorage")
        and _may_be_weights(name)
    )


def _may_be_weights(name: object) -> bool:
    return isinstance(name, str) and not _NOT_WEIGHTS.search(name.lower())


def _tables(content: Any, seen: set[int], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Described]]]:
    """The nested dicts of tensors, by their keys with `/` between; those of optimizers and the like are left out.

    A dict under one of `KEYS` is listed also if it holds other things beside tensors, which `_check` refuses: without it
    another network of the file would be used. A dict that occurs twice is listed once: a small file can nest one many times.
    """
    if not isinstance(content, dict) or len(path) == _DEPTH or id(content) in seen:
        return
    seen.add(id(content))
    for name, value in content.items():
        if not isinstance(value, dict) or id(value) in seen or not _may_be_weights(name):
            continue
        full = (*path, name)
        if value and all(map(_is_tensor, value.values())):
            seen.add(id(value))
            yield "/".join(full), value
            continue
        nested = list(_tables(value, seen, full))
        seen.add(id(value))
        yield from nested
        if not nested and name in KEYS and any(map(_is_tensor, value.values())):
            yield "/".join(full), value


def _is_tensor(value: Any) -> bool:
    """Whether it is a tensor, also of a kind that is refused later: sparse, quantized, or in a newer format."""
    return isinstance(value, Described) or (
        isinstance(value, Opaque) and value.name.startswith(("torch._utils _rebuild", "torch._tensor _rebuild"))
    )


def _of_tensors(content: dict[Any, Any]) -> bool:
    return any(isinstance(value, Described) for value in content.values())


def _has_usual_key(path: str) -> bool:
    return any(key in KEYS for key in path.split("/"))


def _rank(path: str) -> tuple[bool, int, int]:
    """Preference of a table: a known key first, then fewer nested keys, then the order of `KEYS`."""
    keys = path.split("/")
    return not _has_usual_key(path), len(keys), min((KEYS.index(key) for key in keys if key in KEYS), default=len(KEYS))


def _under(content: Any, key: str, tables: dict[str, Any], subject: str) -> Any:
    """The dict under a key, with `/` between nested keys. The last ones may be what names of tensors begin with.

    None if the key does not begin with one of the file: then it may be what names in the preferred dict begin with.
    """
    if key in tables:
        return tables[key]
    table = content
    for part in key.split("/"):
        if isinstance(table, dict) and part in table:
            table = table[part]
        elif isinstance(table, dict) and _of_tensors(table):
            table = behind(part, table, subject)
        elif tables and table is content:
            return None
        elif tables:
            raise unknown("key", key, tables, subject)
        else:
            raise UserError(
                f"no key {_quoted(key)} in {subject}, whose weights are in no further dict; leave `key` out"
            )
    return table


def behind(key: str, tensors: Mapping[str, T], subject: str) -> dict[str, T]:
    """The tensors whose names begin with `key` and a dot, without both; a `/` in it stands for a dot.

    A prefix `module.` that all names share need not be given. Raises UserError if there is no such tensor.
    """
    start = f"{key.replace('/', '.')}."
    for table in (tensors, _without_module(dict(tensors))):
        part = {name[len(start) :]: tensor for name, tensor in table.items() if str(name).startswith(start)}
        if part:
            return part
    raise unknown("key", key, sorted({str(name).partition(".")[0] for name in table}), subject)


def _check(content: Any, subject: str) -> None:
    """Raises UserError unless it is a dict of tensors with usable names."""
    if not isinstance(content, dict):
        raise UserError(
            f"{subject} holds {_kind(content)!r}; expected a state dict; torch.save(model.state_dict(), FILE) where it runs"
        )
    if not content:
        raise UserError(f"{subject} holds an empty dict; expected a state dict; save the weights again")
    for name, value in content.items():
        if not isinstance(value, Described):
            raise UserError(
                f"{_quoted(name)} in {subject} is {_kind(value)!r}; expected a tensor; save the state dict alone"
            )
        if reason := why_not_weight_name(name):
            raise UserError(f"tensor name {_quoted(name)} in {subject} cannot be used: {reason}; rename it")


def _kind(value: Any) -> str:
    if isinstance(value, Opaque):
        return value.name[:80]
    return "tensor" if isinstance(value, Described) else type(value).__name__


def _quoted(name: object) -> str:
    return repr(name[:80]) if isinstance(name, str) else f"a key of type {type(name).__name__}"
