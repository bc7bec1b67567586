"""One writer per output folder: an advisory lock of the operating system, released when its process ends."""

from __future__ import annotations

import errno
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from ..errors import UserError
from .atomic import machine

__all__ = ["LOCK", "InUse", "locked", "waiting_lock", "writer"]

LOCK = ".datafree.lock"
WAIT = 0.2
"""Seconds between two attempts to take a lock."""
_HELD: ContextVar[frozenset[str]] = ContextVar("held", default=frozenset())
"""Folders locked by callers in this thread, so that a verb inside a verb does not wait for itself."""
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class InUse(UserError):
    """Another run holds the lock."""


@contextmanager
def locked(folder: str | os.PathLike[str], *, file: str | None = None) -> Iterator[str | None]:
    """Locks an existing folder for one writer. Yields None, or the reason why the file system has no locks (e.g. NFS).

    With `file`, only that name in the folder is locked, for a command whose result is one file.

    Raises InUse, naming the other process, if another process or thread holds the lock. A lock of a caller in the same
    thread is shared. The lock file holds the process number and a hash of the machine's name; it is removed with the lock.
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


@contextmanager
def waiting_lock(folder: str | os.PathLike[str], *, file: str | None = None) -> Iterator[None]:
    """Like `locked`, but waits until another run releases the lock."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder, file=file))
                break
            except InUse:
                time.sleep(WAIT)
        yield


def writer(folder: str | os.PathLike[str]) -> str | None:
    """The process that holds `folder`, in words; None if there is none or it is unknown."""
    path = Path(os.path.realpath(folder), LOCK)
    try:
        number = os.open(
            path, os.O_RDWR | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))
        )
    except OSError:
        return None
    try:
        _take_lock(number)
    except OSError as error:
        return _holder(number) if error.errno in _TAKEN else None
    finally:
        os.close(number)
    return None


def _acquire(path: Path, subject: str) -> tuple[int | None, str | None]:
    """The open lock file, or the reason why there is none. Raises UserError if another run holds `subject`."""
    for _ in range(100):  # another run may release the lock and remove its file in between
        try:
            number = os.open(path, _flags(), 0o666)
        except OSError as error:
            if error.errno in _UNWRITABLE:  # the first write into the folder reports it, if there is one
                return None, None
            raise UserError(f"cannot lock {subject}: {error.strerror}; name another folder") from None
        try:
            _take_lock(number)
        except OSError as error:
            if error.errno not in _TAKEN:
                os.close(number)
                with suppress(OSError):
                    os.unlink(path)
                return None, error.strerror or str(error)
            holder = _holder(number)
            os.close(number)
            raise InUse(
                f"{subject} is in use by {holder}; expected one that no other run writes to; wait until that run ends, or "
                "name another one"
            ) from None
        if _is_same_file(path, number):
            with suppress(OSError):  # on a full disk the lock works without the holder's name
                os.ftruncate(number, 0)
                os.write(number, f"{os.getpid()} {machine()}\n".encode())
            return number, None
        os.close(number)
    raise UserError(f"{subject} is locked and released all the time; start one run in it at a time")


def _release(path: Path, number: int) -> None:
    with suppress(OSError):  # removed while held: a process that opened it earlier notices that it is another file
        os.unlink(path)
    with suppress(OSError):
        os.close(number)
    if os.name == "nt":  # an open file cannot be removed there
        with suppress(OSError):
            os.unlink(path)


def _is_same_file(path: Path, number: int) -> bool:
    try:
        current, opened = os.lstat(path), os.fstat(number)
    except FileNotFoundError:
        return False
    return (current.st_dev, current.st_ino) == (opened.st_dev, opened.st_ino)


def _holder(number: int) -> str:
    """The holder of the lock in words, from the content of its file."""
    try:
        text = os.pread(number, 64, 0).decode("ascii", "replace") if hasattr(os, "pread") else ""
    except OSError:
        text = ""
    match = re.match(r"([0-9]{1,10}) ([0-9a-f]{8})\n", text)
    if match is None:
        return "another run"
    if match[2] != machine():
        return f"process {match[1]} of another machine"
    if int(match[1]) == os.getpid():
        return f"another run of this process ({match[1]})"
    return f"process {match[1]} on {platform.node() or 'this machine'}"


def _flags() -> int:
    return os.O_RDWR | os.O_CREAT | sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_CLOEXEC", "O_NONBLOCK"))


def _take_lock(number: int) -> None:
    """Takes the lock. Raises OSError; its number is in _TAKEN if another run holds the lock."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(number, 1 << 20, os.SEEK_SET)  # beyond the text: on Windows others cannot read locked bytes
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        os.lseek(number, 0, os.SEEK_SET)
        return
    fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
