"""Reads the header of a safetensors file and checks all of it before any tensor data is allocated or read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import FileIO
from typing import Any

import torch

from ..errors import UserError, nearest
from .open_file import check_pointer, read_into
from .paths import why_not_component
from .strict_json import parse

__all__ = [
    "DTYPES",
    "HEADER_CAP_MODEL",
    "HEADER_CAP_RECORD",
    "Expected",
    "Layout",
    "Table",
    "check_expected",
    "read_layout",
    "why_not_record_name",
    "why_not_weight_name",
]

HEADER_CAP_RECORD = 1 << 20
HEADER_CAP_MODEL = 16 << 20

DTYPES = {
    "F64": torch.float64,
    "I64": torch.int64,
    "F32": torch.float32,
    "I32": torch.int32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_DIMENSIONS = 16
_MAX_VOLUME = 1 << 48  # of the non-zero dimensions: safetensors takes shape [0, 2^62], torch overflows on it
_WEIGHT = re.compile(r"[!-~](?:[ -~]{0,510}[!-~])?")

Table = dict[str, tuple[torch.dtype, tuple[int, ...]]]
Expected = dict[str, tuple[torch.dtype, tuple[int, ...]]]
WhyNot = Callable[[object], "str | None"]


@dataclass(frozen=True)
class Layout:
    """The content of a header: its exact bytes, the tensors in the order of their data, and the metadata."""

    raw: bytes
    table: Table
    metadata: dict[str, str]


def read_layout(file: FileIO, size: int, *, subject: str, cap: int, why_not: WhyNot) -> Layout:
    """The checked header. Afterwards the file's position is the first byte of data."""
    raw = _read_raw(file, size, subject, cap)
    value = parse(raw, f"the header of {subject}")
    metadata = value.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _damaged(subject, "its metadata is no table of strings")
    table = _table(value, size - 8 - len(raw), subject, why_not)
    return Layout(raw, table, metadata)


def check_expected(table: Table, expect: Expected, subject: str) -> None:
    """Raises UserError for the first tensor, by name, that is missing, not in `expect`, or has another dtype or shape."""
    for name in sorted(expect.keys() | table.keys()):
        if name not in table:
            near = nearest(name, list(table)[:1000])
            raise UserError(f"no tensor {name!r} in {subject}; {near}; it was made for another network")
        if name not in expect:
            near = nearest(name, list(expect)[:1000])
            raise UserError(f"tensor {name!r} in {subject} is not expected; {near}; it was made for another network")
        for part, got, expected in zip(("dtype", "shape"), table[name], expect[name]):
            if got != expected:
                raise UserError(
                    f"tensor {name!r} in {subject} has {part} {got}; expected {expected}; it was made for another network"
                )


def why_not_record_name(name: object) -> str | None:
    """Why `name` is not valid in our files: at most 4 components of [A-Za-z0-9._-], joined by '/'. None if it is."""
    if not isinstance(name, str) or name == "__metadata__":
        return "it is reserved" if name == "__metadata__" else "it is no string"
    components = name.split("/")
    if len(components) > 4:
        return f"it has {len(components)} components"
    return next(filter(None, map(why_not_component, components)), None)


def why_not_weight_name(name: object) -> str | None:
    """Why `name` is not valid in a state dict: 1 to 512 printable ASCII, no '..' component, no leading '/'. None if it
    is.
    """
    if not isinstance(name, str) or name == "__metadata__":
        return "it is reserved" if name == "__metadata__" else "it is no string"
    if not _WEIGHT.fullmatch(name):
        return "it is empty, too long or not printable"
    return "it leads outside" if name[0] == "/" or ".." in re.split(r"[/\\]", name) else None


def _read_raw(file: FileIO, size: int, subject: str, cap: int) -> bytes:
    """The header's JSON text, of at most `cap` bytes."""
    head = file.read(9) or b""
    length = int.from_bytes(head[:8], "little")
    fits = len(head) == 9 and length <= size - 8
    check_pointer(head, subject)
    if not (fits and head[8:] == b"{"):
        raise _not_safetensors(head, subject, size)
    if length > cap:
        raise UserError(
            f"the header of {subject} has {length:,} bytes; expected at most {cap:,}; it is hostile or no such file"
        )
    raw = bytearray(length)
    raw[:1] = head[8:]
    if not read_into(file, memoryview(raw)[1:]):
        raise _damaged(subject, "it ends inside its header")
    if not raw.rstrip(b" ").endswith(b"}"):
        raise _damaged(subject, "its header does not end with '}'")
    return bytes(raw)


def _not_safetensors(head: bytes, subject: str, size: int) -> UserError:
    if head[:1] == b"\x80" or head[:2] == b"PK":
        return UserError(
            f"{subject} is a pickle, which can run code; expected safetensors, or for weights a state dict that torch.save "
            "wrote; save it again in one of these formats"
        )
    return _damaged(subject, f"its {size:,} bytes do not begin with a header that fits")


def _table(value: dict[str, Any], data: int, subject: str, why_not: WhyNot) -> Table:
    """The tensors in the order of their data; together they cover all of it without a gap or an overlap."""
    spans = []
    for name, entry in value.items():
        if reason := why_not(name):
            raise UserError(
                f"tensor name {name[:80]!r} in {subject} cannot be used: {reason}; it is hostile or damaged"
            )
        spans.append((*_span(entry, f"tensor {name!r} in {subject}"), name))
    spans.sort(key=lambda span: span[:2])
    position, table = 0, {}
    for begin, end, tensor, name in spans:
        if begin != position:
            raise _damaged(subject, f"tensor {name!r} begins at byte {begin} of the data, not at {position}")
        position, table[name] = end, tensor
    if position != data:
        raise _damaged(subject, f"it has {data:,} bytes of data, its header says {position:,}")
    return table


def _span(entry: Any, subject: str) -> tuple[int, int, tuple[torch.dtype, tuple[int, ...]]]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(subject, "its entry is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(
            f"{subject} has dtype {str(dtype)[:40]!r}; expected one of {', '.join(DTYPES)}; convert it first"
        )
    if not _counts(shape) or len(shape) > _MAX_DIMENSIONS or _volume(shape) > _MAX_VOLUME:
        raise _damaged(subject, f"its shape {str(shape)[:80]} is impossible")
    if not _counts(offsets) or len(offsets) != 2:
        raise _damaged(subject, f"its data_offsets {str(offsets)[:80]} are not two counts")
    begin, end = offsets
    if math.prod(shape) * DTYPES[dtype].itemsize != end - begin:
        raise _damaged(subject, f"shape {shape} of {dtype} does not fill its {end - begin} bytes")
    return begin, end, (DTYPES[dtype], tuple(shape))


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _volume(shape: Iterable[int]) -> int:
    return math.prod(size or 1 for size in shape)


def _damaged(subject: str, reason: str) -> UserError:
    return UserError(f"{subject} is not a whole safetensors file: {reason}; get or write it again")
