"""Interprets a file's numbers: pixel convention, patches, labels. The user chooses the interpretation; see `trial`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ...._core.errors import UserError, nearest, unknown
from ....models.class_names import are_numbers, class_positions
from ....models.input_spec import InputSpec
from ..condensed_set import one_hot
from .raw import Raw, check_room

__all__ = ["LABELS", "Pixels", "by_name", "decoded", "fitted", "labels_of"]

LABELS = ("auto", "hard", "logits")
SUMS = 1e-3
"""Tolerance of a row sum of soft labels, which are often float16."""


@dataclass(frozen=True)
class Pixels:
    """A pixel convention: stored = (pixel - mean) / std, with pixels from 0 to 1."""

    name: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, text: str) -> Pixels:
        """Parses `0-1`, `0-255` or `normalised:MEAN/STD`, with one number or comma-separated numbers per channel.

        Raises UserError for other text.
        """
        if text == "0-1":
            return cls(text)
        if text == "0-255":
            return cls(text, std=(1 / 255,))
        kind, _, numbers = text.replace("normalized", "normalised").partition(":")
        if kind != "normalised":
            raise unknown("pixel convention", text, ("0-1", "0-255", "normalised:MEAN/STD"))
        parts = numbers.split("/")
        try:
            mean, std = (tuple(float(number) for number in part.split(",")) for part in parts)
        except ValueError:
            mean, std = (), ()
        if not mean or not std or not all(0 < value < float("inf") for value in std) or not all(map(_finite, mean)):
            raise UserError(
                f"pixels: got {text[:80]!r}, expected normalised:MEAN/STD, such as normalised:0.1307/0.3081 or "
                "normalised:0.49,0.48,0.45/0.25,0.24,0.26; give the authors' normalisation"
            )
        return cls(text, mean, std)

    def undo(self, stored: Tensor, spec: InputSpec) -> Tensor:
        """Converts stored numbers (N, C, H, W) to float32 in the spec's pixel units, computed in float64."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, stored.shape[1]):
                raise UserError(
                    f"pixels: got a {name} of {len(values)} numbers, expected 1 or {stored.shape[1]}; change it"
                )
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (self.mean, self.std))
        unit = stored.double() * std + mean
        return ((spec.high - spec.low) * unit + spec.low).float()


