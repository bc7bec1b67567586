"""Reads torch `.pt` / `.pth` files without running code in them, and converts their weights to safetensors."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .lock import locked
from .open_file import check_pointer, open_regular
from .pickle_reader import Described
from .state_dicts import state_dict
from .tensors import WEIGHTS, read_tensors, write_tensors
from .torch_legacy import MAGIC, LegacyCheckpoint
from .torch_storages import STORAGES, storage_dtype
from .torch_zip import BAD_ZIP, ZipCheckpoint

__all__ = ["convert_weights", "is_torch", "read_torch", "read_torch_weights"]

MOST_TENSORS = 50_000
"""Maximum number of tensors. A pickle of the maximum length describes about 20,000, or names one many times."""
SHARING = 20
"""Maximum bytes of tensors, which may share storages, and of unpacked members, in sizes of the file; and 16 MiB more."""


def convert_weights(
    source: str | os.PathLike[str], target: str | os.PathLike[str], *, key: str | None = None, cap: int = 16 << 30
) -> list[str] | None:
    """Writes the state dict in `source` to `target`, kind "weights", and returns the sorted names of its tensors.

    Returns None if `target` already has this content, and raises UserError if it has any other, which is never replaced.

    Accepts what `torch.save` writes, in its zip format and in the one before torch 1.6: a state dict, possibly inside of
    other dicts; `key`, with `/` between nested keys, names the one to use (see `state_dicts`). A prefix "module." that all
    names share is dropped. `source` has at most `cap` bytes, and neither its members nor its tensors more than 20 times its
    size + 16 MiB.
    Differs from torch.load(weights_only=True), which allocates what the pickle asks for (it allows `bytearray(2**40)`)
    before anything can be checked: here the pickle is only described, and each tensor is checked against its storage.
    """
    tensors = read_torch_weights(source, key=key, cap=cap)
    out = Path(target)
    with locked(out.parent, file=out.name) if out.name and out.parent.is_dir() else nullcontext():
        if os.path.lexists(out):
            _check_same(out, tensors)
            return None
        write_tensors(out, tensors, {"source": Path(source).name}, kind=WEIGHTS)
    return sorted(tensors)


def read_torch_weights(
    source: str | os.PathLike[str], *, key: str | None = None, cap: int = 16 << 30
) -> dict[str, Tensor]:
    """The tensors of the state dict in a torch file, by name, as `convert_weights` selects them."""
    subject = repr(str(Path(source)))
    return read_torch(source, lambda content: state_dict(content, subject, key), cap=cap)


def is_torch(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins like one of `torch.save`."""
    with open_regular(path) as (file, _):
        return _is_torch(file.read(len(MAGIC)) or b"")


def _is_torch(start: bytes) -> bool:
    return start[:2] == b"PK" or start == MAGIC


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
        limit = SHARING * size + (16 << 20)
        start = file.read(len(MAGIC)) or b""
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < size:
            raise UserError(f"{subject} is safetensors already, expected what torch.save writes; use it as it is")
        check_pointer(start, subject)
        if not _is_torch(start):
            raise UserError(
                f"{subject} is no torch file, expected what torch.save writes; get it again, or save the weights again"
            )
        try:
            checkpoint = LegacyCheckpoint(file, size) if start == MAGIC else ZipCheckpoint(file, size, limit, subject)
            return _tensors(checkpoint, pick(checkpoint.content), limit, subject)
        except BAD_ZIP as error:
            raise UserError(
                f"{subject} is not a readable torch file: {str(error)[:200]}; get it or save it again"
            ) from None


def _tensors(
    checkpoint: ZipCheckpoint | LegacyCheckpoint, described: dict[str, Described], limit: int, subject: str
) -> dict[str, Tensor]:
    """The tensors, of at most `limit` bytes together. All are checked against their storages before any is read."""
    if len(described) > MOST_TENSORS:
        raise UserError(
            f"{subject} has {len(described):,} tensors, expected at most {MOST_TENSORS:,}; save the weights of one network"
        )
    dtypes = {name: _dtype(checkpoint, tensor, f"tensor {name!r} in {subject}") for name, tensor in described.items()}
    total = sum(math.prod(tensor.shape) * dtypes[name].itemsize for name, tensor in described.items())
    if total > limit:
        raise UserError(f"the tensors of {subject} share storages and take {total:,} bytes; expected at most {limit:,}")
    storages: dict[str, bytearray] = {}
    tensors = {}
    for name, tensor in described.items():
        if tensor.key not in storages:
            storages[tensor.key] = checkpoint.read_storage(tensor.key)
        tensors[name] = _tensor(storages[tensor.key], dtypes[name], tensor)
    return tensors


def _dtype(checkpoint: ZipCheckpoint | LegacyCheckpoint, tensor: Described, subject: str) -> torch.dtype:
    """A tensor's dtype, after checking that its storage is large enough."""
    dtype = storage_dtype(tensor.storage)
    if dtype is None:
        raise UserError(
            f"{subject} is in {tensor.storage[:80]!r}; expected one of {', '.join(STORAGES)}; cast it first"
        )
    size = checkpoint.storage_bytes(tensor.key)
    if size is None:
        raise ValueError(f"the storage of {subject} is missing")
    shape, strides = tensor.shape, tensor.strides
    if not (_counts(shape) and _counts(strides) and _counts((tensor.offset,)) and len(shape) == len(strides)):
        raise UserError(f"{subject} has an impossible shape, stride or offset; it is hostile or damaged")
    count, stored = math.prod(shape), size // dtype.itemsize
    last = tensor.offset + sum((side - 1) * stride for side, stride in zip(shape, strides)) if count else 0
    if math.prod(side or 1 for side in shape) > 1 << 48 or count > stored or (count and last >= stored):
        raise UserError(
            f"{subject} declares shape {str(shape)[:80]}, but its storage holds {stored:,} numbers; if torch loads "
            "the file, save the tensor with .contiguous(), else it is hostile or damaged"
        )
    return dtype


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
