"""Atomic writes: a process killed at any moment leaves the old file or the new one, and temporary files that can be
swept.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError, cut
from .open_file import check_path

__all__ = ["TEMPORARY", "atomic", "check_name_length", "machine", "sweep", "sync_folder", "write_bytes", "write_text"]

TEMPORARY = re.compile(r"\.(?P<name>.+)\.tmp-(?P<pid>[0-9]{1,10})-(?P<machine>[0-9a-f]{8})(?P<random>[0-9a-f]{8})")
_SUFFIX = len(".") + len(".tmp-") + 10 + len("-") + 16
"""Number of characters that `TEMPORARY` adds to a name."""
_DAY = 86_400
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextmanager
def atomic(path: str | os.PathLike[str], *, size: int | None = None) -> Iterator[BinaryIO]:
    """A temporary binary file that replaces `path` when the block ends without an exception: flush, fsync, rename, fsync.

    On any exception the temporary file is removed and the old content stays. `size` is the number of bytes to be written,
    only used in the error for a full disk. If only the last step fails (fsync of the folder), the new content is complete,
    and the error says that a power cut may undo it.
    """
    check_path(path)
    path = Path(path)
    if not path.name:
        raise UserError(f"cannot write {str(path)!r}: it names no file; give a file name")
    with suppress(OSError):
        mode = os.lstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise UserError(
                f"cannot write {str(path)!r}: it is a pipe, socket or device; expected a file; give another name"
            )
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{machine()}{secrets.token_hex(4)}")
    try:
        file = _create(temporary)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise  # an error of the block with another file
        raise _failed(path, error, size) from None
    sync_folder(path)


def check_name_length(path: str | os.PathLike[str]) -> None:
    """Raises UserError for a file whose name or path is too long for `atomic`."""
    name, folder = Path(path).name, Path(path).parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    limits = {"PC_NAME_MAX": 255, "PC_PATH_MAX": 4096}
    for key in limits:
        with suppress(OSError, ValueError, AttributeError):  # not available on every system
            limits[key] = os.pathconf(folder, key)
    length = len(os.fsencode(name)) + _SUFFIX
    if length > limits["PC_NAME_MAX"] or length + len(os.fsencode(os.path.abspath(folder))) > limits["PC_PATH_MAX"]:
        raise UserError(
            f"the name of {cut(path)!r} takes {length - _SUFFIX:,} bytes, expected at most "
            f"{limits['PC_NAME_MAX'] - _SUFFIX}, in a path of {limits['PC_PATH_MAX'] - _SUFFIX}; give a shorter `out`"
        )


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path` atomically."""
    with atomic(path, size=len(data)) as file:
        file.write(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` to `path` atomically, in UTF-8 with its line ends unchanged."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def sweep(folder: str | os.PathLike[str], *, name: str | None = None) -> int:
    """Removes temporary files of `atomic` whose process has ended (only those for `name` if given), and returns their
    number.

    Whether a process is alive can only be asked on its own machine; another machine's file is removed when it is a day old.
    """
    swept = 0
    try:
        with os.scandir(folder) as entries:
            matches = [(entry, match) for entry in entries if (match := TEMPORARY.fullmatch(entry.name))]
        matches = [(entry, match) for entry, match in matches if name in (None, match["name"])]
        for entry, match in matches:
            with suppress(FileNotFoundError):
                if _is_stray(entry, match):
                    os.unlink(entry.path)
                    swept += 1
    except OSError as error:
        raise UserError(
            f"cannot sweep {os.fspath(folder)!r}: {error.strerror}; give a folder you may write to"
        ) from None
    return swept


def _create(temporary: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(temporary, flags, 0o666), "wb")


def machine() -> str:
    """Eight hexadecimal digits that identify this machine."""
    return hashlib.sha256(platform.node().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _is_stray(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        return False
    if os.name == "nt" or match["machine"] != machine():  # on Windows kill(pid, 0) ends the process
        return time.time() - status.st_mtime > _DAY
    return not _alive(int(match["pid"]))


def _alive(pid: int) -> bool:
    if pid == 0:  # kill(0, ...) would signal our own process group
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def make_folder(folder: Path) -> list[Path]:
    """Creates a folder and its missing parents, synced to disk; returns those that were missing, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path)
    return missing


def sync_folder(path: Path) -> None:
    """Syncs the folder of `path`, so that the last rename or removal in it survives a power cut."""
    if os.name == "nt":  # Windows cannot open a folder; NTFS journals the rename
        return
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise UserError(
                f"wrote {str(path)!r}, but its folder could not be synced ({error.strerror}): "
                "a power cut may bring the old file back; check the disk and write again"
            ) from None


def _failed(path: Path, error: OSError, size: int | None) -> UserError:
    reason = error.strerror or str(error)
    needed = f"{size:,} bytes are needed" if size is not None else "an unknown number of bytes is needed"
    try:
        free = f"{shutil.disk_usage(path.parent).free:,} free"
    except OSError:
        free = "free space unknown"
    remedy = "free some space" if error.errno in _FULL else "give a folder that exists and that you may write to"
    if error.errno == errno.EFBIG:
        remedy = "raise the limit that is set for a file's size (ulimit -f)"
    return UserError(f"cannot write {str(path)!r}: {reason}; {needed}, {free}; that file is as it was; {remedy}")
