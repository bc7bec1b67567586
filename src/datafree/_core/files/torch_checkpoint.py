"""Converts a torch `.pt` / `.pth` state dict to a file that is safe to load."""

from __future__ import annotations

import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from io import FileIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import Notice, UserError
from .header import why_not_weight_name
from .lock import locked
from .open_file import open_regular
from .pickle_reader import Described, Opaque, describe
from .tensors import WEIGHTS, read_tensors, write_tensors

__all__ = ["convert_weights", "read_torch"]

_PICKLE_CAP = 16 << 20
_DIRECTORY_CAP = 4 << 20  # 40,000 members; the zipfile module takes about 100 MB for them
_NESTS = ("state_dict", "model")
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Byte": torch.uint8,
    "Bool": torch.bool,
}
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error)


def convert_weights(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, cap: int = 16 << 30
) -> list[str] | None:
    """Writes the state dict in `source` to `target`, kind "weights", and returns the sorted names of its tensors.

    Returns None if `target` already has this content, and raises UserError if it has any other, which is never replaced.

    Accepts what `torch.save` has written since torch 1.6: a state dict, possibly under "state_dict" or "model". A prefix
    "module." that all names share is dropped. The older format, which is no zip, is refused. `source` has at most `cap`
    bytes, and neither its members nor its tensors more than 20 times its size + 16 MiB.
    Differs from torch.load(weights_only=True), which allocates what the pickle asks for (it allows `bytearray(2**40)`)
    before anything can be checked: here the pickle is only described, and each tensor is checked against its storage.
    """
    subject = repr(str(Path(source)))
    tensors = read_torch(source, lambda content: _state_dict(content, subject), cap=cap)
    out = Path(target)
    with locked(out.parent, file=out.name) if out.name and out.parent.is_dir() else nullcontext():
        if os.path.lexists(out):
            _check_same(out, tensors)
            return None
        write_tensors(out, tensors, {"source": Path(source).name}, kind=WEIGHTS)
    return sorted(tensors)


def _check_same(target: Path, tensors: dict[str, Tensor]) -> None:
    """Raises UserError if the file does not hold exactly these tensors."""
    table = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    try:
        stored = read_tensors(target, kind=WEIGHTS, expect=table)[0]
    except UserError:
        stored = {}
    if stored.keys() != tensors.keys() or any(
        not torch.equal(stored[name], tensor) for name, tensor in tensors.items()
    ):
        raise UserError(
            f"{target} already exists and holds other weights or another file, which would be lost: name another file, or "
            "remove it first"
        )


def read_torch(
    source: str | os.PathLike[str], pick: Callable[[Any], dict[str, Described]], *, cap: int = 16 << 30
) -> dict[str, Tensor]:
    """The tensors that `pick` selects, by name, from the described content of a torch file (dicts, lists, numbers, text,
    tensors).

    The limits are those of `convert_weights`. Only the selected tensors are checked and read.
    """
    subject = repr(str(Path(source)))
    with open_regular(source) as (file, size):
        if size > cap:
            raise UserError(f"{subject} has {size:,} bytes; expected at most {cap:,}; raise the cap if you trust it")
        try:
            members, root = _members(file, size, subject)
            order = _read(members, f"{root}byteorder", 16, default=b"little")
            content = describe(_read(members, f"{root}data.pkl", _PICKLE_CAP))
            if order != b"little":
                raise ValueError(f"its byte order is {order!r}")
            return _tensors(members, root, pick(content), 20 * size + (16 << 20), subject)
        except _BAD_ZIP as error:
            raise UserError(f"{subject} is not a readable torch file: {error}; get it or save it again") from None


def _members(file: FileIO, size: int, subject: str) -> tuple[zipfile.ZipFile, str]:
    """The zip, with the sizes of its directory and members checked, and the folder in it that holds data.pkl."""
    start = file.read(9)
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
        raise UserError(f"{subject} is safetensors already, expected what torch.save writes; use it as it is")
    if start[:2] != b"PK":
        raise UserError(
            f"{subject} is no zip: it is no torch file, or one in the format before torch 1.6; expected a zip; load it with "
            "torch.load(FILE, weights_only=True) if you trust it, and torch.save it again"
        )
    if _directory_size(file, size) > _DIRECTORY_CAP:
        raise ValueError(f"its directory is longer than {_DIRECTORY_CAP:,} bytes")
    members = zipfile.ZipFile(file)  # pyright: ignore[reportArgumentType]
    total, limit = sum(member.file_size for member in members.infolist()), 20 * size + (16 << 20)
    if total > limit:
        raise UserError(f"{subject} of {size:,} bytes unpacks to {total:,}; expected at most {limit:,}; it is hostile")
    names = members.namelist()
    if len(set(names)) != len(names):
        raise ValueError("a member occurs twice")
    roots = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1:
        raise ValueError(f"it has {len(roots)} members */data.pkl, not 1")
    return members, roots[0]


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


