"""Decodes image files to uint8 arrays of one shape, on several threads, as a viewer shows them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TypeVar
from zlib import crc32

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from .._core.errors import UserError

__all__ = ["SUFFIXES", "Look", "check_size", "decode", "look", "natural_shape", "on_threads", "visible_on"]

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp"),
    *(".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
)
MOST_SIDE = 8192
MOST_BYTES = 1 << 28
"""Maximum number of bytes of one decoded image."""
RATIO, FREE = 300, 1 << 26
"""An image may be decoded to FREE bytes, or to RATIO times its file where that is more."""
IN_FLIGHT = 1 << 27
"""Bytes of images that are decoded at a time, by all threads."""
SCAN = b"\xff\xda"
"""The marker before each scan of a JPEG; it cannot occur within one."""
MOST_SCANS = 100
"""Maximum number of scans in a progressive JPEG; cameras and editors write up to about 20."""
WHITE = 255
GROUNDS = (WHITE, 0, 128)
SEEN = 64
ORIENTATION = 274  # EXIF's tag
BITS = 258  # TIFF's tag: of each channel
ZERO_IS = 262  # TIFF's tag: 0 is white, 1 is black
PNG = b"\x89PNG\r\n\x1a\n"
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """What an image's header says: its shape (C, H, W) as it is shown, C 1 for grey and else 3."""

    shape: tuple[int, int, int]
    alpha: bool
    """Whether it has transparency."""
    frames: bool
    """Whether it has more than one frame or page."""
    turned: bool
    """Whether EXIF turns or mirrors it."""
    nbytes: int
    """Number of bytes of the decoded pixels."""


def decode(source: Path | bytes, name: str, shape: tuple[int, int, int], background: int = WHITE) -> np.ndarray:
    """An image as uint8 of `shape` (C, H, W), C 1 or 3: the largest centred crop of that aspect, resized (bilinear).

    It is turned as its EXIF says, its first frame is taken, and transparency is shown on the grey level `background`.
    Raises UserError that names the image where it is damaged or needs more memory than MOST_BYTES.
    """
    c, h, w = shape

    def use(opened: Image.Image) -> Image.Image:
        image = _as_meant(opened)
        _draft(image, (w, h))
        upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
        shown = _grey(upright, background) if c == 1 else _rgb(upright, background)
        # reduces with antialiasing; for a face of 178x218 and a square shape the crop is rows 20 to 198
        return shown if shown.size == (w, h) else ImageOps.fit(shown, (w, h), Image.Resampling.BILINEAR)

    return np.asarray(_guarded(source, name, use)).reshape(h, w, c).transpose(2, 0, 1)


def look(source: Path | bytes, name: str | None = None) -> Look:
    """What the header of an image says; no pixel is decoded."""

    def use(image: Image.Image) -> Look:
        width, height = image.size
        channels = 1 if _is_grey(image) else 3  # first: to look for EXIF at a PNG's end decodes it
        orientation = _orientation(image)
        if orientation >= 5 and image.format != "TIFF":  # Pillow turns TIFF files itself
            width, height = height, width
        frames = image.format in ("GIF", "TIFF", "WEBP", "PNG") and bool(getattr(image, "is_animated", False))
        return Look((channels, height, width), _has_alpha(image), frames, orientation != 1, _nbytes(image))

    return _guarded(source, name or ("of bytes" if isinstance(source, bytes) else str(source)), use)


def natural_shape(source: Path | bytes, name: str | None = None) -> tuple[int, int, int]:
    """(C, H, W) of an image as it is shown; C is 1 for grey, else 3."""
    return look(source, name).shape


def visible_on(sources: Sequence[Path]) -> int:
    """The background on which all these transparent images are seen: white, else black, else mid-grey.

    Seen is what differs from the background by a quarter of the range, on average over what is not transparent. Images
    without a transparent or a visible part do not count.
    """
    contrasts = [found for source in sources for found in _guarded(source, str(source), _contrasts)]
    if not contrasts:
        return WHITE
    least = np.min(np.stack(contrasts), 0)
    return next((ground for ground, own in zip(GROUNDS, least) if own >= SEEN), GROUNDS[int(least.argmax())])


