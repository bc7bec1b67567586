"""A torch file as `torch.save` writes it since torch 1.6: a zip with a pickle and one member per storage."""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from io import FileIO
from typing import Any

from ..errors import UserError
from .pickle_reader import describe
from .torch_storages import PICKLE_CAP

__all__ = ["BAD_ZIP", "ZipCheckpoint"]

_DIRECTORY_CAP = 4 << 20  # 40,000 members; the zipfile module takes about 100 MB for them
BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)
"""What reading a damaged file raises."""


class ZipCheckpoint:
    """An opened zip. The sizes of its directory and members are checked before anything is read.

    Raises UserError or one of `BAD_ZIP`, also in its methods. `limit` is the maximum number of bytes of all members.
    """

    def __init__(self, file: FileIO, size: int, limit: int, subject: str):
        if _directory_size(file, size) > _DIRECTORY_CAP:
            raise ValueError(f"its directory is longer than {_DIRECTORY_CAP:,} bytes")
        self.limit = limit
        self.members = zipfile.ZipFile(file)  # pyright: ignore[reportArgumentType]
        total = sum(member.file_size for member in self.members.infolist())
        if total > limit:
            raise UserError(
                f"{subject} of {size:,} bytes unpacks to {total:,}; expected at most {limit:,}; it is hostile"
            )
        names = self.members.namelist()
        if len(set(names)) != len(names):
            raise ValueError("a member occurs twice")
        roots = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
        if len(roots) != 1:
            raise ValueError(f"it has {len(roots)} members */data.pkl, not 1")
        self.root = roots[0]
        order = self._read(f"{self.root}byteorder", 16, default=b"little")
        self.content: Any = describe(self._read(f"{self.root}data.pkl", PICKLE_CAP))
        """The described pickle."""
        if order != b"little":
            raise ValueError(f"its byte order is {order!r}")

    def storage_bytes(self, key: str) -> int | None:
        """Size of a storage; None if it is missing."""
        member = self.members.NameToInfo.get(f"{self.root}data/{key}")
        return None if member is None else member.file_size

    def read_storage(self, key: str) -> bytearray:
        return bytearray(self._read(f"{self.root}data/{key}", self.limit))

    def _read(self, name: str, cap: int, default: bytes | None = None) -> bytes:
        """The content of the member `name`, of at most `cap` bytes. The total of all members was checked before."""
        try:
            member = self.members.getinfo(name)
        except KeyError:
            if default is not None:
                return default
            raise ValueError(f"member {name[:80]!r} is missing") from None
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
            raise ValueError(f"member {name[:80]!r} is compressed in a way that torch does not use, or encrypted")
        if member.file_size > cap:
            raise ValueError(f"member {name[:80]!r} has {member.file_size:,} bytes; expected at most {cap:,}")
        return self.members.read(member)


def _directory_size(file: FileIO, size: int) -> int:
    """The size of the zip's directory in bytes, checked before the zipfile module creates objects for it."""
    file.seek(max(0, size - 98))
    tail = (file.read(98) or b"").rjust(98, b"\0")
    if tail[76:80] != b"PK\5\6" or tail[96:] != b"\0\0":
        raise ValueError("it does not end with a zip's end of directory")
    wide = tail[56:60] == b"PK\6\7"
    if wide and (tail[:4] != b"PK\6\6" or int.from_bytes(tail[64:72], "little") != size - 98):
        raise ValueError("its two ends of directory do not agree")
    return int.from_bytes(tail[40:48] if wide else tail[88:92], "little")