def _read(members: zipfile.ZipFile, name: str, cap: int, default: bytes | None = None) -> bytes:
    """The content of the member `name`, of at most `cap` bytes. The total of all members was checked before."""
    try:
        member = members.getinfo(name)
    except KeyError:
        if default is not None:
            return default
        raise ValueError(f"member {name[:80]!r} is missing") from None
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError(f"member {name[:80]!r} is compressed in a way that torch does not use, or encrypted")
    if member.file_size > cap:
        raise ValueError(f"member {name[:80]!r} has {member.file_size:,} bytes; expected at most {cap:,}")
    return members.read(member)


def _has_weights(content: Any) -> bool:
    """Whether `content` is a dict of tensors or contains one, as `{"module": {...}, "updates": 3}` does."""
    tables = [content, *content.values()] if isinstance(content, dict) else []
    return any(
        isinstance(table, dict) and table and all(isinstance(value, Described) for value in table.values())
        for table in tables
    )


def _state_dict(content: Any, subject: str) -> dict[str, Described]:
    """The described tensors by name, without the enclosing dict and the prefix 'module.'."""
    for nest in _NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            other_networks = [name for name, value in content.items() if name != nest and _has_weights(value)]
            if other_networks:
                names = ", ".join(map(_quoted, other_networks[:5]))
                warnings.warn(
                    Notice(f"{subject} holds more than one network: the weights under {nest!r} are used, not {names}"),
                    stacklevel=4,
                )
            content = content[nest]
            break
    if not isinstance(content, dict):
        got = content.name if isinstance(content, Opaque) else type(content).__name__
        raise UserError(
            f"{subject} holds {got[:80]!r}; expected a state dict; torch.save(model.state_dict(), FILE) where it runs"
        )
    for name, value in content.items():
        if not isinstance(value, Described):
            got = value.name if isinstance(value, Opaque) else type(value).__name__
            raise UserError(
                f"{_quoted(name)} in {subject} is {got[:80]!r}; expected a tensor; save the state dict alone"
            )
        if reason := why_not_weight_name(name):
            raise UserError(f"tensor name {_quoted(name)} in {subject} cannot be used: {reason}; rename it")
    if content and all(name.startswith("module.") for name in content):
        content = {name[len("module.") :]: value for name, value in content.items()}
    return content


def _tensors(
    members: zipfile.ZipFile, root: str, described: dict[str, Described], limit: int, subject: str
) -> dict[str, Tensor]:
    """The tensors, of at most `limit` bytes together. All are checked against their storages before any is read."""
    checked = {
        name: _check(members, root, tensor, f"tensor {name!r} in {subject}") for name, tensor in described.items()
    }
    total = sum(
        math.prod(tensor.shape) * dtype.itemsize for tensor, (dtype, _) in zip(described.values(), checked.values())
    )
    if total > limit:
        raise UserError(f"the tensors of {subject} share storages and take {total:,} bytes; expected at most {limit:,}")
    storages: dict[str, bytearray] = {}
    tensors = {}
    for name, (dtype, key) in checked.items():
        if key not in storages:
            storages[key] = bytearray(_read(members, key, limit))
        tensors[name] = _tensor(storages[key], dtype, described[name])
    return tensors


def _check(members: zipfile.ZipFile, root: str, tensor: Described, subject: str) -> tuple[torch.dtype, str]:
    """A tensor's dtype and the zip member of its storage, which is checked to be large enough."""
    dtype = _STORAGES.get(tensor.storage.removeprefix("torch ").removesuffix("Storage"))
    if dtype is None:
        raise UserError(
            f"{subject} is in {tensor.storage[:80]!r}; expected one of {', '.join(_STORAGES)}; cast it first"
        )
    key = f"{root}data/{tensor.key}"
    if key not in members.NameToInfo:
        raise ValueError(f"the storage of {subject} is missing")
    shape, strides = tensor.shape, tensor.strides
    if not (_counts(shape) and _counts(strides) and _counts((tensor.offset,)) and len(shape) == len(strides)):
        raise UserError(f"{subject} has an impossible shape, stride or offset; it is hostile or damaged")
    count, stored = math.prod(shape), members.getinfo(key).file_size // dtype.itemsize
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides)) if count else 0
    if math.prod(size or 1 for size in shape) > 1 << 48 or count > stored or (count and last >= stored):
        raise UserError(
            f"{subject} declares shape {str(shape)[:80]}, but its storage holds {stored:,} numbers; it is hostile"
        )
    return dtype, key


def _tensor(storage: bytearray, dtype: torch.dtype, tensor: Described) -> Tensor:
    if not math.prod(tensor.shape):
        return torch.empty(tensor.shape, dtype=dtype)
    values = torch.frombuffer(storage, dtype=dtype, count=len(storage) // dtype.itemsize)
    return values.as_strided(tensor.shape, tensor.strides, tensor.offset)


def _counts(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= 16
        and all(type(item) is int and 0 <= item < 1 << 48 for item in value)
    )


def _quoted(name: object) -> str:
    return repr(name[:80]) if isinstance(name, str) else f"a key of type {type(name).__name__}"
