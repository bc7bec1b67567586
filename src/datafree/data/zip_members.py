"""Reads single members of a zip file by their position. Nothing is extracted, and no file stays open.

zipfile.ZipFile reads the directory each time it is opened (2 s for CelebA's 202,599 images), and an open one cannot be
shared by threads or forked workers.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from .._core.errors import UserError

__all__ = ["members", "read_member"]

MOST_BYTES = 1 << 26  # of one image


def members(path: Path) -> list[zipfile.ZipInfo]:
    """The files in the zip's directory. Raises UserError for a damaged zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError) as error:
        raise _unreadable(f"{str(path)!r}", str(error)) from error


def read_member(path: Path, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a stored or deflated member. Raises UserError for a wrong length or CRC-32."""
    subject = f"{member.filename!r} in {str(path)!r}"
    if member.file_size > MOST_BYTES or member.flag_bits & 1 or member.compress_type not in (0, 8):
        raise _unreadable(subject, "too large, encrypted, or neither stored nor deflated")
    try:
        content = _inflate(_stored(path, member), member)
    except (OSError, zlib.error, struct.error) as error:
        raise _unreadable(subject, str(error)) from error
    if len(content) != member.file_size or zlib.crc32(content) != member.CRC:
        raise _unreadable(subject, "its length or checksum is wrong")
    return content


def _stored(path: Path, member: zipfile.ZipInfo) -> bytes:
    with open(path, "rb") as stream:
        stream.seek(member.header_offset)
        header = struct.unpack("<4s22xHH", stream.read(30))  # APPNOTE.TXT 4.3.7: signature, ..., name's, extra's length
        if header[0] != b"PK\3\4":
            raise OSError("no member starts at the position in the directory")
        stream.seek(header[1] + header[2], 1)
        return stream.read(min(member.compress_size, 2 * MOST_BYTES))


def _inflate(stored: bytes, member: zipfile.ZipInfo) -> bytes:
    if member.compress_type == zipfile.ZIP_STORED:
        return stored
    return zlib.decompressobj(-15).decompress(stored, member.file_size + 1)  # one byte more, to detect a longer member


def _unreadable(subject: str, reason: str) -> UserError:
    return UserError(f"{subject} cannot be read ({reason}); expected a complete zip file; copy or download it again")
