"""Condensed sets in folders of images, <class>/*.jpg: SRe2L, RDED."""

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
    """Reads all images of all classes; folder names are class names. Raises UserError as `as_bytes` does."""
    by_class = class_files(path)
    files = [file for class_images in by_class.values() for file in class_images]
    counts = torch.tensor([len(class_images) for class_images in by_class.values()])
    labels = torch.arange(len(by_class)).repeat_interleave(counts)
    images = as_bytes(files, [str(file) for file in files], spec, options)
    return Raw(images, labels, "folder", tuple(files), pixels="0-255", classes=tuple(by_class))


def as_bytes(sources: list[Path] | list[bytes], names: list[str], spec: InputSpec, options: Options) -> torch.Tensor:
    """Decodes images to uint8 (N, C, H, W) of the spec's shape; with `resize`, other sizes are cropped and resized.

    Raises UserError for another size without `resize`, and for damaged images.
    """
    check_room(len(sources) * spec.pixels, f"{len(sources)} images of {spec.shape}")
    if not options.resize:
        for source, name in zip(sources, names):
            size = natural_shape(source, name)[1:]
            if size != spec.shape[1:]:
                raise UserError(
                    f"image {name!r} is {size[0]} x {size[1]}, expected {spec.shape[1]} x {spec.shape[2]}; "
                    "give `resize=True`, or a network of that size"
                )

    def decode_image(item: tuple[Path | bytes, str]) -> np.ndarray:
        return decode(*item, spec.shape)

    return torch.from_numpy(on_threads(decode_image, list(zip(sources, names)), spec.shape))
