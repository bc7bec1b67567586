"""Reads an .npz file with images and labels, or x_train, y_train, x_test and y_test, and optionally classes."""

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

MOST_CLASSES = 1 << 16  # without `classes`: a label of a billion is a mistake
LAYOUTS = ("NHWC", "NCHW")
RESIZED = "if a resize made it overshoot"
DARKEST = 64
"""Images whose maximum is below this level of 255 have another scale: 0 and 1, 0 to 16, or divided by 255 twice."""


def npz(name: str, split: str, _folder: Path | None, *, layout: str | None = None, labelled: bool = True) -> Dataset:
    """Images uint8 0 to 255 or float 0 to 1 (rounded to uint8), (N, H, W), (N, H, W, C) or (N, C, H, W); labels (N,).

    `layout` selects between the last two for shapes that fit both. Without x_train, a fixed fifth is "test". With
    `labelled` False, a file without valid labels is read as one class. Raises UserError for images in another scale,
    for labels that do not start at 0 in a file without `classes`, and for arrays that do not fit.
    """
    check_split(name, split, ("train", "test", ALL))
    if layout not in (None, *LAYOUTS):
        raise unknown("layout", layout, LAYOUTS, where=f"data set {name!r}")
    path = Path(name).expanduser()
    keys = keys_of(path)
    own_split = "x_train" in keys
    if "images" in keys and (splits_present := [key for key in ("x_train", "x_test") if key in keys]):
        raise UserError(
            f"{name!r} holds both 'images' and {splits_present[0]!r}, expected images and labels, or x_train, y_train, "
            "x_test and y_test; save the arrays to use in a separate file"
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
        all_labels = {key: _labels(path, key) for _, key in pairs} if own_split else {label_key: labels}
        classes, notes = _classes(path, all_labels)
        if len(images) != len(labels):
            raise UserError(
                f"{len(labels)} labels for {len(images)} images in {name!r}; expected one per image; correct the file"
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
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels  # Keras's CIFAR
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        got, advice = f"{labels.dtype} {labels.shape}", "convert it"
        if labels.ndim == 2:
            advice = "take .argmax(1) of one-hot rows"
        elif labels.dtype.kind == "f":
            advice = "convert it with .astype(int)"
        raise UserError(f"{key!r} in {str(path)!r} is {got}; expected integers (N,), class numbers; {advice}")
    check_labels(labels, MOST_CLASSES, f"{key!r} of {str(path)!r}")
    return labels.astype(np.int64)


def _classes(path: Path, all_labels: dict[str, np.ndarray]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Class names from the array `classes`, or else "0" to the highest label of all splits; and notes."""
    labels_present = np.unique(np.concatenate(list(all_labels.values())))
    if "classes" not in keys_of(path):
        highest = int(labels_present[-1]) if len(labels_present) else 0
        if len(labels_present) > 1 and labels_present[0] > 0:
            shifted = " and ".join(f"{key}={key} - {labels_present[0]}" for key in all_labels)
            raise UserError(
                f"labels in {str(path)!r} go from {labels_present[0]} to {highest} and none is 0; expected 0 to "
                f"{highest - labels_present[0]}; save {shifted}; or, to evaluate a network with {highest + 1} classes, "
                "save an array `classes` with their names"
            )
        missing = sorted(set(range(highest + 1)) - set(labels_present.tolist()))
        examples = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        note = f"{path}: no image has label {examples}, of {highest + 1} classes"
        return tuple(str(label) for label in range(highest + 1)), (note,) if missing and len(labels_present) else ()
    classes = array(path, "classes")
    if classes.ndim != 1 or classes.dtype.kind != "U":
        got = f"{classes.dtype} {classes.shape}"
        raise UserError(f"'classes' in {str(path)!r} is {got}; expected text (classes,); save np.array(names)")
    for labels in all_labels.values():
        check_labels(labels, len(classes), repr(str(path)))
    return tuple(str(label) for label in classes), ()


def _channels_first(images: np.ndarray, subject: str, layout: str | None) -> np.ndarray:
    """Images as (N, C, H, W). The channel axis is the one of length 1 or 3, or given by `layout`."""
    shape, axes = images.shape, {"NHWC": -1, "NCHW": 1}
    if len(shape) == 3 and 0 not in shape[1:]:
        return images[:, None]
    fits = [fit for fit in LAYOUTS if len(shape) == 4 and shape[axes[fit]] in (1, 3) and layout in (None, fit)]
    if not fits or 0 in shape[1:]:
        expected = "expected NHW, NHWC or NCHW with 1 or 3 channels"
        raise UserError(f"{subject} has the shape {shape}; {expected}; {_reshaped(shape, layout)}")
    if len(fits) > 1:
        raise UserError(
            f"{subject} has the shape {shape}, which fits NHWC and NCHW; expected only one; give the layout, from "
            "Python, or resize the images"
        )
    return images.transpose(0, 3, 1, 2) if fits[0] == "NHWC" else images


def _reshaped(shape: tuple[int, ...], layout: str | None) -> str:
    """Advice for a shape that does not fit images."""
    if 0 in shape[1:]:
        return "save images with pixels: an axis has length 0"
    if len(shape) < 2:
        return "save the pixels of the images, not one number per image"
    if len(shape) == 2:
        side, colour_side = math.isqrt(shape[1]), math.isqrt(shape[1] // 3)
        if side * side == shape[1]:
            return f"reshape its rows to images, with .reshape(-1, {side}, {side}) if they are square"
        if 3 * colour_side * colour_side == shape[1]:
            shape_text = f".reshape(-1, 3, {colour_side}, {colour_side})"
            return f"reshape its rows to images, with {shape_text} if they are channel by channel"
        return "reshape its rows to images, with .reshape(-1, height, width)"
    if len(shape) > 4:
        return "save one picture per image: take one frame, or drop axes of length 1, with .reshape or an index"
    second, last = shape[1], shape[-1]
    if layout is not None and {second, last} & {1, 3}:
        return f"it is not {layout}: do not give a layout"
    if shape[2] in (1, 3) or (shape[0] in (1, 3) and last > second):
        return "move its images to the first axis, with .transpose(3, 0, 1, 2) if they are last"
    channels, index = (second, ":, :{}") if second < last else (last, "..., :{}")
    if channels == 4 and second != last:
        return f"drop the fourth channel, transparency, with [{index.format(3)}]"
    if channels == 2 and second != last:
        return f"take one of its two channels, with [{index.format(1)}]"
    return "take 1 or 3 of its channels"


def _rescaled(images: np.ndarray) -> str:
    """Advice for values that are neither uint8 nor floats from 0 to 1."""
    if images.dtype.kind == "b":
        return "save it as .astype(np.uint8) * 255"
    if images.dtype.kind not in "iuf" or not images.size:
        return "save its levels as such numbers"
    low, high = float(images.min()), float(images.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        return "remove images with NaN or infinity, or replace those values"
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
    if low >= -0.01 * high:  # no normalisation leaves black this close to 0
        clipped = "" if low >= 0 else " and clip it, with .clip(0, 1)"
        return f"divide it by its largest possible value{', 4095 or 65535 for instance' if high > 255 else ''}{clipped}"
    if low >= -0.5 and high <= 0.5:
        return "add 0.5, if it goes from -0.5 to 0.5"
    if low >= -1 and high <= 1:
        return "save (it + 1) / 2, if it goes from -1 to 1"
    if low >= -1.1 and high <= 1.1:
        return f"save ((it + 1) / 2).clip(0, 1), if it goes from -1 to 1 and {RESIZED.removeprefix('if ')}"
    return "undo its normalisation: multiply it by the standard deviation and add the mean"


def _uint8(images: np.ndarray, key: str, name: str) -> np.ndarray:
    expected = "expected uint8 0 to 255 or float 0 to 1"
    if images.dtype == np.uint8:
        converted = np.ascontiguousarray(images)
    elif images.dtype.kind != "f":
        raise UserError(f"{key!r} in {name!r} is {images.dtype}; {expected}; {_rescaled(images)}")
    else:
        converted = np.empty(images.shape, np.uint8)
        for start in range(0, len(images), 1024):  # in chunks, to save memory
            chunk = images[start : start + 1024]
            low, high = chunk.min(), chunk.max()
            if not (low >= 0 and high <= 1):  # also catches NaN
                advice = _rescaled(images)
                raise UserError(f"{key!r} in {name!r} has values from {low} to {high}; {expected}; {advice}")
            converted[start : start + 1024] = np.rint(chunk.astype(np.float32) * 255)
    if len(converted) and converted.max() < DARKEST:
        got = f"values up to {images.max():.4g} only"
        factor = "255 / its largest possible value" if images.dtype == np.uint8 else "1 / its largest possible value"
        raise UserError(
            f"{key!r} in {name!r} has {got}, which is nearly black; {expected}, with a maximum of at least a quarter; "
            f"multiply it by {factor}"
        )
    return converted
