"""The error that a user can fix. Its text is one line: what, got, expected, what to do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable, Sequence

__all__ = ["Notice", "UserError", "cut", "nearest", "out_of_memory", "similar", "unknown"]


LONGEST = 1200
"""The largest number of characters in a message."""


class UserError(Exception):
    """An error that the user can fix. The command line prints ``str(error)`` as one line and exits with status 2."""

    def __init__(self, message: str):
        super().__init__(_line(message))


def _line(message: str) -> str:
    """The message in one line. A long one, with text from a file, is cut in the middle: its start and end matter most."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 400]} ... {text[-390:]}"


ALIKE = 0.6
"""Similarity of two names from which one may be a typo of the other; difflib's default."""
SEARCHED = 2000
"""The largest number of names that are compared with a wrong one, which takes about a second."""
FEW = 12
"""The largest number of names that a message lists in full."""


def similar(name: str, options: Sequence[str], count: int = 3) -> list[str]:
    """The options similar to `name`, the most similar first."""
    return difflib.get_close_matches(cut(name), options[:SEARCHED], n=count, cutoff=ALIKE)


def nearest(name: str, options: Iterable[str], count: int = 3) -> str:
    """``nearest: 'fc1'``, the options similar to `name`; if there are none, ``expected one of`` and the options."""
    options = [str(option) for option in options]
    if close := similar(name, options, count):
        return f"nearest: {_quoted(close)}"
    if not options:
        return "there are none"
    if len(options) <= FEW:
        return f"expected {'one of ' if len(options) > 1 else ''}{_quoted(options)}"
    return f"none of the {len(options)} names is similar; the first is {cut(options[0])!r}"


def unknown(kind: str, name: str, options: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist: ``no layer 'l5' in LeNet5; nearest: 'fc1'``."""
    place = f" in {where}" if where else ""
    return UserError(f"no {kind} {cut(name)!r}{place}; {nearest(name, options)}")


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(cut(name)) for name in names)


def cut(name: object) -> str:
    """The name, cut to 80 characters: a name from a file may have a million."""
    text = str(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


_SHORT = re.compile(
    "can't allocate memory|cannot allocate memory|not enough memory|out of memory|failed to allocate memory|bad_alloc"
    "|bad allocation|can't start new thread|unable to allocate|could not create a (primitive|memory object)"
    "|mmap failed|failed to map segment",
    re.IGNORECASE,
)
"""Messages of torch, oneDNN, onnxruntime, the dynamic linker and the system when memory or threads run out."""
_MEMORY_ERRORS = ("RuntimeError", "ImportError", "SystemError", "error", "OSError")
"""Types of such errors, beside their subclasses and onnxruntime's; `error` is the name in zlib and other C extensions."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the error, or one of its causes, says that memory or threads have run out."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        if _is_short(current):
            return True
        pending += [current.__cause__, current.__context__]
        pending += current.exceptions if isinstance(current, BaseExceptionGroup) else []
    return False


def _is_short(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    kinds = [kind.__name__ for kind in type(error).__mro__]
    may_say_so = any(name in _MEMORY_ERRORS for name in kinds) or type(error).__module__.startswith("onnxruntime")
    return may_say_so and _SHORT.search(str(error)) is not None


class Notice(UserWarning):
    """Something the user should know but need not fix. The command line prints it as one line and continues."""

    def __init__(self, message: str):
        super().__init__(_line(message))
