"""Parquet as on the Hugging Face hub: a column of encoded images, one of labels. Needs pyarrow, an optional package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ...._core.errors import UserError
from ....models.input_spec import InputSpec
from .pictures import as_bytes
from .raw import Options, Raw

__all__ = ["read"]

IMAGES = ("image", "img", "images")
LABELS = ("label", "labels", "fine_label", "soft_label")
ROWS = 64


def read(paths: list[Path], spec: InputSpec, options: Options) -> Raw:
    """All rows of all files: {bytes, path} or bytes of an image, and a class number or a soft label."""
    images: list[bytes] = []
    labels: list[Any] = []
    for path in paths:
        _read_one(path, images, labels)
    if not images:
        raise UserError(f"no rows in {str(paths[0])!r}; wanted images and labels; get it again")
    names = [f"row {row} of {paths[0].name}" for row in range(len(images))]
    try:
        rows = torch.tensor(labels)
    except (TypeError, ValueError):
        raise UserError(
            f"labels in {str(paths[0])!r} are no numbers, or not as many in each row; convert them"
        ) from None
    return Raw(as_bytes(images, names, spec, options), rows, "parquet", tuple(paths), pixels="0-255")


def _read_one(path: Path, images: list[bytes], labels: list[Any]) -> None:
    """Appends the rows of one file, a few at a time, and never more bytes than a file of its size may hold."""
    if not path.is_file():  # one of a folder's
        raise UserError(f"{str(path)!r} is a folder, a device or a pipe, wanted a parquet file; remove it")
    module, most = _pyarrow(), 20 * path.stat().st_size + (16 << 20)
    try:
        with module.ParquetFile(path) as file:
            held = file.schema_arrow.names
            image, label = _one_of(IMAGES, held, path), _one_of(LABELS, held, path)
            for batch in file.iter_batches(ROWS, columns=[image, label]):
                for value in batch.column(image).to_pylist():
                    images.append(_encoded(value, path))
                    most -= len(images[-1])
                labels += batch.column(label).to_pylist()
                if most < 0:
                    raise UserError(f"{str(path)!r} unpacks to more than 20 times its size; it is hostile")
    except (OSError, ValueError, TypeError, NotImplementedError) as error:  # pyarrow's own errors are of these
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{str(path)!r} is no readable parquet file: {reason}; get it again") from None


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("parquet needs the package pyarrow, which is not installed; do: pip install pyarrow") from None
    return pyarrow.parquet


def _one_of(names: tuple[str, ...], held: list[str], path: Path) -> str:
    for name in names:
        if name in held:
            return name
    shown = ", ".join(held[:8])
    raise UserError(
        f"no column {names[0]!r} in {str(path)!r}, which has {shown}; wanted {' or '.join(names)}; rename it"
    )


def _encoded(value: Any, path: Path) -> bytes:
    value = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(value, bytes):
        raise UserError(f"an image in {str(path)!r} is {type(value).__name__}; wanted encoded bytes; embed the images")
    return value
