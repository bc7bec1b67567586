"""Strict JSON: written in canonical form; read without duplicate keys, NaN, deep nesting or huge numbers."""

from __future__ import annotations

import codecs
import hashlib
import json
import math
import os
import re
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NoReturn

from ..errors import Notice, UserError
from .atomic import write_bytes
from .open_file import check_pointer, open_regular

__all__ = [
    "canonical",
    "check_size",
    "is_format",
    "parse",
    "read_json",
    "read_sealed_json",
    "write_json",
    "write_sealed_json",
]

MAX_DEPTH = 32
MAX_DIGITS = 40
MAX_SEPARATORS = 1 << 19  # bounds the parser's memory: 50,000 tensors, about 50 MB at worst
_CHECKSUM = "checksum"
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))


@dataclass(frozen=True)
class _Limits:
    """The largest number of bytes in a JSON file, and of commas and brackets together."""

    size: int = 4 << 20
    separators: int = MAX_SEPARATORS


_RUN = _Limits(48 << 20, 1_600_000)  # 100,000 epochs of the longest history, with three rollbacks each
_SET = _Limits(32 << 20)  # 200,000 shards of 93 bytes each, and the settings that made them


def _limits_of(path: str | os.PathLike[str]) -> _Limits:
    """The limits for a file's name, for both its writer and its reader."""
    name = os.fsdecode(os.path.basename(path))
    return _RUN if name.endswith("run.json") else _SET if name == "set.json" else _Limits()


def canonical(value: object, subject: str, separators: int = MAX_SEPARATORS) -> bytes:
    """The canonical JSON text of `value`: sorted keys, no spaces, ASCII. Raises UserError for what `parse` would refuse."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{subject} is no JSON: {error}; give dicts, lists, strings, finite numbers, booleans"
        ) from None
    if not _string_keys(value):
        raise UserError(f"{subject} has a key that is no string; JSON would turn it into one; give strings")
    data = text.encode("ascii")
    parse(data, subject, separators)
    return data


def check_size(data: bytes, subject: str, separators: int = MAX_SEPARATORS) -> None:
    """Raises UserError for a JSON text with more parts than `parse` accepts."""
    if (count := _separators(data)) > separators:
        raise UserError(f"{subject} would have {count:,} separators; expected at most {separators:,}; have fewer parts")


def _separators(data: bytes) -> int:
    return data.count(b",") + data.count(b"[") + data.count(b"{")


def parse(data: bytes, subject: str, separators: int = MAX_SEPARATORS) -> Any:
    """The value of an untrusted JSON text with at most `separators` commas and brackets; `subject` is its name in errors."""
    try:
        if _separators(data) > separators:
            raise ValueError(f"more than {separators:,} separators")
        if data.startswith(codecs.BOM_UTF8):
            raise UserError(f"{subject} begins with a byte-order mark, expected UTF-8 without one; save it as such")
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_bounded_int if _LONG_NUMBER.search(data) else None,  # None is five times as fast
            parse_float=_finite_float,
            parse_constant=_no_constant,
        )
        _check_depth(value)
    except RecursionError:
        raise UserError(f"{subject} is nested deeper than {MAX_DEPTH} levels; it is damaged or hostile") from None
    except ValueError as error:
        raise UserError(f"{subject} is not valid: {error}; it is damaged, or not a file of ours") from None
    return value


def write_json(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Writes a JSON object in canonical form with a line end, atomically. Raises UserError for what `read_json` would
    refuse.
    """
    if not isinstance(value, dict):
        raise UserError(f"cannot write {str(path)!r}: got {type(value).__name__}; expected a JSON object; give a dict")
    limits = _limits_of(path)
    data = canonical(value, f"the content of {str(path)!r}", limits.separators) + b"\n"
    if len(data) > limits.size:
        raise UserError(
            f"{str(path)!r} would have {len(data):,} bytes; expected at most {limits.size:,}; have fewer parts"
        )
    write_bytes(path, data)


def is_format(value: Any, number: int) -> bool:
    """Whether a file's format is this number; `true` and 1.0 are not 1."""
    return type(value) is int and value == number


def read_json(path: str | os.PathLike[str], *, cap: int | None = None) -> dict[str, Any]:
    """The JSON object in a file of at most `cap` bytes; the default depends on the file's name."""
    limits = _limits_of(path)
    cap = limits.size if cap is None else cap
    with open_regular(path) as (file, size):
        if size > cap:
            raise UserError(f"{str(path)!r} has {size:,} bytes; expected at most {cap:,}; it is not a file of ours")
        data = file.read(cap + 1) or b""
    check_pointer(data, repr(str(path)))
    value = parse(data[: cap + 1], repr(str(path)), limits.separators)
    if not isinstance(value, dict):
        raise UserError(f"{str(path)!r} holds {_shortened(value)}; expected a JSON object; it is not a file of ours")
    return value


def write_sealed_json(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Like `write_json`, with the sha256 of the content under "checksum", replacing an existing one."""
    value = {key: entry for key, entry in value.items() if key != _CHECKSUM}
    write_json(path, {**value, _CHECKSUM: _digest(value, path)})


def read_sealed_json(path: str | os.PathLike[str], older: Collection[str]) -> dict[str, Any]:
    """The value that `write_sealed_json` wrote. Raises UserError if the checksum does not match.

    A file without a checksum is accepted, with a `Notice`, if it has only the keys in `older`, as in earlier versions.
    """
    value = read_json(path)
    digest = value.pop(_CHECKSUM, None)
    if digest is None:
        if further := value.keys() - set(older):
            raise UserError(
                f"{str(path)!r} has no checksum, and a key {min(further)[:80]!r}; it is damaged, or not a file of "
                "ours; get it again, or check the path"
            )
        if is_format(value.get("format"), 1):  # another format is refused by the caller
            words = "has no checksum, as an earlier version wrote it: its content is not verified"
            warnings.warn(Notice(f"{path} {words}"), stacklevel=2)
    elif digest != _digest(value, path):
        # without a checksum only a file that an earlier version could have written is opened
        changed = "" if value.keys() - set(older) else ", or remove its checksum if you changed it yourself"
        raise UserError(
            f"{str(path)!r} is not as it was written: its checksum does not fit; get it or make it again{changed}"
        )
    return value


def _digest(value: dict[str, Any], path: str | os.PathLike[str]) -> str:
    return hashlib.sha256(canonical(value, f"the content of {str(path)!r}", _limits_of(path).separators)).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"key {twice[:80]!r} occurs twice")
    return value


def _bounded_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:40]} is not finite")
    return value


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for node in level if isinstance(node, (dict, list)) for child in _children(node)]
        if not level:
            return
    raise RecursionError


def _children(node: dict[str, Any] | list[Any]) -> Any:
    return node.values() if isinstance(node, dict) else node


def _string_keys(value: object) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str and _string_keys(child) for key, child in value.items())
    return not isinstance(value, (list, tuple)) or all(map(_string_keys, value))


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
