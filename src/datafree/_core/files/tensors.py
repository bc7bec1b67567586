"""Named tensors with a header in one checksummed safetensors file. Plain safetensors files are read with the same checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from io import FileIO
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .atomic import atomic
from .checksum import NAMES, Seal, damaged, is_ours, open_seal
from .header import (
    HEADER_CAP_MODEL,
    HEADER_CAP_RECORD,
    Expected,
    Table,
    check_expected,
    read_layout,
    why_not_record_name,
    why_not_weight_name,
)
from .open_file import CHUNK, open_regular, read_into
from .paths import safe_name
from .strict_json import check_size

__all__ = ["WEIGHTS", "cap_of", "check_room", "read_header", "read_tensors", "read_weights", "write_tensors"]

WEIGHTS = "weights"  # this kind and kinds "...-state" may have any tensor name of a state dict


def write_tensors(
    path: str | os.PathLike[str], tensors: dict[str, Tensor], header: dict[str, Any], *, kind: str
) -> str:
    """Writes one file atomically and returns the sha256 of its bytes. The same content gives the same bytes.

    Raises UserError for a tensor with NaN or infinity, or with a dtype that the format does not have.
    """
    ready = {name: _ready(name, tensors[name], kind) for name in tensors}
    table: Table = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in ready.items()}
    seal = Seal(safe_name(kind), header, table)
    views = [_view(ready[name]) for name in seal.table]
    for name, view in zip(seal.table, views):
        for piece in _pieces(view):
            _check_values(piece, seal.table[name][0], f"tensor {name!r}")
            seal.digest.update(piece)
    start = _start(path, seal, seal.digest.hexdigest())
    digest = hashlib.sha256(start)
    with atomic(path, size=len(start) + sum(map(len, views))) as file:
        file.write(start)
        for view in views:
            for piece in _pieces(view):
                file.write(piece)
                digest.update(piece)
    return digest.hexdigest()


def check_room(path: str | os.PathLike[str], table: Table, header: dict[str, Any], *, kind: str) -> None:
    """Raises UserError if tensors with these names, dtypes and shapes could not be written to `path` or read back.

    Called before the work that produces them.
    """
    for name, (dtype, _) in table.items():
        if reason := _why_not(kind)(name):
            raise UserError(f"tensor name {name[:80]!r} cannot be used: {reason}; rename it")
        if dtype not in NAMES:
            raise UserError(
                f"tensor {name!r} is {dtype}; expected one of {', '.join(str(d)[6:] for d in NAMES)}; cast it"
            )
    _start(path, Seal(safe_name(kind), header, table), "0" * 64)


def _start(path: str | os.PathLike[str], seal: Seal, sha256: str) -> bytes:
    """The file up to its data. Raises UserError if a reader of its kind would refuse it."""
    start, cap = seal.start(sha256), cap_of(seal.kind)
    subject = f"the header of {str(path)!r}"
    if len(start) - 8 > cap:
        raise UserError(
            f"{subject} would have {len(start) - 8:,} bytes; expected at most {cap:,}; shorten names or have fewer"
        )
    check_size(start[8:], f"{subject}, of {len(seal.table):,} tensors,")
    return start


def cap_of(kind: str | None) -> int:
    """The largest header, in bytes, of a file of that kind."""
    return HEADER_CAP_MODEL if kind is None or _loose(kind) else HEADER_CAP_RECORD


def read_tensors(
    path: str | os.PathLike[str],
    *,
    kind: str,
    cap: int | None = None,
    expect: Expected | None = None,
    finite: bool = True,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, sorted by name, and the header that was passed to `write_tensors`.

    Checked in this order, each before it is relied on: file type, size, header, names, `expect`, data, sha256, finite
    values.
    """
    subject = repr(str(path))
    with open_regular(path) as (file, size):
        layout = read_layout(
            file, size, subject=subject, cap=cap_of(kind) if cap is None else cap, why_not=_why_not(kind)
        )
        seal, digest = open_seal(layout, kind, subject)
        if expect is not None:
            check_expected(layout.table, expect, subject)
        tensors = _read_data(file, layout.table, subject, seal=seal)
        if seal.digest.hexdigest() != digest:
            raise damaged(subject, "its sha256 does not fit")
    _check_all(tensors, subject, finite)
    return tensors, seal.header