def _contrasts(image: Image.Image) -> list[np.ndarray]:
    """Mean distance of the visible part from each background; nothing where all or none of the image is visible."""
    image = _as_meant(image)
    small = image.convert("LA" if _is_grey(image) else "RGBA")
    small.thumbnail((64, 64), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    alpha, levels = pixels[..., -1], pixels[..., :-1]
    if alpha.min() == 255 or alpha.max() == 0:
        return []
    apart = [np.abs(levels - ground).mean(-1) for ground in GROUNDS]
    return [np.array([(own * alpha).sum() / alpha.sum() for own in apart])]


def on_threads(
    task: Callable[[T], np.ndarray], items: Sequence[T], shape: tuple[int, ...], nbytes: int = 1 << 24
) -> np.ndarray:
    """The results, stacked in the order of the items; (0, *shape) without items. Pillow decodes without the GIL.

    `nbytes` is what the largest image needs while it is decoded: the larger, the fewer are decoded at a time.
    """
    Image.init()  # here: if two threads find WebP not registered yet, Pillow registers it for one and fails the other
    result = np.zeros((len(items), *shape), np.uint8)

    def one(place: int) -> None:
        result[place] = task(items[place])

    workers = max(1, min(8, os.cpu_count() or 1, IN_FLIGHT // max(1, nbytes)))
    if workers == 1 or len(items) < 2:
        for place in range(len(items)):
            one(place)
        return result
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(one, range(len(items))):
            pass
    return result


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
            _check_scans(image, stream, name)
            _check_bytes(image, len(source) if isinstance(source, bytes) else os.path.getsize(source), name)
            return use(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        most = f"at most {Image.MAX_IMAGE_PIXELS} pixels"
        raise UserError(f"image {name!r} is too large ({error}); wanted {most}; make it smaller") from error
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise almost any type for damaged files, among them SyntaxError
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        todo = "copy it again or remove it"
        raise UserError(f"image {name!r} cannot be read ({reason}); wanted {'/'.join(FORMATS)}; {todo}") from error


def _check_bytes(image: Image.Image, size: int, name: str) -> None:
    """Raises UserError for an image that needs more memory than MOST_BYTES, or than its file of `size` bytes can mean.

    JPEG packs no more than 500 times, and is reduced while it is decoded.
    """
    if image.format == "JPEG":
        return
    most = min(MOST_BYTES, max(FREE, RATIO * size))
    if _nbytes(image) > most:
        raise UserError(
            f"image {name!r} is too large: its {size:,} bytes are {_nbytes(image):,} when decoded; wanted at most {most:,}; "
            "make it smaller or remove it"
        )


def _check_scans(image: Image.Image, stream: IO[bytes], name: str) -> None:
    """Raises UserError for a progressive JPEG with more than MOST_SCANS scans, each of which is decoded over all pixels.

    A JPEG that holds several images has the format MPO.
    """
    if image.format not in ("JPEG", "MPO") or not image.info.get("progressive"):
        return
    place, count, before = stream.tell(), 0, b""
    stream.seek(0)
    while count <= MOST_SCANS and (part := stream.read(1 << 20)):
        count += (before + part).count(SCAN)
        before = part[-1:]
    stream.seek(place)
    if count > MOST_SCANS:
        raise UserError(
            f"image {name!r} goes over its pixels in more than {MOST_SCANS} scans, which would take long to decode; wanted "
            f"at most {MOST_SCANS}; save it again or remove it"
        )


def _nbytes(image: Image.Image) -> int:
    """Number of bytes of the pixels in Pillow's memory: 4 per pixel, 1 in the modes of one byte."""
    return image.width * image.height * (1 if image.mode in ("1", "L", "P") else 4)


def _draft(image: Image.Image, size: tuple[int, int]) -> None:
    """A JPEG is decoded at an eighth, quarter or half of its size where that is still twice `size` (width, height)."""
    if image.format != "JPEG":
        return
    width, height = size[::-1] if _orientation(image) >= 5 else size
    scale = min(image.width / width, image.height / height)
    if scale >= 4:
        image.draft(None, (int(2 * image.width / scale), int(2 * image.height / scale)))  # type: ignore[arg-type]


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8; 1 is as stored. What is no such number turns nothing, as in every viewer."""
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF beside good pixels
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info  # the A of LAB is a colour


def _is_grey(image: Image.Image) -> bool:
    """Also an image whose palette has nothing but greys."""
    if image.mode == "P":
        levels = np.frombuffer(bytes(image.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
        return bool((levels == levels[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I") or _stored(image) == "LA;16B"


def _stored(image: Image.Image) -> str:
    """How an image that is not decoded yet is stored, in Pillow's word."""
    tiles = getattr(image, "tile", None)
    how = tiles[0][3] if tiles else ""
    return str(how[0] if isinstance(how, tuple) and how else how)


def _as_meant(image: Image.Image) -> Image.Image:
    """The image as its file means it, where Pillow would read it otherwise or lose its transparent level.

    Raises ValueError for a PNG whose pixels are damaged.
    """
    stored, hidden = _stored(image), image.info.get("transparency")
    if image.format == "TIFF" and image.tag_v2.get(ZERO_IS) == 0 and image.mode in ("F", "I;16", "I;16B"):  # type: ignore[attr-defined]
        return ImageChops.invert(_eight_bits(image))
    if image.mode.startswith("I;16") and _white(image) != 65535:
        return _eight_bits(image)  # while the file's tags are there
    if image.format != "PNG":
        return image
    _check_sums(image)
    if stored == "LA;16B":
        return image.convert("LA")
    if stored in ("L;2", "L;4") and isinstance(hidden, int):
        most = 2 ** int(stored[2:]) - 1
        image.info["transparency"] = (hidden & most) * (255 // most)
    elif image.mode.startswith("I") and isinstance(hidden, int):
        image = _hiding(image, _eight_bits(image), np.asarray(image) == hidden)
    elif stored == "RGB;16B" and isinstance(hidden, tuple):
        low = _low_bytes(image)  # before the image is decoded, which lets go of its file
        values = np.asarray(image).astype(int) * 256 + low
        image = _hiding(image, image, (values == hidden).all(-1))
    return image


def _hiding(image: Image.Image, shown: Image.Image, hidden: np.ndarray) -> Image.Image:
    """`shown` with what is `hidden` transparent, turned as `image` is."""
    result = shown.copy()
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    result.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return result


def _low_bytes(image: Image.Image) -> np.ndarray:
    """Low bytes of 16-bit colours. Pillow reads the high ones; told that the low ones come last, it reads those instead."""
    stream = image.fp  # type: ignore[attr-defined]
    stream.seek(0)
    again = Image.open(stream, formats=("PNG",))
    again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]  # type: ignore[attr-defined]
    return np.asarray(again)


def _check_sums(image: Image.Image) -> None:
    """Raises ValueError for a PNG in which a checksum of the pixels does not fit; Pillow passes over them."""
    stream = image.fp  # type: ignore[attr-defined]
    place = stream.tell()
    stream.seek(len(PNG))
    while len(head := stream.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4])
        if head[4:] != b"IDAT":
            stream.seek(length + 4, os.SEEK_CUR)
            continue
        data, expected = stream.read(length), stream.read(4)
        if len(expected) == 4 and crc32(data, crc32(b"IDAT")) != int.from_bytes(expected):
            raise ValueError("the checksum of its pixels does not fit: it is damaged")
    stream.seek(place)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey levels of up to 16 bits or floats as 8 bits, by value / white; convert("L") would clip at 255.

    Raises UserError for numbers whose white is unknown.
    """
    values, most = np.asarray(image), _white(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        low, high = float(values.min()), float(values.max())
        if image.mode != "F" or not (low >= 0 and high <= 1):
            raise ValueError(f"values from {low:g} to {high:g}, whose white is unknown")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if values.max() > most:
        raise ValueError(f"values up to {values.max():,}, above the {most:,} of its bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8))


def _white(image: Image.Image) -> int:
    """The largest value of a level: 65,535, or what a TIFF of fewer than 16 bits can hold."""
    bits = image.tag_v2.get(BITS) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    bits = bits[0] if isinstance(bits, tuple) and len(bits) == 1 else bits
    return 2**bits - 1 if isinstance(bits, int) and 8 < bits < 16 else 65535


def _grey(image: Image.Image, background: int) -> Image.Image:
    if not _is_grey(image):
        return _rgb(image, background).convert("L")
    if image.mode == "F" or image.mode.startswith("I"):
        return _eight_bits(image)
    if _has_alpha(image):
        if image.mode == "P":
            return _on(background, image.convert("RGBA")).convert("L")
        return _on(background, (image.convert("L") if image.mode == "1" else image).convert("LA"))
    return image.convert("L")


def _rgb(image: Image.Image, background: int) -> Image.Image:
    if _is_grey(image):
        return _grey(image, background).convert("RGB")
    # over RGBA, since a palette with transparency makes Pillow warn
    return _on(background, image.convert("RGBA")) if _has_alpha(image) else image.convert("RGB")


def _on(background: int, image: Image.Image) -> Image.Image:
    """An image of mode LA or RGBA on a plain ground."""
    mode = image.mode[:-1]
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert(mode)
    ground = Image.new(mode, image.size, background if mode == "L" else (background,) * 3)
    ground.paste(image.convert(mode), mask=alpha)
    return ground
