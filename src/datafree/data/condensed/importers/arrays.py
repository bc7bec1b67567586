"""`.npz` files of condensed sets, images last in channels as a rule: KIP, FRePo."""

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
    """Arrays by any of the names that are in use; nothing in them is unpickled."""
    held = keys_of(path)
    _check_size(path)
    images, labels = array(path, _one_of(IMAGES, held, path)), array(path, _one_of(LABELS, held, path))
    for name, own in (("images", images), ("labels", labels)):
        if own.dtype.kind not in "fiu":
            raise UserError(f"{name} in {str(path)!r} are {own.dtype}; wanted numbers; convert them")
    images = images[..., None] if images.ndim == 3 else images
    channels_last = _channels_last(images.shape, spec, options, path)
    ordered = images.transpose(0, 3, 1, 2) if channels_last else images
    return Raw(_tensor(ordered), _tensor(labels), "npz", (path,))


def _one_of(names: tuple[str, ...], held: list[str], path: Path) -> str:
    for name in names:
        if name in held:
            return name
    shown = ", ".join(repr(name) for name in held[:8]) or "nothing"
    raise UserError(
        f"no array {names[0]!r} in {str(path)!r}, which holds {shown}; wanted {' or '.join(names)}; rename it"
    )


def _check_size(path: Path) -> None:
    """As for torch files: what unpacks to 20 times its size and 16 MiB is a bomb."""
    size, most = path.stat().st_size, 20 * path.stat().st_size + (16 << 20)
    with zipfile.ZipFile(path) as archive:
        total = sum(member.file_size for member in archive.infolist())
    if total > most:
        raise UserError(f"{str(path)!r} of {size:,} bytes unpacks to {total:,}; wanted at most {most:,}; it is hostile")


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
            f"images in {str(path)!r} have the shape {shape}; wanted NHWC or NCHW with {channels} channels; transpose them"
        )
    if len(fits) > 1:
        raise UserError(
            f"images in {str(path)!r} have the shape {shape}, NHWC as well as NCHW; give --layout NHWC or NCHW"
        )
    return fits == ["NHWC"]


def _tensor(own: np.ndarray) -> torch.Tensor:
    kind = np.float64 if own.dtype.kind == "f" and own.dtype.itemsize > 4 else np.float32
    return torch.from_numpy(np.ascontiguousarray(own, dtype=kind if own.dtype.kind == "f" else np.int64))
