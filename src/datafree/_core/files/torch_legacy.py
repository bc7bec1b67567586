"""A torch file in the format before torch 1.6: five pickles, then the storages one after another."""

from __future__ import annotations

import struct
from io import FileIO
from typing import Any

from .open_file import read_into
from .pickle_reader import Stream, describe_stream
from .torch_storages import PICKLE_CAP, storage_class, storage_dtype

__all__ = ["MAGIC", "LegacyCheckpoint"]

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Its first bytes: the pickled number 0x1950a86a20f9469cfc6c."""
_OTHER_SIZES = {
    "Short": 2,
    "Char": 1,
    "ComplexFloat": 8,
    "ComplexDouble": 16,
    "QInt8": 1,
    "QUInt8": 1,
    "QInt32": 4,
    "Untyped": 1,
}
"""Storage class -> bytes per number, of those that are skipped. Newer formats, such as float8, are in an untyped one."""


class LegacyCheckpoint:
    """An opened file. Raises ValueError if it is damaged. No more is allocated than the file has bytes."""

    def __init__(self, file: FileIO, size: int):
        self.file, self.size, self.position = file, size, len(MAGIC)
        version, system = self._pickle().content, self._pickle().content
        if version != 1001:
            got = version if type(version) is int else type(version).__name__  # the text of nested tuples may be huge
            raise ValueError(f"its protocol version is {got}, not 1001")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("its numbers are not little-endian")
        described = self._pickle()
        self.content: Any = described.content
        """The described pickle."""
        keys = self._pickle().content
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("it has no list of storages")
        self.places: dict[str, tuple[int, int]] = {}
        """Key -> position and number of bytes of each storage."""
        for key in keys:
            self._locate(key, described.storages.get(key))

    def storage_bytes(self, key: str) -> int | None:
        """Size of a storage; None if it is missing."""
        return self.places[key][1] if key in self.places else None

    def read_storage(self, key: str) -> bytearray:
        return self._read(*self.places[key])

    def _pickle(self) -> Stream:
        stream = describe_stream(self._read(self.position, min(PICKLE_CAP, self.size - self.position)))
        self.position += stream.length
        return stream

    def _read(self, position: int, count: int) -> bytearray:
        data = bytearray(count)
        self.file.seek(position)
        if not read_into(self.file, memoryview(data)):
            raise ValueError("it ends too early")
        return data

    def _locate(self, key: str, storage: str | None) -> None:
        """Notes where a storage is: its number of values in eight bytes, then the values."""
        if storage is None or key in self.places:
            raise ValueError(f"storage {key[:80]!r} belongs to no tensor, or occurs twice")
        dtype, name = storage_dtype(storage), storage_class(storage)
        if dtype is None and name not in _OTHER_SIZES:
            raise ValueError(f"its storage {storage[:80]!r} is of an unknown type")
        if self.position + 8 > self.size:
            raise ValueError("it ends within a storage")
        count = struct.unpack("<q", self._read(self.position, 8))[0]
        length = count * (_OTHER_SIZES[name] if dtype is None else dtype.itemsize)
        self.position += 8 + length
        if count < 0 or self.position > self.size:
            raise ValueError("it ends within a storage")
        self.places[key] = (self.position - length, length)
