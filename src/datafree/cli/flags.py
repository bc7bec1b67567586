"""The flags of settings and parameters, also in place of the parameters in messages of the library."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

from .._core.flag_names import flag_name

__all__ = ["FLAGS", "PARAMETERS", "flag_of", "in_flags", "translated"]

FLAGS: ContextVar[Mapping[str, str]] = ContextVar("flags", default={})  # noqa: B039
"""The flag of each parameter of the command that runs."""

PARAMETERS = {
    "add_to": "--add",
    "fine_tune": "--finetune",
    "folder": "--out",
    "mobile": "--executorch",
    "state": "--out",
}
"""Parameters of library functions that a command's parameter stands for under another name."""

_NAMED = re.compile(r"^(\w+(?:\.\w+)*)((?:\[[^\]]*\])?: (?:got|expected) )")
"""How an error of the library begins that is about one of its parameters: `images: got 0, expected at least 1`."""


_QUOTED = re.compile(r"`([a-z]\w*)(?:=([^`]*))?`")
"""How a line of the library names a parameter elsewhere: `out`, or with a value, `replay='none'`."""

_OF_METHOD = re.compile(r"the method's `(\w+)`")
"""How a line names a setting of the method, which may also be one of the training."""


def flag_of(settings: str, field: str) -> str:
    """The flag of a settings class's field."""
    return "--" + flag_name(settings, field)


def translated(line: str, flags: Mapping[str, str]) -> str:
    """The line of an error or notice, with flags in place of the library's parameters: `--out` for `` `out` ``,
    `--epochs 3` for
    `` `epochs=3` ``, and at the start `--batch: got 0` for `batch: got 0`.

    `flags` has the flag of each parameter of the command; a name that is none of them stays.
    """
    match = _NAMED.match(line)
    flag = (flags.get(match[1]) or flags.get(match[1].rpartition(".")[2])) if match is not None else None
    if match is not None and flag is not None:
        line = f"{flag}{match[2]}{line[match.end() :]}"
    line = _OF_METHOD.sub(lambda match: flags.get(f"method.{match[1]}") or flags.get(match[1]) or match[0], line)
    return _QUOTED.sub(lambda match: _flag_with_value(match, flags), line)


def in_flags(line: str) -> str:
    """The line of an error that a command does not end with, with the command's flags."""
    return translated(line, FLAGS.get())


def _flag_with_value(match: re.Match[str], flags: Mapping[str, str]) -> str:
    flag, value = flags.get(match[1]), match[2]
    if flag is None:
        return match[0]
    return flag if value in (None, "True") else f"{flag} {value.strip(chr(39))}"
