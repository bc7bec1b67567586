"""Decodes image files (PNG, JPEG, BMP, WebP) to uint8 arrays of one shape, on several threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from datafree.errors import UserError

__all__ = ["check_size", "decode", "natural_shape", "on_threads"]

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MOST_SIDE = 8192
T = TypeVar("T")


def decode(source: Path | bytes, name: str, shape: tuple[int, int, int]) -> np.ndarray:
    """An image as uint8 of `shape` (C, H, W), C 1 or 3: the largest centred crop of that aspect, resized (bilinear).

    Raises UserError that names the image where it is damaged or has more than PIL.Image.MAX_IMAGE_PIXELS.
    """
    c, h, w = shape
    image = _guarded(source, name, lambda image: _grey(image) if c == 1 else _rgb(image))
    if image.size != (w, h):
        # reduces with antialiasing; for a face of 178x218 and a square shape the crop is rows 20 to 198
        image = ImageOps.fit(image, (w, h), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(h, w, c).transpose(2, 0, 1)


def natural_shape(source: Path | bytes, name: str | None = None) -> tuple[int, int, int]:
    """(C, H, W) of an image as it is stored; C is 1 for grey, else 3."""

    def shape(image: Image.Image) -> tuple[int, int, int]:
        return (1 if _is_grey(image) else 3, image.height, image.width)

    return _guarded(source, name or str(source), shape)


def on_threads(task: Callable[[T], np.ndarray], items: Iterable[T], shape: tuple[int, ...]) -> np.ndarray:
    """The results, stacked in the order of the items; (0, *shape) without items. Pillow decodes without the GIL."""
    Image.init()  # here: if two threads find WebP not registered yet, Pillow registers it for one and fails the other
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        arrays = list(pool.map(task, items))
    return np.stack(arrays) if arrays else np.zeros((0, *shape), np.uint8)


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) of the option `size`: one number is a square."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MOST_SIDE for side in sides):
        raise UserError(f"size {size!r}; wanted one number, or height and width, of 1 to {MOST_SIDE}; change it")
    return sides[0], sides[1]


def _guarded(source: Path | bytes, name: str, use: Callable[[Image.Image], T]) -> T:
    try:
        with ExitStack() as stack:
            stream = BytesIO(source) if isinstance(source, bytes) else stack.enter_context(open(source, "rb"))
            image = stack.enter_context(Image.open(stream, formats=FORMATS))
            if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
            return use(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = f"at most {Image.MAX_IMAGE_PIXELS} pixels"
        raise UserError(f"image {name!r} is too large ({error}); wanted {most}; make it smaller") from error
    except Exception as error:  # Pillow's decoders raise almost any type for damaged files, among them SyntaxError
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        todo = "copy it again or remove it"
        raise UserError(f"image {name!r} cannot be read ({reason}); wanted {'/'.join(FORMATS)}; {todo}") from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA") or image.mode.startswith("I")


def _grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: convert("L") would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) // 256).clip(0, 255).astype(np.uint8))
    return image.convert("L") if _is_grey(image) else _rgb(image).convert("L")


def _rgb(image: Image.Image) -> Image.Image:
    if _is_grey(image):
        return _grey(image).convert("RGB")
    # over RGBA, since a palette with transparency makes Pillow warn; alpha is dropped
    return image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
