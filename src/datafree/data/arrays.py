"""Single arrays of an .npz file: nothing is unpickled, and nothing is unpacked before its size is known and affordable."""

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
"""Of Unicode."""
TAIL = 22 + (1 << 16) + 20  # a zip's last record, its comment, and the locator of zip64
RATIO, FREE = 50, 1 << 26
"""An array may unpack to RATIO times its file and FREE bytes: twenty times what images compress to, and no bomb."""


def keys_of(path: Path) -> list[str]:
    """The names of the arrays."""
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def array(path: Path, key: str) -> np.ndarray:
    """The array under `key`. Its header is checked before its values are read, and nothing is ever unpickled."""
    where = f"{key!r} in {str(path)!r}"
    with _opened(path) as archive:
        member = _member(archive, path, key)
        try:
            with archive.open(member) as stream:
                _check_header(stream, where, member.file_size)
            with archive.open(member) as stream:
                found = npy.read_array(stream, allow_pickle=False)
        except UserError:
            raise
        except Exception as error:  # of a stranger's bytes zipfile, zlib and numpy raise almost any type
            raise _unreadable(where, error) from error
    if found.dtype.kind == "U" and found.size and _codes(found).max() > LAST_CODE:
        raise UserError(f"{where} holds letters that Unicode does not have; wanted text; save it again")
    return found


def _codes(text: np.ndarray) -> np.ndarray:
    """The numbers of the letters, as numpy stores them; Python cannot make text of those beyond Unicode."""
    return np.ascontiguousarray(text).view(np.dtype(np.uint32).newbyteorder(text.dtype.byteorder))


def check_room(path: Path, key: str) -> None:
    """Raises UserError where memory has no room for the array, and again for the images that are made of it."""
    from .._core.memory import available

    with _opened(path) as archive:
        needed, there = 2 * _member(archive, path, key).file_size, available()
    if there is not None and needed > there:
        raise UserError(
            f"{key!r} in {str(path)!r} needs {needed:,} bytes; wanted at most the {there:,} of memory here; "
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
    """Raises UserError for a list of members longer than any file of arrays has; zipfile would read all of it."""
    with open(path, "rb") as stream:
        length = stream.seek(0, 2)
        stream.seek(max(0, length - TAIL))
        tail = stream.read(TAIL)
        end = tail.rfind(b"PK\5\6")  # APPNOTE.TXT 4.3.16; where there is none, zipfile says so
        if end < 0 or len(tail) < end + 22:
            return
        count, size = struct.unpack("<HI", tail[end + 10 : end + 16])
        if (count == 0xFFFF or size == 0xFFFFFFFF) and tail[end - 20 : end - 16] == b"PK\6\7":  # 4.3.15: zip64
            stream.seek(struct.unpack("<Q", tail[end - 12 : end - 4])[0])
            count, size = struct.unpack("<32xQQ", stream.read(48))
    if count > MOST_MEMBERS or size > DIRECTORY:
        raise UserError(
            f"{str(path)!r} lists {count:,} members in {size:,} bytes; wanted at most {MOST_MEMBERS:,} in {DIRECTORY:,}; "
            "save the arrays again"
        )


def _member(archive: zipfile.ZipFile, path: Path, key: str) -> zipfile.ZipInfo:
    entries = archive.infolist()
    members = [member for member in entries if member.filename in (key, f"{key}.npy")]  # numpy.load reads either
    if not members:
        got = ", ".join(repr(member.filename.removesuffix(".npy")) for member in entries[:8]) or "nothing"
        wanted = "wanted images and labels, or x_train, y_train, x_test and y_test"
        raise UserError(f"no array {key!r} in {str(path)!r}, which holds {got}; {wanted}; add it")
    member, size = members[0], path.stat().st_size
    where = f"{key!r} in {str(path)!r}"
    if len(members) > 1:
        raise UserError(f"{where} is there {len(members)} times; wanted once; save the arrays again")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{where} is packed by method {member.compress_type}; wanted numpy's own; save the arrays again"
        )
    if member.file_size > RATIO * size + FREE:
        raise UserError(
            f"{where} unpacks to {member.file_size:,} bytes, from a file of {size:,}; wanted at most "
            f"{RATIO * size + FREE:,}; save it with np.savez, without compression, if it is to be trusted"
        )
    return member


def _check_header(stream: IO[bytes], where: str, size: int) -> None:
    """Raises UserError for Python objects, and for a header that claims another length than the member has."""
    version = npy.read_magic(stream)
    read_header: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise UserError(f"{where} holds Python objects (a pickle), which are never loaded; wanted numbers; convert it")
    if dtype.kind not in "biufcUSmM" or dtype.itemsize == 0 or dtype.subdtype is not None:
        raise UserError(f"{where} is {dtype}; wanted plain numbers or text; convert it")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or stream.tell() + expected != size or expected > MOST_BYTES:
        wanted = f"as much, and at most {MOST_BYTES}"
        raise UserError(f"{where} holds {size - stream.tell()} bytes for {expected}; wanted {wanted}; save it again")


def _unreadable(where: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return UserError(f"{where} cannot be read ({reason}); wanted a whole .npz file of numpy.savez; save it again")
