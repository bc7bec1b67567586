"""Options that have no effect beside the others. One that was given is refused, since a user who gives it expects an effect.

Each function, command or settings class lists its options of this kind as `Use`s, and calls `check_used`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from .errors import Notice, UserError, cut

__all__ = ["Use", "check_used", "given_in", "present", "unused", "unused_are_noted"]

NOTED: ContextVar[bool] = ContextVar("unused options are noted", default=False)


def present(value: Any) -> bool:
    """Whether an option was given at all."""
    return value is not None


@dataclass(frozen=True)
class Use:
    """When `option` has an effect: if `works` is true of the value of the `other` option."""

    option: str
    other: str
    works: Callable[[Any], bool] = present
    expected: str = ""
    """What the other option has to be, in words; by default the other option itself."""


def check_used(given: Mapping[str, Any], uses: Iterable[Use], values: Mapping[str, Any]) -> None:
    """Raises UserError for an option in `given` that has no effect beside the `values` of the other options."""
    for use in uses:
        if use.option not in given:
            continue
        other = values[use.other]
        if not use.works(other):
            place = f"without `{use.other}`" if other is None else f"with `{use.other}={_shown(other)}`"
            unused(use.option, given[use.option], place, use.expected or f"`{use.other}`")


def unused(option: str, value: Any, place: str, expected: str) -> None:
    """Raises UserError for an option that has no effect in this `place`; a notice inside `unused_are_noted`."""
    got = f"got {_plain(value)} {place}"
    if NOTED.get():
        warnings.warn(Notice(f"{option}: {got}, where it has no effect"), stacklevel=2)
        return
    raise UserError(f"{option}: {got}, expected {expected}; give that, or leave `{option}` out")


@contextmanager
def unused_are_noted() -> Iterator[None]:
    """Inside, unused options are noted and not refused: a run of an earlier version may have been given them."""
    token = NOTED.set(True)
    try:
        yield
    finally:
        NOTED.reset(token)


def given_in(settings: BaseModel | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a caller chose: keywords, and fields of `settings` that differ from their defaults.

    Settings that were read from a log have all their fields set.
    """
    if settings is None:
        return dict(changes)
    fields = type(settings).model_fields
    chosen = {name: getattr(settings, name) for name in settings.model_fields_set}
    return {name: value for name, value in chosen.items() if value != fields[name].default} | dict(changes)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else cut(value)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else _plain(value)
