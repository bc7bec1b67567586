"""Reads numeric arrays from MATLAB version 5 files (MathWorks, "MAT-File Format"). All lengths are checked before use.

scipy's reader trusts the counts and types in a file, so that one changed byte can crash the process.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["Matrix", "matrices"]

HEADER, HEAD = 128, 1024
"""Number of bytes before the first element; maximum number of bytes before an array's values."""
MOST_ELEMENTS = 1000
COMPRESSED, MATRIX, UINT32, INT32, INT8 = 15, 14, 6, 5, 1
STORED = {
    1: "int8", 2: "uint8", 3: "int16", 4: "uint16", 5: "int32", 6: "uint32", 7: "float32", 9: "float64", 12: "int64",
    13: "uint64",
}  # fmt: skip
"""Type of an element -> format of its values."""
CLASSES = {
    1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 6: "float64", 7: "float32", 8: "int8", 9: "uint8",
    10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64",
}  # fmt: skip
"""Class of an array -> its MATLAB type, which may differ from the stored format."""
COMPLEX = 0x0800
CUT = "it ends within an array"


@dataclass(frozen=True)
class Matrix:
    """One array whose values have not been read yet."""

    shape: tuple[int, ...]
    kind: str
    """A number format, or another type: struct, cell, char."""
    element: memoryview
    """The element as stored in the file."""
    compressed: bool
    start: int
    """Position of its values in the uncompressed element."""

    @property
    def nbytes(self) -> int:
        """Number of bytes of its values in the format `kind`."""
        return math.prod(self.shape) * np.dtype(self.kind).itemsize

    def values(self) -> np.ndarray:
        """The values in the format `kind`. Raises ValueError if the file's contents contradict its header."""
        if self.kind not in STORED.values():
            raise ValueError(f"it holds a {self.kind} instead of numbers")
        content = self._uncompressed() if self.compressed else self.element
        type, start, size, _ = _tag(content, self.start)
        stored = np.dtype(STORED.get(type, "V"))
        if stored.kind == "V" or size != math.prod(self.shape) * stored.itemsize or start + size > len(content):
            raise ValueError(f"an array of shape {self.shape} holds {size:,} bytes of type {type}")
        numbers = np.frombuffer(content, stored.newbyteorder("<"), math.prod(self.shape), start)
        if stored != self.kind and not _fits(numbers, np.dtype(self.kind)):
            raise ValueError(f"an array of {self.kind} holds {stored} beyond it")
        return numbers.astype(self.kind, copy=False).reshape(self.shape, order="F")

    def _uncompressed(self) -> memoryview:
        """The uncompressed element, at most as many bytes as its values can need."""
        limit = HEAD + 8 * math.prod(self.shape) + 16
        stream = zlib.decompressobj()
        content = stream.decompress(self.element, limit + 1)
        if len(content) > limit:
            raise ValueError("an array unpacks to more than its shape needs")
        if stream.decompress(stream.unconsumed_tail, 1) or not stream.eof:
            raise ValueError(CUT)
        return memoryview(content)


def matrices(content: bytes, names: tuple[str, ...]) -> dict[str, Matrix]:
    """The arrays with the given names. Raises ValueError for a damaged file, zlib.error for a damaged stream."""
    if len(content) < HEADER or content[124:128] != b"\x00\x01IM":
        raise ValueError("it does not begin as version 5 does, with the lowest byte first")
    arrays: dict[str, Matrix] = {}
    for type, element in _elements(memoryview(content)):
        if type not in (COMPRESSED, MATRIX):
            continue
        packed = type == COMPRESSED
        head = memoryview(zlib.decompressobj().decompress(element, HEAD)) if packed else element[:HEAD]
        heading = _head(head, packed)
        if heading is None:
            continue
        name, shape, kind, start = heading
        if name in arrays:
            raise ValueError(f"it holds {name} twice")
        if name in names:
            arrays[name] = Matrix(shape, kind, element, packed, start)
    return arrays


def _elements(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    position, count = HEADER, 0
    while position < len(data):
        count += 1
        if count > MOST_ELEMENTS:
            raise ValueError(f"it holds more than {MOST_ELEMENTS:,} arrays")
        if position + 8 > len(data):
            raise ValueError("it ends within an element")
        type, size = struct.unpack_from("<II", data, position)
        if size > len(data) - position - 8:
            raise ValueError("it ends within an element")
        yield type, data[position + 8 : position + 8 + size]
        position += 8 + size


def _head(data: memoryview, packed: bool) -> tuple[str, tuple[int, ...], str, int] | None:
    """Name, shape, kind and position of the values; None for a compressed element that is not an array."""
    position = 0
    if packed:
        if len(data) < 8:
            raise ValueError(CUT)
        if struct.unpack_from("<I", data)[0] != MATRIX:
            return None
        position = 8
    flags, position = _part(data, position, UINT32, 8)
    sizes, position = _part(data, position, INT32, 4 * 32)
    letters, position = _part(data, position, INT8, 256)
    if len(flags) != 8 or len(sizes) % 4 or len(sizes) < 8:
        raise ValueError("an array has no class or no shape")
    (word,) = struct.unpack_from("<I", flags)
    shape = struct.unpack(f"<{len(sizes) // 4}i", sizes)
    if min(shape) < 0:
        raise ValueError(f"an array has the shape {shape}")
    kind = "complex" if word & COMPLEX else CLASSES.get(word & 0xFF, "unknown")
    return bytes(letters).decode("ascii", "replace"), shape, kind, position


def _part(data: memoryview, position: int, type: int, limit: int) -> tuple[memoryview, int]:
    """A part of an array's header, and the position of the next part."""
    found_type, start, size, end = _tag(data, position)
    if found_type != type or size > limit or start + size > len(data):
        raise ValueError(f"an array has {size:,} bytes of type {found_type} in its header")
    return data[start : start + size], end


def _tag(data: memoryview, position: int) -> tuple[int, int, int, int]:
    """Type, start, size and end of a part. Parts of up to 4 bytes are stored in the tag itself."""
    if position + 8 > len(data):
        raise ValueError(CUT)
    type, size = struct.unpack_from("<II", data, position)
    if type >> 16:
        if type >> 16 > 4:
            raise ValueError(f"an array has {type >> 16} bytes in a tag that holds 4")
        return type & 0xFFFF, position + 4, type >> 16, position + 8
    return type, position + 8, size, position + 8 + size + -size % 8


def _fits(values: np.ndarray, kind: np.dtype) -> bool:
    """Whether the values can be represented in another format; MATLAB stores whole doubles as bytes."""
    if kind.kind == "f" or not values.size:
        return True
    limits = np.iinfo(kind)
    low, high = values.min(), values.max()
    return bool(
        low >= limits.min and high <= limits.max and (values.dtype.kind != "f" or (values == values.round()).all())
    )
