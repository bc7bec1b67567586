"""Ways to spoil a file: what it is, its bytes, or its structure with the checksum put right again."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import torch

from datafree._core.errors import UserError
from datafree._core.files import read_tensors, write_sealed_json, write_tensors

__all__ = ["changed_json", "mutate", "mutate_json", "mutate_tensors", "spoilt_bytes"]

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool)
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2**31, 2**53, 2**62, 2**63, 10**30, -0.5, 1.5, 1e-300, 1e20, 1e300, -1e20, "", "a",
    "é\u202e\x1b[2J", "../x", "9" * 50, "x" * 5000, "y" * 1_000_000, [], {}, [[[[]]]], {"a": {"b": {}}}, [1e308] * 3,
    "resnet9998", "hinton999999999", "nan", [None], {"method": "dm"}, list(range(20_000)), ["a"] * 20_000,
    {str(number): number for number in range(10_000)}, "\ud800", "a\nb", "\0",
)  # fmt: skip
INSTEAD = ("gone", "empty", "a folder", "a link to itself", "a link to a device", "a pipe")


def mutate(path: Path, rng: random.Random) -> tuple[str, bool]:
    """Changes the file in place; what was done, and whether its checksum fits what it now holds."""
    data = path.read_bytes()
    if rng.random() < 0.03:
        return _instead(path, rng), True
    if path.suffix == ".json" and rng.random() < 0.6:
        return mutate_json(path, rng)
    if data[8:9] == b"{" and b'\\"sha256\\"' in data[:100_000] and rng.random() < 0.7:
        return mutate_tensors(path, data, rng)
    words, data = spoilt_bytes(data, rng)
    path.write_bytes(data)
    return words, False


def _instead(path: Path, rng: random.Random) -> str:
    """Something else in the place of the file."""
    kind = rng.choice(INSTEAD)
    path.unlink()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "a folder":
        path.mkdir()
    elif kind.startswith("a link"):
        path.symlink_to(path if kind == "a link to itself" else "/dev/zero")
    elif kind == "a pipe":
        os.mkfifo(path)
    return kind


def spoilt_bytes(data: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Some bytes changed, lost or more; what was done, and the result."""
    kind, size = (
        rng.choice(["flip", "flip", "flips", "cut", "splice", "length", "zeros", "insert", "header"]),
        max(1, len(data)),
    )
    at, own = rng.randrange(size), bytearray(data)
    if kind in ("flip", "flips", "header") and data:
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


def _other(value: Any, rng: random.Random) -> Any:
    """A value near to `value`: another type, sign or size, more of it, or one level deeper."""
    if isinstance(value, bool):
        return rng.choice([not value, int(value), str(value)])
    if isinstance(value, (int, float)):
        return rng.choice([-value, bool(value), float(value), str(value), value + 1, value * 10**6, [value], 2 * value])
    if isinstance(value, str):
        return rng.choice([value * 2, value.upper(), value + " ", value * 10_000, [value], value[:-1], {value: value}])
    if isinstance(value, list):
        return rng.choice([value * 2, value * 1000, value[:-1], [value], value[::-1], dict(enumerate(map(str, value)))])
    if isinstance(value, dict):
        return rng.choice([list(value), {}, dict(list(value.items())[1:]), {"a": value}, str(value)])
    return rng.choice(VALUES)


def changed_json(value: Any, rng: random.Random) -> tuple[str, Any]:
    """One part of a JSON value replaced, removed or added."""
    value = json.loads(json.dumps(value))
    nodes = _nodes(value)
    if not nodes:
        return "a key more", {"a": rng.choice(VALUES)}
    place = rng.choice(nodes)
    parent = value
    for key in place[:-1]:
        parent = parent[key]
    kind = rng.choice(["value", "value", "value", "near", "near", "remove", "add"])
    if kind == "value":
        parent[place[-1]] = rng.choice(VALUES)
    elif kind == "near":
        parent[place[-1]] = _other(parent[place[-1]], rng)
    elif kind == "remove":
        del parent[place[-1]]
    elif isinstance(parent, dict):
        parent[rng.choice(["more", "z" * 1_000_000, "", "\x1b[2J"])] = rng.choice(VALUES)
    else:
        parent.append(rng.choice(VALUES))
    return f"{kind} at {'.'.join(map(str, place))[:80]}", value


def mutate_json(path: Path, rng: random.Random) -> tuple[str, bool]:
    """A JSON file, in place; where it has a checksum, mostly with one that fits."""
    value = json.loads(path.read_bytes())
    words, value = changed_json(value, rng)
    if isinstance(value, dict) and "checksum" in value and rng.random() < 0.9:
        try:
            write_sealed_json(path, value)
            return f"sealed anew, {words}", True
        except UserError:
            pass
    path.write_text(json.dumps(value))
    return words, False


def mutate_tensors(path: Path, data: bytes, rng: random.Random) -> tuple[str, bool]:
    """A sealed safetensors file, in place: a tensor or a part of its header changed, and sealed again."""
    size = int.from_bytes(data[:8], "little")
    kind = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["datafree"])["kind"]
    tensors, header = read_tensors(path, kind=kind)
    if header and rng.random() < 0.4:
        words, header = changed_json(header, rng)
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
    kind = rng.choice(
        [
            "gone",
            "renamed",
            "dtype",
            "short",
            "long",
            "flat",
            "huge",
            "negative",
            "large",
            "empty",
            "one",
            "swapped",
            "many",
        ]
    )
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
    elif kind == "one":  # a single number, everything else as it was
        own[name], value = tensor.clone(), rng.choice([-1, 1, 3, 2**31 - 1, 2**62, 1e20, 3e38, -1e20, 1e-30])
        if tensor.numel() and tensor.dtype != torch.bool:
            low, high = _limits(tensor.dtype)
            own[name].view(-1)[rng.randrange(tensor.numel())] = type(low)(min(max(value, low), high))
    elif kind == "swapped":
        other = rng.choice(sorted(own) or [name])
        own[name] = own.get(other, tensor)
        own[other] = tensor
    elif kind == "many":
        own |= {f"{name}{index}" if "/" in name else f"x/{index}": tensor.flatten()[:1] for index in range(2000)}
        own[name] = tensor
    elif kind != "gone":
        value = {"huge": 1e30 if tensor.is_floating_point() else 2**62, "negative": -1, "large": 1e9}[kind]
        own[name] = tensor.double().clone().fill_(value).to(tensor.dtype) if tensor.dtype != torch.bool else tensor
    return f"{kind} {name}", own


def _limits(dtype: torch.dtype) -> tuple[Any, Any]:
    info = torch.finfo(dtype) if dtype.is_floating_point else torch.iinfo(dtype)
    return info.min, info.max


def copied(source: Path, target: Path) -> None:
    """A copy of a folder, links as they are; without pipes, which cannot be copied."""

    def pipes(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if (Path(folder) / name).is_fifo()]

    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True, ignore=pipes)
