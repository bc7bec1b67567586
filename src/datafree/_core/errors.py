"""The one error a user can fix. Its text is one line: what, got, wanted, do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

__all__ = ["Notice", "UserError", "cut", "nearest", "out_of_memory", "unknown"]


LONGEST = 1200
"""Characters of a message."""


class UserError(Exception):
    """What the user can fix. The command line prints ``str(error)`` as one line and exits with 2."""

    def __init__(self, message: str):
        super().__init__(_line(message))


def _line(message: str) -> str:
    """One line, cut in its middle where something out of a file made it long: what is wrong and what to do stay."""
    text = " ".join(str(message).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 400]} ... {text[-390:]}"


ALIKE = 0.6
"""Share of two names' letters that agree, from which on one may be a slip for the other; difflib's own default."""
FEW = 12
"""Names that a line lists in full."""


def nearest(got: str, options: Iterable[str], most: int = 3) -> str:
    """``nearest: 'fc1'`` with the options like `got`; where none is, ``expected one of`` few options, or their number."""
    options = [str(option) for option in options]
    close = difflib.get_close_matches(cut(got), options, n=most, cutoff=ALIKE)
    if close:
        return f"nearest: {_quoted(close)}"
    if not options:
        return "there are none"
    if len(options) <= FEW:
        return f"expected {'one of ' if len(options) > 1 else ''}{_quoted(options)}"
    return f"none of the {len(options)} names there is like it, of which the first is {cut(options[0])!r}"


def unknown(what: str, got: str, options: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist: ``no layer 'l5' in LeNet5; nearest: 'fc1'``."""
    place = f" in {where}" if where else ""
    return UserError(f"no {what} {cut(got)!r}{place}; {nearest(got, options)}")


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(cut(name)) for name in names)


def cut(name: object) -> str:
    """At most 80 characters: a name out of a file may have a million."""
    text = str(name)
    return text if len(text) <= 80 else f"{text[:77]}..."


_SHORT = re.compile(
    "can't allocate memory|cannot allocate memory|not enough memory|out of memory|failed to allocate memory|bad_alloc"
    "|bad allocation|can't start new thread|unable to allocate|could not create a (primitive|memory object)"
    "|mmap failed|failed to map segment",
    re.IGNORECASE,
)
"""How torch, oneDNN, onnxruntime, the loader of shared libraries and the system say that memory or threads are short."""
_SAYS_SO = ("RuntimeError", "ImportError", "SystemError", "error", "OSError")
"""The types that say it; `error` is zlib's and those of C extensions. Their subclasses and onnxruntime's do too."""


def out_of_memory(error: BaseException) -> bool:
    """Whether the error, or one that led to it, says that memory (or room for a thread) is short."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        own = waiting.pop()
        if own is None or id(own) in seen:
            continue
        seen.add(id(own))
        if _is_short(own):
            return True
        waiting += [own.__cause__, own.__context__]
        waiting += own.exceptions if isinstance(own, BaseExceptionGroup) else []
    return False


def _is_short(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    kinds = [kind.__name__ for kind in type(error).__mro__]
    says = any(name in _SAYS_SO for name in kinds) or type(error).__module__.startswith("onnxruntime")
    return says and _SHORT.search(str(error)) is not None


class Notice(UserWarning):
    """What a user should know and need not fix. The command line prints it as one line and goes on."""

    def __init__(self, message: str):
        super().__init__(_line(message))
