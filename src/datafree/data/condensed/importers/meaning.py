"""What a file's numbers mean: pixels by a named convention, patches, labels. All of it is the user's word; see `trial`."""

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
"""How far a row of stored soft labels may be from 1; they are often float16."""


@dataclass(frozen=True)
class Pixels:
    """A convention: stored = (pixel - mean) / std, with pixels from 0 to 1."""

    name: str
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def parse(cls, text: str) -> Pixels:
        """`0-1`, `0-255`, or `normalised:MEAN/STD`, numbers joined by commas, one or one a channel."""
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
        if not mean or not std or not all(0 < own < float("inf") for own in std) or not all(map(_finite, mean)):
            raise UserError(
                f"--pixels: got {text[:80]!r}, wanted normalised:MEAN/STD, such as normalised:0.1307/0.3081 or "
                "normalised:0.49,0.48,0.45/0.25,0.24,0.26; give the numbers that the authors normalised by"
            )
        return cls(text, mean, std)

    def undo(self, stored: Tensor, spec: InputSpec) -> Tensor:
        """Stored numbers (N, C, H, W) as float32 in the spec's pixel units; in double on the way."""
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, stored.shape[1]):
                raise UserError(
                    f"--pixels: got a {name} of {len(values)} numbers, wanted 1 or {stored.shape[1]}; change it"
                )
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (self.mean, self.std))
        unit = stored.double() * std + mean
        return ((spec.high - spec.low) * unit + spec.low).float()


def decoded(pixels: Tensor, labels: Tensor, patches: int, spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Each image's `patches` x `patches` parts, brought to the image's size: IDC's encoding (Kim et al. 2022).

    A side that is no multiple is filled up with mid-grey, as IDC does.
    """
    if not 1 <= patches <= min(pixels.shape[2:]):
        raise UserError(f"--patches: got {patches}, wanted 1 to {min(pixels.shape[2:])}; IDC's are 2 or 3")
    if patches == 1:
        return pixels, labels
    count, channels, height, width = pixels.shape
    check_room(pixels.numel() * patches**2, f"{count} images of {patches} x {patches} patches")
    grey = (spec.low + spec.high) / 2
    pixels = pad(pixels, (0, -width % patches, 0, -height % patches), value=grey)
    rows, columns = pixels.shape[2] // patches, pixels.shape[3] // patches
    parts = pixels.view(count, channels, patches, rows, patches, columns).permute(0, 2, 4, 1, 3, 5)
    parts = parts.reshape(-1, channels, rows, columns)
    whole = interpolate(parts, (height, width), mode="bilinear", align_corners=False)
    return whole, labels.repeat_interleave(patches**2, 0)


def fitted(pixels: Tensor, spec: InputSpec, resize: bool) -> Tensor:
    """The images at the network's size. Raises UserError for other channels, or another size unless `resize`."""
    own = tuple(pixels.shape[1:])
    if own == spec.shape:
        return pixels
    if own[0] != spec.shape[0] or not resize:
        do = "give --resize, or a network of that size" if own[0] == spec.shape[0] else "give another network"
        raise UserError(f"images of shape {own}, the network takes {spec.shape} (channels, height, width); {do}")
    check_room(len(pixels) * spec.pixels, f"{len(pixels)} images of {spec.shape}")
    return interpolate(pixels, spec.shape[1:], mode="bilinear", antialias=True, align_corners=False)


def labels_of(raw: Raw, spec: InputSpec, how: str) -> Tensor:
    """Rows (N, classes) that sum to 1. `auto` takes class numbers and distributions, and guesses at nothing else."""
    labels, classes = by_name(raw, spec)[0], len(spec.classes)
    if how not in LABELS:
        raise unknown("reading of labels", how, LABELS)
    if len(labels) != len(raw.images):
        raise UserError(f"{len(labels)} labels for {len(raw.images)} images; wanted as many; give the files of one set")
    if not bool(labels.isfinite().all()):
        raise UserError("labels with NaN or infinity, wanted finite ones; get the set again")
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.ndim == 1:
        return _hard(labels, classes)
    if labels.ndim != 2 or labels.shape[1] != classes:
        raise UserError(f"labels of shape {tuple(labels.shape)}, wanted ({len(labels)},) or ({len(labels)}, {classes}): the "
                        f"network has {classes} classes; give the set's own network")  # fmt: skip
    return _soft(labels.double(), classes, how)


def _soft(rows: Tensor, classes: int, how: str) -> Tensor:
    if how == "hard":
        return one_hot(rows.argmax(1), classes)
    if how == "logits":
        return rows.softmax(1).float()
    sums = rows.sum(1)
    if bool((rows < 0).any()) or bool(((sums - 1).abs() > SUMS).any()):
        raise UserError(
            f"soft labels from {float(rows.min()):.4g} to {float(rows.max()):.4g} whose rows sum to {float(sums.min()):.4g} "
            f"to {float(sums.max()):.4g}, wanted distributions; give --labels logits (softmax, DATM's) or --labels hard "
            "(the highest alone, for the regression targets of KIP and FRePo)"
        )
    return (rows / sums[:, None]).float()


def _hard(labels: Tensor, classes: int) -> Tensor:
    numbers = labels.long()
    if bool((numbers.to(labels.dtype) != labels).any()):
        raise UserError(
            f"labels such as {float(labels[numbers != labels][0]):.4g}, wanted class numbers; get the set again"
        )
    wrong = (numbers < 0) | (numbers >= classes)
    if bool(wrong.any()):
        raise UserError(
            f"label {int(numbers[wrong][0])} of image {int(wrong.nonzero()[0])}, wanted 0 to {classes - 1}: the network has "
            f"{classes} classes; give the set's own network"
        )
    return one_hot(numbers, classes)


def by_name(raw: Raw, spec: InputSpec) -> tuple[Tensor, str | None]:
    """Labels in the network's order, and a note where they were taken by place, not by name.

    Class folders are matched by name, numbers by value (`00003` is 3); names against bare numbers by their order.
    """
    own, wanted = raw.classes, [_value(name) for name in spec.classes]
    if own is None:
        return raw.labels, None
    if all(_value(name) in wanted for name in own):
        return torch.tensor([wanted.index(_value(name)) for name in own])[raw.labels], None
    if len(own) != len(wanted):
        raise UserError(f"{len(own)} class folders, the network has {len(wanted)} classes; give the set's own network")
    if are_numbers(own) and are_numbers(spec.classes):
        class_positions(own, spec.classes, "the folder", "the network")  # raises: 1 to 10 are not 0 to 9 in their order
    in_order = sorted(range(len(own)), key=lambda place: int(own[place]) if own[place].isdecimal() else 0)
    if not any(all(name.isdecimal() for name in names) for names in (own, spec.classes)):
        wrong = next(name for name in own if name not in spec.classes)
        raise UserError(
            f"class folder {wrong!r} is no class of the network, {nearest(wrong, spec.classes)}; rename the "
            f"folders, or number them 0 to {len(own) - 1} in the network's order"
        )
    pairs = ", ".join(f"{own[place]} = {spec.classes[here]}" for here, place in enumerate(in_order[:3]))
    place = torch.empty(len(own), dtype=torch.long)
    place[torch.tensor(in_order)] = torch.arange(len(own))
    more = ", ..." if len(own) > 3 else ""
    return place[raw.labels], f"class folders were taken for the network's classes in their order: {pairs}{more}"


def _value(name: str) -> str:
    return str(int(name)) if name.isdecimal() else name


def _finite(number: float) -> bool:
    return abs(number) < float("inf")
