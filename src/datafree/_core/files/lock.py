"""One writer per output folder: an advisory lock of the operating system on a file in it, free once its process ends."""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from ..errors import UserError
from .atomic import machine

__all__ = ["LOCK", "locked", "writer"]

LOCK = ".datafree.lock"
_HELD: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""Folders that this thread's callers have locked: a verb inside a verb does not wait for itself."""
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextmanager
def locked(folder: str | os.PathLike[str], *, file: str | None = None) -> Iterator[str | None]:
    """Holds an existing folder for one writer; yields None, or the reason why its file system takes no lock (NFS, say).

    With `file`, only that name in the folder is held, for a command whose result is one file.

    Another process, or another thread of this one, gets a UserError that names the process. A lock taken by a caller of
    the same thread is shared. The file names a process number and a hash of the machine's name, and goes with the lock.
    """
    path = Path(os.path.realpath(folder), LOCK if file is None else f".{file}{LOCK}")
    place = str(path)
    if place in _HELD.get():
        yield None
        return
    number, reason = _acquire(path, f"folder {str(path.parent)!r}" if file is None else repr(str(path.parent / file)))
    token = _HELD.set(_HELD.get() | {place})
    try:
        yield reason
    finally:
        _HELD.reset(token)
        if number is not None:
            _release(path, number)


def writer(folder: str | os.PathLike[str]) -> str | None:
    """The process that holds `folder`, in words; None where none does, or nothing can be said of it."""
    path = Path(os.path.realpath(folder), LOCK)
    try:
        number = os.open(
            path, os.O_RDWR | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))
        )
    except OSError:
        return None
    try:
        _take(number)
    except OSError as error:
        return _holder(number) if error.errno in _TAKEN else None
    finally:
        os.close(number)
    return None


def _acquire(path: Path, what: str) -> tuple[int | None, str | None]:
    """The open lock file, or the reason why there is none. Raises UserError where another run holds `what`."""
    for _ in range(100):  # each time, another run has released it, and removed the file, in between
        try:
            number = os.open(path, _flags(), 0o666)
        except OSError as error:
            if error.errno in _UNWRITABLE:  # nothing can be written here: the first write says so, if there is one
                return None, None
            raise UserError(f"cannot lock {what}: {error.strerror}; name another folder") from None
        try:
            _take(number)
        except OSError as error:
            if error.errno not in _TAKEN:
                os.close(number)
                with suppress(OSError):
                    os.unlink(path)
                return None, error.strerror or str(error)
            holder = _holder(number)
            os.close(number)
            raise UserError(
                f"{what} is in use by {holder}; expected one that no other run writes to; wait until that run ends, or "
                "name another one"
            ) from None
        if _is_there(path, number):
            with suppress(OSError):  # a full disk: the lock holds without the name of its holder
                os.ftruncate(number, 0)
                os.write(number, f"{os.getpid()} {machine()}\n".encode())
            return number, None
        os.close(number)
    raise UserError(f"{what} is taken and released all the time; start one run in it at a time")


def _release(path: Path, number: int) -> None:
    with suppress(OSError):  # removed while it is held: whoever opened it before finds that it is another file now
        os.unlink(path)
    with suppress(OSError):
        os.close(number)
    if os.name == "nt":  # an open file cannot be removed there
        with suppress(OSError):
            os.unlink(path)


def _is_there(path: Path, number: int) -> bool:
    try:
        found, own = os.lstat(path), os.fstat(number)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)


def _holder(number: int) -> str:
    """In words, from what the file says."""
    try:
        text = os.pread(number, 64, 0).decode("ascii", "replace") if hasattr(os, "pread") else ""
    except OSError:
        text = ""
    found = re.match(r"([0-9]{1,10}) ([0-9a-f]{8})\n", text)
    if found is None:
        return "another run"
    if found[2] != machine():
        return f"process {found[1]} of another machine"
    if int(found[1]) == os.getpid():
        return f"another run of this process ({found[1]})"
    return f"process {found[1]} on {platform.node() or 'this machine'}"


def _flags() -> int:
    return os.O_RDWR | os.O_CREAT | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))


def _take(number: int) -> None:
    """Raises OSError, with one of _TAKEN where another run holds it."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(number, 1 << 20, os.SEEK_SET)  # not where the text is: locked bytes cannot be read by others there
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(number, 0, os.SEEK_SET)
        return
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
