"""Condensed sets in `.npz` files, usually with channels last: KIP, FRePo."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from ...._core.errors import UserError, unknown
from ....models.input_spec import InputSpec
from ...arrays import array, keys_of
from ...npz import LAYOUTS
from .raw import Options, Raw

__all__ = ["read"]

IMAGES = ("images", "image", "x", "X", "x_train", "data")
LABELS = ("labels", "label", "y", "Y", "y_train", "targets")


def read(path: Path, spec: InputSpec, options: Options) -> Raw:
    """Reads images and labels under any of their usual names. Nothing is unpickled.

    Raises UserError for missing or non-numeric arrays, and for shapes that do not fit.
    """
    keys = keys_of(path)
    _check_size(path)
    images, labels = array(path, _one_of(IMAGES, keys, path)), array(path, _one_of(LABELS, keys, path))
    for name, values in (("images", images), ("labels", labels)):
        if values.dtype.kind not in "fiu":
            raise UserError(f"{name} in {str(path)!r} are {values.dtype}; expected numbers; convert them")
    images = images[..., None] if images.ndim == 3 else images
    channels_last = _channels_last(images.shape, spec, options, path)
    ordered = images.transpose(0, 3, 1, 2) if channels_last else images
    return Raw(_tensor(ordered), _tensor(labels), "npz", (path,))


def _one_of(names: tuple[str, ...], keys: list[str], path: Path) -> str:
    for name in names:
        if name in keys:
            return name
    listed = ", ".join(repr(name) for name in keys[:8]) or "nothing"
    raise UserError(
        f"no array {names[0]!r} in {str(path)!r}, which holds {listed}; expected {' or '.join(names)}; rename it"
    )


def _check_size(path: Path) -> None:
    """Raises UserError for a file that unpacks to more than 20 times its size plus 16 MiB, as for torch files."""
    size, limit = path.stat().st_size, 20 * path.stat().st_size + (16 << 20)
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > limit:
        raise UserError(
            f"{str(path)!r} of {size:,} bytes unpacks to {total:,}; expected at most {limit:,}; do not use it"
        )


def _channels_last(shape: tuple[int, ...], spec: InputSpec, options: Options, path: Path) -> bool:
    if options.layout not in (None, *LAYOUTS):
        raise unknown("layout", str(options.layout), LAYOUTS)
    channels = spec.shape[0]
    fits = [
        name
        for name, axis in zip(LAYOUTS, (-1, 1))
        if len(shape) == 4 and shape[axis] == channels and options.layout in (None, name)
    ]
    if not fits:
        raise UserError(
            f"images in {str(path)!r} have the shape {shape}; expected NHWC or NCHW with {channels} channels; "
            "transpose them"
        )
    if len(fits) > 1:
        raise UserError(
            f"images in {str(path)!r} have the shape {shape}, which fits NHWC and NCHW; give `layout`, one of them"
        )
    return fits == ["NHWC"]


def _tensor(values: np.ndarray) -> torch.Tensor:
    kind = np.float64 if values.dtype.kind == "f" and values.dtype.itemsize > 4 else np.float32
    return torch.from_numpy(np.ascontiguousarray(values, dtype=kind if values.dtype.kind == "f" else np.int64))
