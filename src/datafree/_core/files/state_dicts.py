"""Finds the state dict of a network in the described content of a torch file."""

from __future__ import annotations

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
_NOT_WEIGHTS = ("optim", "opt", "sched", "lr_sched", "scaler", "amp", "rng", "loss_scaler", "hyper")
"""Starts of keys whose tensors are no weights."""
_DEPTH = 3
"""Maximum number of nested keys."""


def state_dict(content: Any, subject: str, key: str | None = None) -> dict[str, Described]:
    """The described tensors by name, without the enclosing dicts and a prefix 'module.' that all names share.

    `key`, with `/` between nested keys, names the dict to use. Without one it is the content itself if it holds no further
    tables of tensors; else the one under the first of `KEYS`, or the only one. Raises UserError if there is none or if they
    cannot be told apart, and warns with a `Notice` if there are others.
    """
    tables = dict(_tables(content, set()))
    if key is not None:
        content = _under(content, key, tables, subject)
    elif tables and not (isinstance(content, dict) and _of_tensors(content) and not any(map(_known, tables))):
        chosen = min(tables, key=_rank)
        others = [name for name in tables if name != chosen]
        if others and not _known(chosen):
            names = ", ".join(map(_quoted, list(tables)[:5]))
            raise UserError(f"{subject} holds weights under {names}, expected one of them; give `key`")
        if others:
            names = ", ".join(map(_quoted, others[:5]))
            warnings.warn(
                Notice(
                    f"{subject} holds more than one network: the weights under {_quoted(chosen)} are used, not {names}; "
                    "`key` chooses another one"
                ),
                stacklevel=4,
            )
        content = tables[chosen]
    _check(content, subject)
    if content and all(name.startswith("module.") for name in content):
        content = {name.removeprefix("module."): value for name, value in content.items()}
    return content


def _tables(content: Any, seen: set[int], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Described]]]:
    """The nested dicts of tensors alone, by their keys with `/` between; those of optimizers and the like are left out.

    A dict that occurs twice is listed once: a small file can nest one many times.
    """
    if not isinstance(content, dict) or len(path) == _DEPTH or id(content) in seen:
        return
    seen.add(id(content))
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, dict) or name.lower().startswith(_NOT_WEIGHTS):
            continue
        if value and all(isinstance(entry, Described) for entry in value.values()):
            if id(value) not in seen:
                seen.add(id(value))
                yield "/".join((*path, name)), value
        else:
            yield from _tables(value, seen, (*path, name))


def _of_tensors(content: dict[Any, Any]) -> bool:
    return any(isinstance(value, Described) for value in content.values())


def _known(path: str) -> bool:
    return any(key in KEYS for key in path.split("/"))


def _rank(path: str) -> tuple[bool, int, int]:
    """Preference of a table: a known key first, then fewer nested keys, then the order of `KEYS`."""
    keys = path.split("/")
    return not _known(path), len(keys), min((KEYS.index(key) for key in keys if key in KEYS), default=len(KEYS))


def _under(content: Any, key: str, tables: dict[str, Any], subject: str) -> Any:
    """The dict under a key, with `/` between nested keys. The last one may be what names of tensors begin with."""
    table = content
    for part in key.split("/"):
        if isinstance(table, dict) and part in table:
            table = table[part]
        elif isinstance(table, dict) and _of_tensors(table):
            table = behind(part, table, subject)
        elif tables:
            raise unknown("key", key, tables, subject)
        else:
            raise UserError(
                f"no key {_quoted(key)} in {subject}, whose weights are in no further dict; leave `key` out"
            )
    return table


def behind(key: str, tensors: Mapping[str, T], subject: str) -> dict[str, T]:
    """The tensors whose names begin with `key` and a dot, without both. Raises UserError if there is none."""
    part = {name[len(key) + 1 :]: tensor for name, tensor in tensors.items() if str(name).startswith(f"{key}.")}
    if not part:
        raise unknown("key", key, sorted({str(name).partition(".")[0] for name in tensors}), subject)
    return part


def _check(content: Any, subject: str) -> None:
    """Raises UserError unless it is a dict of tensors with usable names."""
    if not isinstance(content, dict):
        got = content.name if isinstance(content, Opaque) else type(content).__name__
        raise UserError(
            f"{subject} holds {got[:80]!r}; expected a state dict; torch.save(model.state_dict(), FILE) where it runs"
        )
    for name, value in content.items():
        if not isinstance(value, Described):
            got = value.name if isinstance(value, Opaque) else type(value).__name__
            raise UserError(
                f"{_quoted(name)} in {subject} is {got[:80]!r}; expected a tensor; save the state dict alone"
            )
        if reason := why_not_weight_name(name):
            raise UserError(f"tensor name {_quoted(name)} in {subject} cannot be used: {reason}; rename it")


def _quoted(name: object) -> str:
    return repr(name[:80]) if isinstance(name, str) else f"a key of type {type(name).__name__}"
