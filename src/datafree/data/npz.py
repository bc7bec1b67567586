"""An .npz file of arrays: images and labels, or x_train, y_train, x_test and y_test, and optionally classes."""

from __future__ import annotations

import lzma
import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from datafree.data.dataset import Dataset, check_labels, check_split, in_memory
from datafree.data.strata import split_rows
from datafree.errors import UserError, unknown

__all__ = ["array", "keys_of", "npz"]

MOST_BYTES = 1 << 34  # of one array
MOST_CLASSES = 1 << 16  # without `classes`: a label of a billion is a mistake, not a class
LAYOUTS = ("NHWC", "NCHW")
# what zipfile and numpy raise for a damaged file; RuntimeError for an encrypted one
DAMAGE = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, MemoryError, zlib.error, lzma.LZMAError)


def npz(name: str, split: str, _folder: Path | None, *, layout: str | None = None) -> Dataset:
    """uint8 0 to 255 or float 0 to 1 (rounded to uint8), (N, H, W), (N, H, W, C) or (N, C, H, W); labels (N,).

    `layout` says which of the last two, for shapes that fit both. Without x_train a fixed fifth is "test".
    """
    check_split(name, split)
    if layout not in (None, *LAYOUTS):
        raise unknown("layout", layout, LAYOUTS, where=f"data set {name!r}")
    path = Path(name).expanduser()
    own_split = "x_train.npy" in keys_of(path)
    pairs = ("x_train", "y_train"), ("x_test", "y_test")
    image_key, label_key = pairs[split == "test"] if own_split else ("images", "labels")
    labels = _labels(path, label_key)
    every = [_labels(path, key) for _, key in pairs] if own_split else [labels]
    classes = _classes(path, every)
    images = _uint8(_channels_first(array(path, image_key), f"{image_key!r} in {name!r}", layout), image_key, name)
    if len(images) != len(labels):
        raise UserError(f"{len(labels)} labels for {len(images)} images in {name!r}; wanted as many; correct the file")
    rows = slice(None) if own_split else split_rows(labels, split)
    return in_memory(name, split, classes, labels[rows], images[rows])


def _labels(path: Path, key: str) -> np.ndarray:
    labels = array(path, key)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # as Keras keeps CIFAR's
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} {labels.shape}"
        raise UserError(f"{key!r} in {str(path)!r} is {got}; wanted integers (N,), the numbers of classes; convert it")
    check_labels(labels, MOST_CLASSES, f"{key!r} of {str(path)!r}")
    return labels.astype(np.int64)


def _classes(path: Path, every: list[np.ndarray]) -> tuple[str, ...]:
    """The array `classes`, else "0" to the highest label of all splits."""
    if "classes.npy" not in keys_of(path):
        highest = max((int(labels.max()) for labels in every if len(labels)), default=0)
        return tuple(str(label) for label in range(highest + 1))
    classes = array(path, "classes")
    if classes.ndim != 1 or classes.dtype.kind != "U":
        got = f"{classes.dtype} {classes.shape}"
        raise UserError(f"'classes' in {str(path)!r} is {got}; wanted text (classes,); save np.array(names)")
    for labels in every:
        check_labels(labels, len(classes), repr(str(path)))
    return tuple(str(label) for label in classes)


def _channels_first(images: np.ndarray, where: str, layout: str | None) -> np.ndarray:
    """(N, C, H, W), from a shape where one place alone has 1 or 3, unless `layout` says which."""
    shape, axes = images.shape, {"NHWC": -1, "NCHW": 1}
    if len(shape) == 3 and 0 not in shape[1:]:
        return images[:, None]
    fits = [fit for fit in LAYOUTS if len(shape) == 4 and shape[axes[fit]] in (1, 3) and layout in (None, fit)]
    if not fits or 0 in shape[1:]:
        raise UserError(f"{where} has the shape {shape}; wanted NHW, NHWC or NCHW with 1 or 3 channels; transpose it")
    if len(fits) > 1:
        raise UserError(f"{where} has the shape {shape}, NHWC as well as NCHW; wanted one; pass the option layout")
    return images.transpose(0, 3, 1, 2) if fits[0] == "NHWC" else images


def _uint8(images: np.ndarray, key: str, name: str) -> np.ndarray:
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    wanted = "wanted uint8 0 to 255 or float 0 to 1"
    if images.dtype.kind != "f":
        raise UserError(f"{key!r} in {name!r} is {images.dtype}; {wanted}; convert it")
    converted = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), 1024):  # in parts: the whole would need twice its memory
        part = images[start : start + 1024]
        low, high = part.min(), part.max()
        if not (low >= 0 and high <= 1):  # NaN is neither
            raise UserError(f"{key!r} in {name!r} has values from {low} to {high}; {wanted}; rescale it")
        converted[start : start + 1024] = np.rint(part.astype(np.float32) * 255)
    return converted


def keys_of(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except DAMAGE as error:
        raise _unreadable(f"{str(path)!r}", error) from error


def array(path: Path, key: str) -> np.ndarray:
    """The array under `key`. Its header is checked before its values are read, and nothing is ever unpickled."""
    keys = keys_of(path)
    if f"{key}.npy" not in keys:
        got = ", ".join(repr(other.removesuffix(".npy")) for other in keys[:8]) or "nothing"
        wanted = "wanted images and labels, or x_train, y_train, x_test and y_test"
        raise UserError(f"no array {key!r} in {str(path)!r}, which holds {got}; {wanted}; add it")
    where = f"{key!r} in {str(path)!r}"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            _check_header(stream, where, archive.getinfo(f"{key}.npy").file_size)
            stream.seek(0)
            return npy.read_array(stream, allow_pickle=False)
    except DAMAGE as error:
        raise _unreadable(where, error) from error


def _check_header(stream: IO[bytes], where: str, size: int) -> None:
    """Raises UserError for Python objects, and for a header that claims another length than the member has."""
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise UserError(f"{where} holds Python objects (a pickle), which are never loaded; wanted numbers; convert it")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or stream.tell() + expected != size or expected > MOST_BYTES:
        wanted = f"as much, and at most {MOST_BYTES}"
        raise UserError(f"{where} holds {size - stream.tell()} bytes for {expected}; wanted {wanted}; save it again")


def _unreadable(where: str, error: Exception) -> UserError:
    return UserError(f"{where} cannot be read ({error}); wanted a whole .npz file of numpy.savez; save it again")
