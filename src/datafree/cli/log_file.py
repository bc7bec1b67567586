"""--log: everything that is printed, as plain text; each line is one append, so that several commands can share a file."""

from __future__ import annotations

import os
import re
import stat
from contextvars import ContextVar
from pathlib import Path

from .._core.errors import UserError
from .._core.version import VERSION

__all__ = ["LOG", "LogFile"]

HEAD = b"datafree "
"""How a log begins."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class LogFile:
    """A file that is only ever appended to. Raises UserError for a file that is no log."""

    def __init__(self, path: str, command: str):
        self.rest = ""
        self.failure: OSError | None = None
        _check(Path(path))
        self.number = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self.write(f"datafree {VERSION}: {command}\n")

    def write(self, text: str) -> None:
        """Appends the whole lines of the text so far; the rest waits for its end. An error stops no work."""
        lines, end, self.rest = (self.rest + _CONTROL.sub("", text)).rpartition("\n")
        if end and self.failure is None:
            try:
                os.write(self.number, (lines + end).encode("utf-8", "backslashreplace"))
            except OSError as error:
                self.failure = error

    def close(self) -> None:
        """Appends what is left."""
        if self.rest:
            self.write("\n")
        os.close(self.number)


def _check(path: Path) -> None:
    if not os.path.lexists(path):
        return
    kind = os.stat(path).st_mode
    if stat.S_ISDIR(kind):
        raise UserError(f"log: got the folder {path}, expected a file; name one in it")
    if stat.S_ISREG(kind):
        with path.open("rb") as file:
            start = file.read(len(HEAD))
        if start not in (b"", HEAD):
            raise UserError(f"log: got {path}, which is no log of datafree and would be changed; name another file")


LOG: ContextVar[LogFile | None] = ContextVar("log", default=None)
"""The file of the command that is running."""
