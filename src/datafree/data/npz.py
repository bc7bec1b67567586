"""An .npz file of arrays: images and labels, or x_train, y_train, x_test and y_test, and optionally classes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .._core.errors import UserError, unknown
from ..models.input_spec import OVERSHOOT
from .arrays import array, check_room, keys_of
from .dataset import Dataset, check_labels, check_split, in_memory
from .stratified import ALL, split_note, split_rows

__all__ = ["array", "keys_of", "npz"]

MOST_CLASSES = 1 << 16  # without `classes`: a label of a billion is a mistake, not a class
LAYOUTS = ("NHWC", "NCHW")
RESIZED = "if a resize made it overshoot"
DARKEST = 64
"""Images none of which reaches this level, of 255, are in another scale: 0 and 1, 0 to 16, or divided by 255 twice."""


def npz(name: str, split: str, _folder: Path | None, *, layout: str | None = None, labelled: bool = True) -> Dataset:
    """uint8 0 to 255 or float 0 to 1 (rounded to uint8), (N, H, W), (N, H, W, C) or (N, C, H, W); labels (N,).

    `layout` says which of the last two, for shapes that fit both. Without x_train a fixed fifth is "test". Refused are
    images in another scale, and labels of which none is 0 in a file without `classes`. Where labels do not count (not
    `labelled`) a file without labels, or with others, is read whole, as one class.
    """
    check_split(name, split, ("train", "test", ALL))
    if layout not in (None, *LAYOUTS):
        raise unknown("layout", layout, LAYOUTS, where=f"data set {name!r}")
    path = Path(name).expanduser()
    keys = keys_of(path)
    own_split = "x_train" in keys
    if "images" in keys and (beside := [key for key in ("x_train", "x_test") if key in keys]):
        raise UserError(
            f"{name!r} holds both 'images' and {beside[0]!r}, wanted images and labels, or x_train, y_train, x_test and "
            "y_test; save those to use in a file of their own"
        )
    pairs = ("x_train", "y_train"), ("x_test", "y_test")
    if split == ALL and own_split:
        raise unknown("split", split, ("train", "test"), where=f"data set {name!r}")
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
    notes = notes if own_split else (*notes, split_note(name, "x_train and x_test", labels))
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
            shifted = " and ".join(f"{key}={key} - {used[0]}" for key in every)
            raise UserError(
                f"labels in {str(path)!r} go from {used[0]} to {highest} and none is 0; wanted 0 to {highest - used[0]}; "
                f"save {shifted}; only to measure a network that has {highest + 1} classes, save an array `classes` of "
                "their names instead"
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
        wanted = "wanted NHW, NHWC or NCHW with 1 or 3 channels"
        raise UserError(f"{where} has the shape {shape}; {wanted}; {_reshaped(shape, layout)}")
    if len(fits) > 1:
        raise UserError(
            f"{where} has the shape {shape}, NHWC as well as NCHW; wanted one of them; from Python, name the layout; "
            "else resize the images"
        )
    return images.transpose(0, 3, 1, 2) if fits[0] == "NHWC" else images


def _reshaped(shape: tuple[int, ...], layout: str | None) -> str:
    """What to do about a shape that is not one of images."""
    if 0 in shape[1:]:
        return "save images with pixels: an axis has the length 0"
    if len(shape) < 2:
        return "save the pixels of the images, not one number for each"
    if len(shape) == 2:
        side, deep = math.isqrt(shape[1]), math.isqrt(shape[1] // 3)
        if side * side == shape[1]:
            return f"reshape its rows to images, with .reshape(-1, {side}, {side}) if they are square"
        if 3 * deep * deep == shape[1]:
            return f"reshape its rows to images, with .reshape(-1, 3, {deep}, {deep}) if they are channel by channel"
        return "reshape its rows to images, with .reshape(-1, height, width)"
    if len(shape) > 4:
        return (
            "save one picture for each image: take one frame, or drop the axes of length 1, with .reshape or an index"
        )
    second, last = shape[1], shape[-1]
    if layout is not None and {second, last} & {1, 3}:
        return f"it is not {layout}: leave the layout out"
    if shape[2] in (1, 3) or (shape[0] in (1, 3) and last > second):
        return "move its images to the first axis, with .transpose(3, 0, 1, 2) if they are last"
    channels, index = (second, ":, :{}") if second < last else (last, "..., :{}")
    if channels == 4 and second != last:
        return f"drop the fourth channel, of transparency, with [{index.format(3)}]"
    if channels == 2 and second != last:
        return f"take one of its two channels, with [{index.format(1)}]"
    return "take 1 or 3 of its channels"


def _rescaled(images: np.ndarray) -> str:
    """What to do about numbers that are neither uint8 nor floats from 0 to 1."""
    if images.dtype.kind == "b":
        return "save it as .astype(np.uint8) * 255"
    if images.dtype.kind not in "iuf" or not images.size:
        return "save its levels as numbers of that kind"
    low, high = float(images.min()), float(images.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return "leave out the images with NaN or infinity, or put a number in its place"
    return _rescaled_floats(low, high) if images.dtype.kind == "f" else _rescaled_integers(low, high)


def _rescaled_integers(low: float, high: float) -> str:
    largest = f"its largest possible value, {'65535' if high > 4095 else '4095 or 65535'} for instance"
    if low >= 0 and high <= 255:
        return "save it as .astype(np.uint8)"
    if low >= -OVERSHOOT * 255 and high <= (1 + OVERSHOOT) * 255:
        clipped = f"save it as .clip(0, 255).astype(np.uint8), {RESIZED}"
        return clipped if low < 0 else f"{clipped}; else divide it by {largest}"
    if low >= 0:
        return f"divide it by {largest}"
    return "add and scale, so that its possible values go from 0 to 255"


def _rescaled_floats(low: float, high: float) -> str:
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return f"save it as .clip(0, 1), {RESIZED}"
    if low >= 0 and DARKEST <= high <= 255:
        return "divide it by 255"
    if low >= -OVERSHOOT * 255 and DARKEST <= high <= (1 + OVERSHOOT) * 255:
        return f"save (it / 255).clip(0, 1), if it goes from 0 to 255 and {RESIZED.removeprefix('if ')}"
    if low >= -0.01 * high:  # no normalisation leaves black so near to 0
        clipped = "" if low >= 0 else " and clip it, with .clip(0, 1)"
        return f"divide it by its largest possible value{', 4095 or 65535 for instance' if high > 255 else ''}{clipped}"
    if low >= -0.5 and high <= 0.5:
        return "add 0.5, if it goes from -0.5 to 0.5"
    if low >= -1 and high <= 1:
        return "save (it + 1) / 2, if it goes from -1 to 1"
    if low >= -1.1 and high <= 1.1:
        return f"save ((it + 1) / 2).clip(0, 1), if it goes from -1 to 1 and {RESIZED.removeprefix('if ')}"
    return "undo its normalisation: multiply it by the deviation and add the mean that it was normalised with"


def _uint8(images: np.ndarray, key: str, name: str) -> np.ndarray:
    wanted = "wanted uint8 0 to 255 or float 0 to 1"
    if images.dtype == np.uint8:
        converted = np.ascontiguousarray(images)
    elif images.dtype.kind != "f":
        raise UserError(f"{key!r} in {name!r} is {images.dtype}; {wanted}; {_rescaled(images)}")
    else:
        converted = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), 1024):  # in parts: the whole would need twice its memory
            part = images[start : start + 1024]
            low, high = part.min(), part.max()
            if not (low >= 0 and high <= 1):  # NaN is neither
                todo = _rescaled(images)
                raise UserError(f"{key!r} in {name!r} has values from {low} to {high}; {wanted}; {todo}")
            converted[start : start + 1024] = np.rint(part.astype(np.float32) * 255)
    if len(converted) and converted.max() < DARKEST:
        got = f"values up to {images.max():.4g} only"
        top = "255 / its largest possible value" if images.dtype == np.uint8 else "1 / its largest possible value"
        raise UserError(
            f"{key!r} in {name!r} has {got}, which is nearly black; {wanted}, and some image that reaches a quarter of it; "
            f"multiply it by {top}"
        )
    return converted
