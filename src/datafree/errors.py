"""The one error a user can fix. Its text is one line: what, got, wanted, do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "nearest", "unknown"]


class UserError(Exception):
    """What the user can fix. The command line prints ``str(error)`` as one line and exits with 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def nearest(got: str, options: Iterable[str], most: int = 3) -> str:
    """The options most like `got`, quoted and joined by commas; all of them where none is near and they are few."""
    options = [str(option) for option in options]
    close = difflib.get_close_matches(str(got), options, n=most, cutoff=0.5)
    if not close:
        close = options if len(options) <= 12 else options[:most]
    return ", ".join(repr(option) for option in close) or "none"


def unknown(what: str, got: str, options: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist: ``no layer 'l5' in LeNet5; nearest: 'fc1'``."""
    place = f" in {where}" if where else ""
    return UserError(f"no {what} {str(got)!r}{place}; nearest: {nearest(got, options)}")