def read_header(
    path: str | os.PathLike[str], *, kind: str | None, cap: int | None = None
) -> tuple[Table, dict[str, Any]]:
    """The table of tensors, sorted by name, and the header. No data is read, so the sha256 is not checked.

    A kind of None accepts every kind.
    """
    subject = repr(str(path))
    with open_regular(path) as (file, size):
        layout = read_layout(
            file, size, subject=subject, cap=cap_of(kind) if cap is None else cap, why_not=_why_not(kind)
        )
        seal, _ = open_seal(layout, kind, subject)
    return dict(sorted(seal.table.items())), seal.header


def read_weights(
    path: str | os.PathLike[str], *, cap: int = HEADER_CAP_MODEL, expect: Expected | None = None
) -> dict[str, Tensor]:
    """The tensors, sorted by name, of any safetensors file. The sha256 is checked for our own files, of kind "weights"."""
    subject = repr(str(path))
    with open_regular(path) as (file, size):
        layout = read_layout(file, size, subject=subject, cap=cap, why_not=why_not_weight_name)
        seal, digest = open_seal(layout, WEIGHTS, subject) if is_ours(layout) else (None, None)
        if expect is not None:
            check_expected(layout.table, expect, subject)
        tensors = _read_data(file, layout.table, subject, seal=seal)
        if seal is not None and seal.digest.hexdigest() != digest:
            raise damaged(subject, "its sha256 does not fit")
    _check_all(tensors, subject, finite=True)
    return tensors


def _read_data(file: FileIO, table: Table, subject: str, *, seal: Seal | None) -> dict[str, Tensor]:
    tensors = {}
    for name, (dtype, shape) in table.items():
        data = _allocate(torch.Size(shape).numel() * dtype.itemsize)
        for piece in _pieces(_view(data)):
            if not read_into(file, piece):
                raise damaged(subject, f"it ends inside tensor {name!r}")
            if seal is not None:
                seal.digest.update(piece)
        tensors[name] = data.view(dtype).reshape(shape)
    return dict(sorted(tensors.items()))


def _allocate(size: int) -> Tensor:
    try:
        return torch.empty(size, dtype=torch.uint8)
    except RuntimeError:  # how torch says that memory is short
        raise MemoryError from None


def _check_all(tensors: dict[str, Tensor], subject: str, finite: bool) -> None:
    for name, tensor in tensors.items():
        if finite or tensor.dtype == torch.bool:
            for piece in _pieces(_view(tensor)):
                _check_values(piece, tensor.dtype, f"tensor {name!r} in {subject}")


def _check_values(piece: memoryview, dtype: torch.dtype, subject: str) -> None:
    """Refuse NaN and infinity, and truth values other than 0 and 1, in some bytes of a tensor."""
    if dtype == torch.bool:
        if torch.frombuffer(piece, dtype=torch.uint8).max() > 1:
            raise UserError(f"{subject} has truth values that are neither 0 nor 1; it is damaged; write it again")
    elif dtype.is_floating_point and not torch.isfinite(torch.frombuffer(piece, dtype=dtype)).all():
        raise UserError(
            f"{subject} has NaN or infinity; expected finite numbers; find where they arise and write it again"
        )


def _ready(name: str, tensor: Tensor, kind: str) -> Tensor:
    if reason := _why_not(kind)(name):
        raise UserError(f"tensor name {str(name)[:80]!r} cannot be used: {reason}; rename it")
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name!r} is {type(tensor).__name__}; expected a tensor; put other values in the header")
    if tensor.dtype not in NAMES or tensor.layout != torch.strided or tensor.device.type == "meta":
        got = f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
        raise UserError(
            f"tensor {name!r} is {got}; expected a dense one of {', '.join(str(dtype)[6:] for dtype in NAMES)}; cast it"
        )
    return tensor.detach().cpu().resolve_neg().contiguous()


def _view(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())  # pyright: ignore[reportArgumentType]


def _pieces(view: memoryview) -> Iterable[memoryview]:
    return (view[start : start + CHUNK] for start in range(0, len(view), CHUNK))


def _loose(kind: str | None) -> bool:
    """Whether tensors of this kind may have any name of a state dict."""
    return kind is None or kind == WEIGHTS or kind.endswith("-state")


def _why_not(kind: str | None):
    return why_not_weight_name if _loose(kind) else why_not_record_name
