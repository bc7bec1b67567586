"""Parses protobuf's wire format with a table of allowed fields and a limit on their number.

Protobuf libraries create an object of 100 bytes for every 2 bytes of a hostile file, and differ in whether they merge
two values of a field or use the last. Here a field that is not in the table, a second value of a single field, a
length beyond the end of the file, and too many fields are errors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..._core.errors import UserError

__all__ = ["MAX_FIELDS", "Field", "Schema", "parse", "varints"]

MAX_FIELDS = 250_000
"""A ResNet-152 in integers has 60,000."""
MAX_TEXT = 4096
WIRE = {"int": 0, "text": 2, "bytes": 2, "float": 5}
NAMES = {0: "a number", 1: "8 bytes", 2: "bytes", 3: "a group", 4: "the end of a group", 5: "4 bytes"}


@dataclass(frozen=True)
class Field:
    """One field of a message: its name, `kind` in WIRE or the schema of its message, and whether it may be repeated.

    `refuse` is the reason why a file with this field is refused; such a field is never read.
    """

    name: str
    kind: str | Schema = "int"
    repeated: bool = False
    refuse: str | None = None


@dataclass(frozen=True)
class Schema:
    """A message type: its name for errors, and its fields by number."""

    name: str
    fields: dict[int, Field]


def parse(content: bytes, schema: Schema) -> dict[str, Any]:
    """The fields of a message by name: repeated ones as lists, bytes as views of `content`. Raises UserError."""
    return _Reader().message(memoryview(content), schema)


class _Reader:
    def __init__(self) -> None:
        self.fields = 0

    def message(self, data: memoryview, schema: Schema) -> dict[str, Any]:
        values: dict[str, Any] = {}
        position, end, fields = 0, len(data), schema.fields
        while position < end:
            self.count()
            tag, position = varint(data, position, schema.name)
            number, wire = tag >> 3, tag & 7
            field = fields.get(number)
            if field is None:
                raise UserError(f"its {schema.name} has field {number}, which no file written by datafree has")
            if field.refuse is not None:
                raise UserError(field.refuse)
            if field.repeated and field.kind == "int" and wire == 2:
                numbers, position = self.packed(data, position, schema)
                values.setdefault(field.name, []).extend(numbers)
                continue
            value, position = self.value(data, position, wire, field, schema)
            if field.repeated:
                values.setdefault(field.name, []).append(value)
            elif field.name in values:
                raise UserError(f"its {schema.name} has two values of {field.name}, expected one")
            else:
                values[field.name] = value
        return values

    def value(self, data: memoryview, position: int, wire: int, field: Field, schema: Schema) -> tuple[Any, int]:
        kind = field.kind
        expected = 2 if isinstance(kind, Schema) else WIRE[kind]
        if wire != expected:
            raise UserError(
                f"{field.name} of its {schema.name} is stored as {NAMES.get(wire, 'no known kind')}, "
                f"expected {NAMES[expected]}"
            )
        if wire == 0:
            number, position = varint(data, position, schema.name)
            return signed(number), position
        size, position = varint(data, position, schema.name) if wire == 2 else (4, position)
        if size > len(data) - position:
            raise UserError(f"{field.name} of its {schema.name} goes beyond the end; the file is truncated or damaged")
        part = data[position : position + size]
        if isinstance(kind, Schema):
            return self.message(part, kind), position + size
        if kind == "float":
            return struct.unpack("<f", part)[0], position + size
        return text(part, field, schema) if kind == "text" else part, position + size

    def packed(self, data: memoryview, position: int, schema: Schema) -> tuple[list[int], int]:
        """Consecutive integers, each counted as a field."""
        size, position = varint(data, position, schema.name)
        end, numbers = position + size, []
        if end > len(data):
            raise UserError(f"numbers of its {schema.name} go beyond the end; the file is truncated or damaged")
        while position < end:
            self.count()
            number, position = varint(data[:end], position, schema.name)
            numbers.append(signed(number))
        return numbers, end

    def count(self) -> None:
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise UserError(f"it has more than {MAX_FIELDS:,} fields; use a smaller network")


def text(part: memoryview, field: Field, schema: Schema) -> str:
    if len(part) > MAX_TEXT:
        raise UserError(f"{field.name} of its {schema.name} has {len(part):,} bytes, expected at most {MAX_TEXT:,}")
    try:
        return bytes(part).decode()
    except UnicodeDecodeError:
        raise UserError(f"{field.name} of its {schema.name} is no UTF-8 text") from None


def signed(number: int) -> int:
    return number - (1 << 64 if number >> 63 else 0)


def varints(content: bytes | memoryview, name: str) -> np.ndarray:
    """All consecutive numbers in `content`, as int64. Raises UserError like `varint`."""
    data = np.frombuffer(content, np.uint8)
    if not len(data):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(data < 128) + 1
    if data[-1] >= 128:
        raise UserError(f"a number of its {name} goes beyond the end; the file is truncated or damaged")
    starts = np.concatenate([[0], ends[:-1]])
    places = np.arange(len(data)) - np.repeat(starts, ends - starts)
    if places.max() > 9 or (data[places == 9] > 1).any():
        raise UserError(f"a number of its {name} has more than 64 bits; the file is damaged")
    parts = (data & 127).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.bitwise_or.reduceat(parts, starts).view(np.int64)


def varint(data: memoryview, position: int, name: str) -> tuple[int, int]:
    """A number of up to 64 bits and the position after it."""
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise UserError(f"a number of its {name} goes beyond the end; the file is truncated or damaged")
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            if number >> 64:
                break
            return number, position
    raise UserError(f"a number of its {name} has more than 64 bits; the file is damaged")
