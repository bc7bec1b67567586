"""JSON in one spelling: canonical when written; when read, no duplicate key, NaN, deep nesting or huge number."""

from __future__ import annotations

import json
import math
import os
from typing import Any, NoReturn

from datafree.errors import UserError
from datafree.files.atomic import write_bytes
from datafree.files.regular import open_regular

__all__ = ["canonical", "parse", "read_json", "write_json"]

MAX_DEPTH = 32
MAX_DIGITS = 40
MAX_SEPARATORS = 1 << 19  # bounds what the parser makes: 50,000 tensors, at the worst about 50 MB


def canonical(value: object, what: str) -> bytes:
    """The one JSON text of `value`: keys sorted, no spaces, ASCII. What `parse` would refuse is refused here."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{what} is no JSON: {error}; give dicts, lists, strings, finite numbers, booleans") from None
    if not _string_keys(value):
        raise UserError(f"{what} has a key that is no string; JSON would turn it into one; give strings")
    data = text.encode("ascii")
    parse(data, what)
    return data


def parse(data: bytes, what: str) -> Any:
    """The value of a JSON text from a stranger; `what` names it in the error."""
    try:
        if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_SEPARATORS:
            raise ValueError(f"more than {MAX_SEPARATORS:,} separators")
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_int=_bounded_int,
            parse_float=_finite_float,
            parse_constant=_no_constant,
        )
        _check_depth(value)
    except RecursionError:
        raise UserError(f"{what} is nested deeper than {MAX_DEPTH} levels; it is damaged or hostile") from None
    except ValueError as error:
        raise UserError(f"{what} is not valid: {error}; it is damaged, or not a file of ours") from None
    return value


def write_json(path: str | os.PathLike[str], value: dict[str, Any]) -> None:
    """Write one JSON object in its canonical spelling and a line end, atomically."""
    if not isinstance(value, dict):
        raise UserError(f"cannot write {str(path)!r}: got {type(value).__name__}; wanted a JSON object; give a dict")
    write_bytes(path, canonical(value, f"the content of {str(path)!r}") + b"\n")


def read_json(path: str | os.PathLike[str], *, cap: int = 1 << 20) -> dict[str, Any]:
    """The JSON object in a file of at most `cap` bytes."""
    with open_regular(path) as (file, size):
        if size > cap:
            raise UserError(f"{str(path)!r} has {size:,} bytes; wanted at most {cap:,}; it is not a file of ours")
        data = file.read(cap + 1) or b""
    value = parse(data[: cap + 1], repr(str(path)))
    if not isinstance(value, dict):
        raise UserError(f"{str(path)!r} holds {_shown(value)}; wanted a JSON object; it is not a file of ours")
    return value


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


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
