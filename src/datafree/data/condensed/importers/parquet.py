"""Condensed sets in parquet files, as on the Hugging Face hub: a column of encoded images and one of labels. Needs
pyarrow.
"""

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
    """Reads all rows of all files: an image as bytes or {bytes, path}, and a class number or soft label.

    Raises UserError for missing columns, other values, damaged files, and without pyarrow.
    """
    images: list[bytes] = []
    labels: list[Any] = []
    for path in paths:
        _read_one(path, images, labels)
    if not images:
        raise UserError(f"no rows in {str(paths[0])!r}; expected images and labels; get it again")
    names = [f"row {row} of {paths[0].name}" for row in range(len(images))]
    try:
        rows = torch.tensor(labels)
    except (TypeError, ValueError):
        raise UserError(f"labels in {str(paths[0])!r} are not numbers, or differ in length; convert them") from None
    return Raw(as_bytes(images, names, spec, options), rows, "parquet", tuple(paths), pixels="0-255")


def _read_one(path: Path, images: list[bytes], labels: list[Any]) -> None:
    """Appends the rows of one file in small batches. Raises UserError if it unpacks to implausibly many bytes."""
    if not path.is_file():  # an entry of a folder
        raise UserError(f"{str(path)!r} is a folder, a device or a pipe, expected a parquet file; remove it")
    module, remaining = _pyarrow(), 20 * path.stat().st_size + (16 << 20)
    try:
        with module.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            image, label = _one_of(IMAGES, columns, path), _one_of(LABELS, columns, path)
            for batch in file.iter_batches(ROWS, columns=[image, label]):
                for value in batch.column(image).to_pylist():
                    images.append(_encoded(value, path))
                    remaining -= len(images[-1])
                labels += batch.column(label).to_pylist()
                if remaining < 0:
                    raise UserError(f"{str(path)!r} unpacks to more than 20 times its size; do not use it")
    except (OSError, ValueError, TypeError, NotImplementedError) as error:  # base classes of pyarrow's errors
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise UserError(f"{str(path)!r} is not a readable parquet file: {reason}; get it again") from None


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("parquet needs the package pyarrow, which is not installed; do: pip install pyarrow") from None
    return pyarrow.parquet


def _one_of(names: tuple[str, ...], columns: list[str], path: Path) -> str:
    for name in names:
        if name in columns:
            return name
    listed = ", ".join(columns[:8])
    raise UserError(
        f"no column {names[0]!r} in {str(path)!r}, which has {listed}; expected {' or '.join(names)}; rename it"
    )


def _encoded(value: Any, path: Path) -> bytes:
    value = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(value, bytes):
        raise UserError(
            f"an image in {str(path)!r} is {type(value).__name__}; expected encoded bytes; embed the images"
        )
    return value