def decoded(pixels: Tensor, labels: Tensor, patches: int, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Splits each image into `patches` x `patches` parts and enlarges them to the image's size (IDC, Kim et al. 2022).

    Sides are padded with mid-grey to a multiple of `patches`, as in IDC. Raises UserError for an invalid number.
    """
    if not 1 <= patches <= min(pixels.shape[2:]):
        raise UserError(f"patches: got {patches}, expected 1 to {min(pixels.shape[2:])}; IDC's are 2 or 3")
    if patches == 1:
        return pixels, labels
    count, channels, height, width = pixels.shape
    check_room(pixels.numel() * patches**2, f"{count} images of {patches} x {patches} patches")
    grey = (spec.low + spec.high) / 2
    pixels = pad(pixels, (0, -width % patches, 0, -height % patches), value=grey)
    rows, columns = pixels.shape[2] // patches, pixels.shape[3] // patches
    parts = pixels.view(count, channels, patches, rows, patches, columns).permute(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(-1, channels, rows, columns)
    images = interpolate(parts, (height, width), mode="bilinear", align_corners=False)
    return images, labels.repeat_interleave(patches**2, 0)


def fitted(pixels: Tensor, spec: InputSpec, resize: bool) -> Tensor:
    """The images at the network's size. Raises UserError for other channels, or for another size without `resize`."""
    shape = tuple(pixels.shape[1:])
    if shape == spec.shape:
        return pixels
    if shape[0] != spec.shape[0] or not resize:
        advice = (
            "give `resize=True`, or a network of that size" if shape[0] == spec.shape[0] else "give another network"
        )
        raise UserError(f"images: got shape {shape}, expected {spec.shape} (channels, height, width); {advice}")
    check_room(len(pixels) * spec.pixels, f"{len(pixels)} images of {spec.shape}")
    return interpolate(pixels, spec.shape[1:], mode="bilinear", antialias=True, align_corners=False)


def labels_of(raw: Raw, spec: InputSpec, reading: str) -> Tensor:
    """Label rows (N, classes) that sum to 1. `auto` accepts class numbers and distributions, nothing else."""
    labels, classes = by_name(raw, spec)[0], len(spec.classes)
    if reading not in LABELS:
        raise unknown("reading of labels", reading, LABELS)
    if len(labels) != len(raw.images):
        raise UserError(
            f"{len(labels)} labels for {len(raw.images)} images; expected one per image; give files of one set"
        )
    if not bool(labels.isfinite().all()):
        raise UserError("labels: got NaN or infinity, expected finite values; get the set again")
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim == 1:
        return _hard(labels, classes)
    if labels.ndim != 2 or labels.shape[1] != classes:
        raise UserError(
            f"labels: got shape {tuple(labels.shape)}, expected ({len(labels)},) or ({len(labels)}, {classes}): the "
            f"network has {classes} classes; give the set's own network"
        )
    return _soft(labels.double(), classes, reading)


def _soft(rows: Tensor, classes: int, reading: str) -> Tensor:
    if reading == "hard":
        return one_hot(rows.argmax(1), classes)
    if reading == "logits":
        return rows.softmax(1).float()
    sums = rows.sum(1)
    if bool((rows < 0).any()) or bool(((sums - 1).abs() > SUMS).any()):
        raise UserError(
            f"soft labels from {float(rows.min()):.4g} to {float(rows.max()):.4g} whose rows sum to "
            f"{float(sums.min()):.4g} to {float(sums.max()):.4g}, expected distributions; give "
            "`labels='logits'` (softmax, DATM's) or `labels='hard'` (argmax, for the regression targets of KIP and FRePo)"
        )
    return (rows / sums[:, None]).float()


def _hard(labels: Tensor, classes: int) -> Tensor:
    numbers = labels.long()
    if bool((numbers.to(labels.dtype) != labels).any()):
        raise UserError(
            f"labels such as {float(labels[numbers != labels][0]):.4g}, expected class numbers; get the set again"
        )
    invalid = (numbers < 0) | (numbers >= classes)
    if bool(invalid.any()):
        raise UserError(
            f"label {int(numbers[invalid][0])} of image {int(invalid.nonzero()[0])}, expected 0 to {classes - 1}: the "
            f"network has {classes} classes; give the set's own network"
        )
    return one_hot(numbers, classes)


def by_name(raw: Raw, spec: InputSpec) -> tuple[Tensor, str | None]:
    """Labels in the network's order, and a note if classes were matched by order instead of name.

    Class folders are matched by name, and numbers by value (`00003` is 3). Names and bare numbers are matched by order.
    Raises UserError for classes that cannot be matched.
    """
    folders, expected = raw.classes, [_value(name) for name in spec.classes]
    if folders is None:
        return raw.labels, None
    if all(_value(name) in expected for name in folders):
        return torch.tensor([expected.index(_value(name)) for name in folders])[raw.labels], None
    if len(folders) != len(expected):
        raise UserError(
            f"{len(folders)} class folders, but the network has {len(expected)} classes; give the set's own network"
        )
    if are_numbers(folders) and are_numbers(spec.classes):
        class_positions(
            folders, spec.classes, "the folder", "the network"
        )  # raises: 1 to 10 must not be read as 0 to 9
    order = sorted(
        range(len(folders)), key=lambda position: int(folders[position]) if folders[position].isdecimal() else 0
    )
    if not any(all(name.isdecimal() for name in names) for names in (folders, spec.classes)):
        unknown_folder = next(name for name in folders if name not in spec.classes)
        raise UserError(
            f"class folder {unknown_folder!r} is not a class of the network; {nearest(unknown_folder, spec.classes)}; "
            f"rename the folders, or number them 0 to {len(folders) - 1} in the network's order"
        )
    pairs = ", ".join(f"{folders[position]} = {spec.classes[number]}" for number, position in enumerate(order[:3]))
    position = torch.empty(len(folders), dtype=torch.long)
    position[torch.tensor(order)] = torch.arange(len(folders))
    ellipsis = ", ..." if len(folders) > 3 else ""
    return position[raw.labels], f"class folders were matched with the network's classes by order: {pairs}{ellipsis}"


def _value(name: str) -> str:
    return str(int(name)) if name.isdecimal() else name


def _finite(number: float) -> bool:
    return abs(number) < float("inf")
