"""The data that a report's networks were measured on, in words and without a path."""

from __future__ import annotations

import re
from pathlib import Path

from ...data import Dataset

__all__ = ["images_of_split", "measured_on", "public_notes"]

_IMAGES = {"test": "test images", "train": "training images"}


def measured_on(data: Dataset) -> str:
    """Number, split and origin: ``359 test images of an .npz file``."""
    images = images_of_split(data)
    number = f"{len(data):,} {images.removesuffix('s') if len(data) == 1 else images}"
    return f"{number}, passed as {data.public}" if data.split == "as passed" else f"{number} of {data.public}"


def images_of_split(data: Dataset) -> str:
    """``test images`` or ``training images``; ``images`` for any other split."""
    return _IMAGES.get(data.split, "images")


def public_notes(data: Dataset) -> list[str]:
    """What the reader chose or left out, one sentence each, with `data.public` in place of a path at the start."""
    names = "|".join(re.escape(name) for name in {data.name, str(Path(data.name)), str(Path(data.name).expanduser())})
    path = re.compile(rf"^({names})(?=[/\\: ])")
    notes = [path.sub(lambda _: data.public, note) for note in data.notes]
    return [note[:1].upper() + note[1:] for note in notes]
