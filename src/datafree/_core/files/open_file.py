"""Opens untrusted paths: only regular files, without blocking, and without following links but those of the Hugging Face
cache.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from ..errors import UserError

__all__ = ["CHUNK", "check_path", "check_pointer", "open_regular", "read_into", "sha256_file"]

CHUNK = 4 << 20
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_POINTER = b"version https://git-lfs"
_FLAGS = ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOCTTY")


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[tuple[FileIO, int]]:
    """The open file, unbuffered, and its size. Errors of the disk, also inside the block, are raised as `UserError`."""
    check_path(path)
    path = _behind_cache_link(path)
    try:
        _refuse_other_kinds(path, os.lstat(path).st_mode)
        flags = os.O_RDONLY | sum(getattr(os, flag, 0) for flag in _FLAGS)
        with FileIO(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())  # checked again: the path may have changed in between
            _refuse_other_kinds(path, status.st_mode)
            yield file, status.st_size
    except OSError as error:
        raise UserError(f"cannot read {_quoted(path)}: {error.strerror or error}; give a file you may read") from None
    except MemoryError:
        raise UserError(f"cannot read {_quoted(path)}: it does not fit in memory; give a smaller file") from None


def check_path(path: str | os.PathLike[str]) -> None:
    """Raises UserError for text that cannot be a path: with a NUL, or not encodable."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
    except ValueError:
        raise UserError(f"{os.fspath(path)!a} is no path; expected one without NUL; rename it") from None


def check_pointer(start: bytes, subject: str) -> None:
    """Raises UserError for a Git LFS pointer, a short text in place of a large file, by its first nine bytes or more."""
    if len(start) > 8 and start[: len(_POINTER)] == _POINTER[: len(start)]:
        raise UserError(f"{subject} is a Git LFS pointer, expected the file itself; run git lfs pull, or download it")


def read_into(file: FileIO, view: memoryview) -> bool:
    """Fills `view` from the file; False if the file ends first."""
    while len(view):
        count = file.readinto(view)
        if not count:
            return False
        view = view[count:]
    return True


def sha256_file(path: str | os.PathLike[str]) -> str:
    """The sha256 of the file in hexadecimal; bytes that are appended while it is read do not count."""
    digest = hashlib.sha256()
    with open_regular(path) as (file, size):  # some files of the system have size 0 and no end
        while size > 0 and (chunk := file.read(min(CHUNK, size))):
            digest.update(chunk)
            size -= len(chunk)
    return digest.hexdigest()


def _behind_cache_link(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """The file in `blobs/` that a link in `snapshots/` beside it leads to, as the Hugging Face cache stores what it
    downloaded; any other path as it is.
    """
    try:
        if not os.path.islink(path):
            return path
        link = Path(os.path.abspath(path))
        blobs = next((folder.parent / "blobs" for folder in link.parents if folder.name == "snapshots"), None)
        if blobs is None:
            return path
        target = link.parent / os.readlink(link)
        return target if os.path.samefile(target.parent, blobs) else path
    except OSError:
        return path


def _refuse_other_kinds(path: str | os.PathLike[str], mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise UserError(f"{_quoted(path)} is {kind}; expected a regular file; give the file itself")


def _quoted(path: str | os.PathLike[str]) -> str:
    return repr(str(Path(path)))
