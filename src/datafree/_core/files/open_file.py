"""Reading a stranger's path: only a regular file is opened, no link is followed and nothing blocks."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ..errors import UserError

__all__ = ["CHUNK", "check_path", "open_regular", "read_into", "sha256_file"]

CHUNK = 4 << 20
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FLAGS = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOCTTY")


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[tuple[FileIO, int]]:
    """The open file, unbuffered, and its size. What the disk refuses, here or in the block, is a `UserError`."""
    check_path(path)
    try:
        _refuse_other_kinds(path, os.lstat(path).st_mode)
        flags = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in _FLAGS)
        with FileIO(os.open(path, flags), "rb") as file:
            found = os.fstat(file.fileno())  # again: the path may have changed hands in between
            _refuse_other_kinds(path, found.st_mode)
            yield file, found.st_size
    except OSError as error:
        raise UserError(f"cannot read {_shown(path)}: {error.strerror or error}; give a file you may read") from None
    except MemoryError:
        raise UserError(f"cannot read {_shown(path)}: it does not fit in memory; give a smaller file") from None


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuse what the operating system cannot take as a path at all: a NUL, or text that cannot be encoded."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
    except ValueError:
        raise UserError(f"{os.fspath(path)!a} is no path; wanted one without NUL; rename it") from None


def read_into(file: FileIO, view: memoryview) -> bool:
    """Fill `view` from the file; False where the file ends first."""
    while len(view):
        count = file.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of the bytes that the file has when it is opened, in hexadecimal."""
    digest = hashlib.sha256()
    with open_regular(path) as (file, size):  # some files of the system have size 0 and no end
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def _refuse_other_kinds(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise UserError(f"{_shown(path)} is {kind}; wanted a regular file; give the file itself")


def _shown(path: str | os.PathLike[str]) -> str:
    return repr(str(Path(path)))
