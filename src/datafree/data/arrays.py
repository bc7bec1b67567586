"""Reads single arrays of an .npz file. Nothing is unpickled, and sizes are checked before anything is unpacked."""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from .._core.errors import UserError

__all__ = ["array", "check_room", "keys_of"]

MOST_BYTES = 1 << 34  # of one array
MOST_MEMBERS = 1 << 12
DIRECTORY = 1 << 20  # bytes of the list of members
LAST_CODE = 0x10FFFF
"""Last code point of Unicode."""
TAIL = 22 + (1 << 16) + 20  # a zip's last record, its comment, and the locator of zip64
RATIO, FREE = 50, 1 << 26
"""An array may unpack to RATIO times its file's size plus FREE bytes: enough for images, too little for a zip bomb."""


def keys_of(path: Path) -> list[str]:
    """The names of the arrays. Raises UserError for a file that is not a zip file."""
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def array(path: Path, key: str) -> np.ndarray:
    """The array `key`. Its header is checked before its values are read; nothing is unpickled.

    Raises UserError for a missing or damaged array, Python objects, and text beyond Unicode.
    """
    subject = f"{key!r} in {str(path)!r}"
    with _opened(path) as archive:
        member = _member(archive, path, key)
        try:
            with archive.open(member) as stream:
                _check_header(stream, subject, member.file_size)
            with archive.open(member) as stream:
                values = npy.read_array(stream, allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # for untrusted bytes, zipfile, zlib and numpy raise almost any type
            raise _unreadable(subject, error) from error
    if values.dtype.kind == "U" and values.size and _codes(values).max() > LAST_CODE:
        raise UserError(f"{subject} holds characters beyond Unicode; expected text; save it again")
    return values


def _codes(text: np.ndarray) -> np.ndarray:
    """Code points as numpy stores them. Python cannot make text of those beyond Unicode."""
    return np.ascontiguousarray(text).view(np.dtype(np.uint32).newbyteorder(text.dtype.byteorder))


def check_room(path: Path, key: str) -> None:
    """Raises UserError if there is too little memory for the array and the images made of it."""
    from .._core.memory import available

    with _opened(path) as archive:
        needed, free = 2 * _member(archive, path, key).file_size, available()
    if free is not None and needed > free:
        raise UserError(
            f"{key!r} in {str(path)!r} needs {needed:,} bytes; expected at most the {free:,} of free memory; "
            "save a part of it"
        )


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        _check_directory(path)
        return zipfile.ZipFile(path)
    except UserError:
        raise
    except Exception as error:
        raise _unreadable(f"{str(path)!r}", error) from error


def _check_directory(path: Path) -> None:
    """Raises UserError for an implausibly long list of members, which zipfile would read in full."""
    with open(path, "rb") as stream:
        length = stream.seek(0, 2)
        stream.seek(max(0, length - TAIL))
        tail = stream.read(TAIL)
        end = tail.rfind(b"PK\5\6")  # APPNOTE.TXT 4.3.16; if there is none, zipfile raises
        if end < 0 or len(tail) < end + 22:
            return
        count, size = struct.unpack("<HI", tail[end + 10 : end + 16])
        if (count == 0xFFFF or size == 0xFFFFFFFF) and tail[end - 20 : end - 16] == b"PK\6\7":  # 4.3.15: zip64
            stream.seek(struct.unpack("<Q", tail[end - 12 : end - 4])[0])
            count, size = struct.unpack("<32xQQ", stream.read(48))
    if count > MOST_MEMBERS or size > DIRECTORY:
        raise UserError(
            f"{str(path)!r} lists {count:,} members in {size:,} bytes; expected at most {MOST_MEMBERS:,} in "
            f"{DIRECTORY:,}; save the arrays again"
        )


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> zipfile.ZipInfo:
    entries = archive.infolist()
    members = [member for member in entries if member.filename in (key, f"{key}.npy")]  # numpy.load reads either
    if not members:
        got = ", ".join(repr(member.filename.removesuffix(".npy")) for member in entries[:8]) or "nothing"
        expected = "expected images and labels, or x_train, y_train, x_test and y_test"
        raise UserError(f"no array {key!r} in {str(path)!r}, which holds {got}; {expected}; add it")
    member, size = members[0], path.stat().st_size
    subject = f"{key!r} in {str(path)!r}"
    if len(members) > 1:
        raise UserError(f"{subject} occurs {len(members)} times; expected once; save the arrays again")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{subject} uses compression method {member.compress_type}; expected stored or deflated; save it with numpy "
            "again"
        )
    if member.file_size > RATIO * size + FREE:
        raise UserError(
            f"{subject} unpacks to {member.file_size:,} bytes, from a file of {size:,}; expected at most "
            f"{RATIO * size + FREE:,}; if you trust it, save it with np.savez, without compression"
        )
    return member


def _check_header(stream: IO[bytes], subject: str, size: int) -> None:
    """Raises UserError for Python objects, and for a header that does not fit the member's size."""
    version = npy.read_magic(stream)
    read_header: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise UserError(
            f"{subject} holds Python objects (a pickle), which are never loaded; expected numbers; convert it"
        )
    if dtype.kind not in "biufcUSmM" or dtype.itemsize == 0 or dtype.subdtype is not None:
        raise UserError(f"{subject} is {dtype}; expected plain numbers or text; convert it")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or stream.tell() + expected != size or expected > MOST_BYTES:
        limit = f"as many, and at most {MOST_BYTES}"
        raise UserError(f"{subject} holds {size - stream.tell()} bytes for {expected}; expected {limit}; save it again")


def _unreadable(subject: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return UserError(
        f"{subject} cannot be read ({reason}); expected a complete .npz file from numpy.savez; save it again"
    )
