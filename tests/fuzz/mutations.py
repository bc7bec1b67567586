"""Ways to spoil a file: its bytes, or its structure with the checksum put right again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

from datafree.errors import UserError
from datafree.files import read_tensors, write_sealed_json, write_tensors

__all__ = ["mutate"]

BYTES = ("flip", "flip", "flips", "cut", "splice", "length", "zeros", "insert", "header")
TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**53, 2**63, 10**30, -0.5, 1.5, 1e20, 1e300, "", "a", "é\u202e\x1b[2J", "../x", "9" * 50,
    "x" * 5000, [], {}, [[[[]]]], {"a": {"b": {}}}, [1e308] * 3, "resnet9998", "nan", [None], {"method": "dm"},
)  # fmt: skip


def mutate(path: Path, rng: random.Random) -> tuple[str, bool]:
    """Changes the file in place; what was done, and whether its checksum fits what it now holds."""
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.6:
        return _json(path, rng)
    if data[8:9] == b"{" and b'\\"sha256\\"' in data[:100_000] and rng.random() < 0.6:
        return _tensors(path, data, rng)
    words, data = _bytes(data, rng)
    path.write_bytes(data)
    return words, False


def _bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    kind, size = (
        rng.choice(["flip", "flip", "flips", "cut", "splice", "length", "zeros", "insert", "header"]),
        max(1, len(data)),
    )
    at, own = rng.randrange(size), bytearray(data)
    if kind in ("flip", "flips", "header"):
        for _ in range(1 if kind == "flip" else rng.randint(2, 20)):
            where = rng.randrange(min(size, 200) if kind == "header" else size)
            own[where] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del own[at:]
    elif kind == "splice":
        start, length = rng.randrange(size), rng.randint(1, 64)
        own[at : at + length] = data[start : start + length]
    elif kind == "length":
        own[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
    elif kind == "zeros":
        own[at : at + rng.randint(1, 512)] = bytes(rng.randint(1, 512))
    else:
        own[at:at] = rng.randbytes(rng.randint(1, 40))
    return f"{kind} at {at}", bytes(own)


def _nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the parts of a JSON value are."""
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        found += _nodes(child, (*path, key))
    return found


def _changed(value: Any, rng: random.Random) -> tuple[str, Any]:
    value = json.loads(json.dumps(value))
    nodes = _nodes(value)
    if not nodes:
        return "a key more", {"a": rng.choice(VALUES)}
    place = rng.choice(nodes)
    parent = value
    for key in place[:-1]:
        parent = parent[key]
    kind = rng.choice(["value", "value", "value", "remove", "add"])
    if kind == "value":
        parent[place[-1]] = rng.choice(VALUES)
    elif kind == "remove":
        del parent[place[-1]]
    elif isinstance(parent, dict):
        parent["more"] = rng.choice(VALUES)
    else:
        parent.append(rng.choice(VALUES))
    return f"{kind} at {'.'.join(map(str, place))[:80]}", value


def _json(path: Path, rng: random.Random) -> tuple[str, bool]:
    value = json.loads(path.read_bytes())
    words, value = _changed(value, rng)
    if "checksum" in value and rng.random() < 0.8:
        try:
            write_sealed_json(path, value)
            return f"sealed anew, {words}", True
        except UserError:
            pass
    path.write_text(json.dumps(value))
    return words, False


def _tensors(path: Path, data: bytes, rng: random.Random) -> tuple[str, bool]:
    size = int.from_bytes(data[:8], "little")
    kind = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["datafree"])["kind"]
    tensors, header = read_tensors(path, kind=kind)
    if header and rng.random() < 0.4:
        words, header = _changed(header, rng)
    else:
        words, tensors = _tensor(tensors, rng)
    path.unlink()
    try:
        write_tensors(path, tensors, header, kind=kind)
    except (UserError, TypeError):  # nobody could write it either
        path.write_bytes(data[: len(data) // 2])
    return f"sealed anew, {words}", True


def _tensor(tensors: dict[str, Any], rng: random.Random) -> tuple[str, dict[str, Any]]:
    name, own = rng.choice(sorted(tensors)), dict(tensors)
    tensor = own.pop(name)
    kind = rng.choice(["gone", "renamed", "dtype", "short", "long", "flat", "huge", "negative", "large", "empty"])
    if kind == "renamed":
        own[name + "x"] = tensor
    elif kind == "dtype":
        own[name] = tensor.to(rng.choice(TYPES))
    elif kind == "short":
        own[name] = tensor.flatten()[:-1]
    elif kind == "long":
        own[name] = torch.cat([tensor, tensor]) if tensor.ndim else tensor.repeat(2)
    elif kind == "flat":
        own[name] = tensor.flatten()
    elif kind == "empty":
        own[name] = tensor.flatten()[:0]
    elif kind != "gone":
        value = {"huge": 1e30 if tensor.is_floating_point() else 2**62, "negative": -1, "large": 1e9}[kind]
        own[name] = tensor.double().clone().fill_(value).to(tensor.dtype) if tensor.dtype != torch.bool else tensor
    return f"{kind} {name}", own
