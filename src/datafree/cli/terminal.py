"""What reaches a terminal: text from files is shown, not obeyed, in any encoding; a stream that fails stops no work."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, Any, TextIO, cast

from .._core.text import escaped
from .log_file import LOG

__all__ = ["Stream", "open_streams", "plain", "printing", "warn_in_one_line"]


class Stream:
    """A text stream that takes any text and never raises; the first error stays in `failure`.

    With `lines`, what is written is one line and its end: any other control character in it is escaped. What is `logged`
    goes to the file of --log too.
    """

    def __init__(self, file: Any, *, lines: bool, logged: bool = True):
        self.file, self.lines, self.logged = file, lines, logged
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def write(self, text: str) -> int:
        if self.lines:
            body = text.removesuffix("\n")
            text = escaped(body) + text[len(body) :]
        log = LOG.get() if self.logged else None
        if log is not None and not isinstance(self.file, Stream):
            log.write(text)
        encoding = getattr(self.file, "encoding", None) or "utf-8"
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *arguments: str) -> None:
        if self.failure is not None or self.file is None:
            return
        try:
            getattr(self.file, method)(*arguments)
        except OSError as error:
            self.failure = error


@contextmanager
def printing() -> Iterator[Stream]:
    """Inside, what is printed is escaped line by line, and a stream that fails stops nothing; flushed at the end."""
    if isinstance(sys.stdout, Stream):  # a command within a command
        yield sys.stdout
        return
    stream = Stream(sys.stdout, lines=True)
    with redirect_stdout(stream):  # type: ignore[type-var]
        try:
            yield stream
        finally:
            stream.flush()


def plain() -> IO[str]:
    """Standard output for a program's own pages and tables, which may have lines and colours."""
    file = sys.stdout.file if isinstance(sys.stdout, Stream) else sys.stdout
    return cast(IO[str], Stream(file, lines=False))


def open_streams() -> None:
    """Gives the process the standard streams that it was started without, so that no file gets their numbers."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            flags = os.O_RDONLY if mode == "r" else os.O_WRONLY
            opened = os.open(os.devnull, flags)  # the lowest free number, which is this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def warn_in_one_line() -> None:
    """From now on a warning is one escaped line on standard error."""

    def show(message: Warning | str, *where: object, file: TextIO | None = None, line: str | None = None) -> None:
        del where, line
        text = " ".join(str(message).split())
        Stream(file if file is not None else sys.stderr, lines=True).write(f"datafree: note: {text}\n")

    warnings.showwarning = show
