"""The one error a user can fix. Its text is one line: what, got, wanted, do."""

from __future__ import annotations

import difflib
import errno
import re
from collections.abc import Iterable

__all__ = ["Notice", "UserError", "nearest", "out_of_memory", "unknown"]


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


def nearest(got: str, options: Iterable[str], most: int = 3) -> str:
    """The options most like `got`, quoted and joined by commas; all of them where none is near and they are few."""
    options = [str(option) for option in options]
    close = difflib.get_close_matches(_cut(got), options, n=most, cutoff=0.5)
    if not close:
        close = options if len(options) <= 12 else options[:most]
    return ", ".join(repr(option) for option in close) or "none"


def unknown(what: str, got: str, options: Iterable[str], where: str = "") -> UserError:
    """The error for a name that does not exist: ``no layer 'l5' in LeNet5; nearest: 'fc1'``."""
    place = f" in {where}" if where else ""
    return UserError(f"no {what} {_cut(got)!r}{place}; nearest: {nearest(got, options)}")


def _cut(name: object) -> str:
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
