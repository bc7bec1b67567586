"""Folders of images, <class>/*.jpg: SRe2L, RDED."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ...._core.errors import UserError
from ....models.input_spec import InputSpec
from ...folder import class_files
from ...image_files import decode, natural_shape, on_threads
from .raw import Options, Raw, check_room

__all__ = ["as_bytes", "read"]


def read(path: Path, spec: InputSpec, options: Options) -> Raw:
    """All images of all classes; a class is the name of its folder."""
    own = class_files(path)
    files = [file for of_class in own.values() for file in of_class]
    counts = torch.tensor([len(of_class) for of_class in own.values()])
    labels = torch.arange(len(own)).repeat_interleave(counts)
    images = as_bytes(files, [str(file) for file in files], spec, options)
    return Raw(images, labels, "folder", tuple(files), pixels="0-255", classes=tuple(own))


def as_bytes(sources: list[Path] | list[bytes], names: list[str], spec: InputSpec, options: Options) -> torch.Tensor:
    """uint8 images of the spec's shape; others in size are cropped to its aspect and resized where that is allowed."""
    check_room(len(sources) * spec.pixels, f"{len(sources)} images of {spec.shape}")
    if not options.resize:
        for source, name in zip(sources, names):
            size = natural_shape(source, name)[1:]
            if size != spec.shape[1:]:
                raise UserError(
                    f"image {name!r} is {size[0]} x {size[1]}, the network takes {spec.shape[1]} x {spec.shape[2]}; "
                    "give --resize, or a network of that size"
                )

    def one(item: tuple[Path | bytes, str]) -> np.ndarray:
        return decode(*item, spec.shape)

    return torch.from_numpy(on_threads(one, list(zip(sources, names)), spec.shape))
