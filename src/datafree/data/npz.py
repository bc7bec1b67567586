"""An .npz file of arrays: images and labels, or x_train, y_train, x_test and y_test, and optionally classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from datafree.data.arrays import array, check_room, keys_of
from datafree.data.dataset import Dataset, check_labels, check_split, in_memory
from datafree.data.strata import split_rows
from datafree.errors import UserError, unknown

__all__ = ["array", "keys_of", "npz"]

MOST_CLASSES = 1 << 16  # without `classes`: a label of a billion is a mistake, not a class
LAYOUTS = ("NHWC", "NCHW")
DARKEST = 64
"""Images none of which reaches this level, of 255, are in another scale: 0 and 1, 0 to 16, or divided by 255 twice."""


def npz(name: str, split: str, _folder: Path | None, *, layout: str | None = None, labelled: bool = True) -> Dataset:
    """uint8 0 to 255 or float 0 to 1 (rounded to uint8), (N, H, W), (N, H, W, C) or (N, C, H, W); labels (N,).

    `layout` says which of the last two, for shapes that fit both. Without x_train a fixed fifth is "test". Refused are
    images in another scale, and labels of which none is 0 in a file without `classes`. Where labels do not count (not
    `labelled`) a file without labels, or with others, is read whole, as one class.
    """
    check_split(name, split)
    if layout not in (None, *LAYOUTS):
        raise unknown("layout", layout, LAYOUTS, where=f"data set {name!r}")
    path = Path(name).expanduser()
    keys = keys_of(path)
    own_split = "x_train" in keys
    pairs = ("x_train", "y_train"), ("x_test", "y_test")
    image_key, label_key = pairs[split == "test"] if own_split else ("images", "labels")
    if own_split and not labelled and image_key not in keys:
        image_key, label_key = pairs[0]
    check_room(path, image_key)
    images = _uint8(_channels_first(array(path, image_key), f"{image_key!r} in {name!r}", layout), image_key, name)
    try:
        labels = _labels(path, label_key)
        every = {key: _labels(path, key) for _, key in pairs} if own_split else {label_key: labels}
        classes, notes = _classes(path, every)
        if len(images) != len(labels):
            raise UserError(
                f"{len(labels)} labels for {len(images)} images in {name!r}; wanted as many; correct the file"
            )
    except UserError:
        if labelled:
            raise
        return in_memory(name, split, ("images",), np.zeros(len(images), np.int64), images)
    rows = slice(None) if own_split else split_rows(labels, split)
    return in_memory(name, split, classes, labels[rows], images[rows], notes)


def _labels(path: Path, key: str) -> np.ndarray:
    labels = array(path, key)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # as Keras keeps CIFAR's
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        got, todo = f"{labels.dtype} {labels.shape}", "convert it"
        if labels.ndim == 2:
            todo = "take .argmax(1) of one-hot rows"
        elif labels.dtype.kind == "f":
            todo = "convert it with .astype(int)"
        raise UserError(f"{key!r} in {str(path)!r} is {got}; wanted integers (N,), the numbers of classes; {todo}")
    check_labels(labels, MOST_CLASSES, f"{key!r} of {str(path)!r}")
    return labels.astype(np.int64)


def _classes(path: Path, every: dict[str, np.ndarray]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The array `classes`, else "0" to the highest label of all splits; and what is to be said of them."""
    used = np.unique(np.concatenate(list(every.values())))
    if "classes" not in keys_of(path):
        highest = int(used[-1]) if len(used) else 0
        if len(used) > 1 and used[0] > 0:
            key = next(iter(every))
            raise UserError(
                f"labels in {str(path)!r} go from {used[0]} to {highest} and none is 0; wanted 0 to {highest - used[0]}; "
                f"save {key}={key} - {used[0]}, or an array `classes` with the names of all {highest + 1}"
            )
        missing = sorted(set(range(highest + 1)) - set(used.tolist()))
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        note = f"{path}: no image has label {shown}, of {highest + 1} classes"
        return tuple(str(label) for label in range(highest + 1)), (note,) if missing and len(used) else ()
    classes = array(path, "classes")
    if classes.ndim != 1 or classes.dtype.kind != "U":
        got = f"{classes.dtype} {classes.shape}"
        raise UserError(f"'classes' in {str(path)!r} is {got}; wanted text (classes,); save np.array(names)")
    for labels in every.values():
        check_labels(labels, len(classes), repr(str(path)))
    return tuple(str(label) for label in classes), ()


def _channels_first(images: np.ndarray, where: str, layout: str | None) -> np.ndarray:
    """(N, C, H, W), from a shape where one place alone has 1 or 3, unless `layout` says which."""
    shape, axes = images.shape, {"NHWC": -1, "NCHW": 1}
    if len(shape) == 3 and 0 not in shape[1:]:
        return images[:, None]
    fits = [fit for fit in LAYOUTS if len(shape) == 4 and shape[axes[fit]] in (1, 3) and layout in (None, fit)]
    if not fits or 0 in shape[1:]:
        raise UserError(f"{where} has the shape {shape}; wanted NHW, NHWC or NCHW with 1 or 3 channels; transpose it")
    if len(fits) > 1:
        raise UserError(
            f"{where} has the shape {shape}, NHWC as well as NCHW; wanted one of them; from Python, name the layout; "
            "else resize the images"
        )
    return images.transpose(0, 3, 1, 2) if fits[0] == "NHWC" else images


def _uint8(images: np.ndarray, key: str, name: str) -> np.ndarray:
    wanted = "wanted uint8 0 to 255 or float 0 to 1"
    if images.dtype == np.uint8:
        converted = np.ascontiguousarray(images)
    elif images.dtype.kind != "f":
        raise UserError(f"{key!r} in {name!r} is {images.dtype}; {wanted}; convert it")
    else:
        converted = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), 1024):  # in parts: the whole would need twice its memory
            part = images[start : start + 1024]
            low, high = part.min(), part.max()
            if not (low >= 0 and high <= 1):  # NaN is neither
                raise UserError(f"{key!r} in {name!r} has values from {low} to {high}; {wanted}; rescale it")
            converted[start : start + 1024] = np.rint(part.astype(np.float32) * 255)
    if len(converted) and converted.max() < DARKEST:
        got = f"values up to {images.max():.4g} only"
        top = "255 / its largest possible value" if images.dtype == np.uint8 else "1 / its largest possible value"
        raise UserError(
            f"{key!r} in {name!r} has {got}, which is nearly black; {wanted}, and some image that reaches a quarter of it; "
            f"multiply it by {top}"
        )
    return converted
