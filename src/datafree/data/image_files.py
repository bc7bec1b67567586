"""Decodes image files to uint8 arrays of one shape, as an image viewer shows them, on several threads."""

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
"""An image may be decoded to FREE bytes or RATIO times its file's size, whichever is more."""
IN_FLIGHT = 1 << 27
"""Maximum number of bytes of images that all threads decode at once."""
SCAN = b"\xff\xda"
"""The marker before each scan of a JPEG; it cannot occur within one."""
MOST_SCANS = 100
"""Maximum number of scans in a progressive JPEG; cameras and editors write up to about 20."""
WHITE = 255
GROUNDS = (WHITE, 0, 128)
VISIBLE = 64
ORIENTATION = 274  # EXIF's tag
BITS = 258  # TIFF's tag: of each channel
ZERO_IS = 262  # TIFF's tag: 0 is white, 1 is black
PNG = b"\x89PNG\r\n\x1a\n"
T = TypeVar("T")


@dataclass(frozen=True)
class Look:
    """Contents of an image's header. The shape (C, H, W) is the displayed one; C is 1 for grey, else 3."""

    shape: tuple[int, int, int]
    alpha: bool
    """Whether it has transparency."""
    frames: bool
    """Whether it has more than one frame or page."""
    turned: bool
    """Whether EXIF rotates or mirrors it."""
    nbytes: int
    """Number of bytes of the decoded pixels."""


def decode(source: Path | bytes, name: str, shape: tuple[int, int, int], background: int = WHITE) -> np.ndarray:
    """An image as uint8 of `shape` (C, H, W), C 1 or 3: the largest centred crop of that aspect, resized (bilinear).

    The first frame, rotated according to EXIF, with transparent parts on the grey level `background`. Raises UserError
    with the image's name if it is damaged or needs more memory than MOST_BYTES.
    """
    c, h, w = shape

    def convert(opened: Image.Image) -> Image.Image:
        image = _corrected(opened)
        _draft(image, (w, h))
        upright = ImageOps.exif_transpose(image) if _orientation(image) != 1 else image
        converted = _grey(upright, background) if c == 1 else _rgb(upright, background)
        # antialiased; the crop of a 178x218 face to a square is rows 20 to 198
        return converted if converted.size == (w, h) else ImageOps.fit(converted, (w, h), Image.Resampling.BILINEAR)

    return np.asarray(_guarded(source, name, convert)).reshape(h, w, c).transpose(2, 0, 1)


def look(source: Path | bytes, name: str | None = None) -> Look:
    """The contents of an image's header; no pixels are decoded. Raises UserError for a damaged image."""

    def read_header(image: Image.Image) -> Look:
        width, height = image.size
        channels = 1 if _is_grey(image) else 3  # before EXIF: reading it at the end of a PNG decodes the image
        orientation = _orientation(image)
        if orientation >= 5 and image.format != "TIFF":  # Pillow rotates TIFF files itself
            width, height = height, width
        frames = image.format in ("GIF", "TIFF", "WEBP", "PNG") and bool(getattr(image, "is_animated", False))
        return Look((channels, height, width), _has_alpha(image), frames, orientation != 1, _nbytes(image))

    return _guarded(source, name or ("of bytes" if isinstance(source, bytes) else str(source)), read_header)


def natural_shape(source: Path | bytes, name: str | None = None) -> tuple[int, int, int]:
    """Displayed shape (C, H, W) of an image; C is 1 for grey, else 3."""
    return look(source, name).shape


def visible_on(sources: Sequence[Path]) -> int:
    """The grey level on which all these transparent images are visible: white, else black, else mid-grey.

    An image is visible if its opaque parts differ from the background by a quarter of the range on average. Images
    without a transparent or without an opaque part are ignored.
    """
    contrasts = [contrast for source in sources for contrast in _guarded(source, str(source), _contrasts)]
    if not contrasts:
        return WHITE
    lowest = np.min(np.stack(contrasts), 0)
    return next(
        (ground for ground, contrast in zip(GROUNDS, lowest) if contrast >= VISIBLE), GROUNDS[int(lowest.argmax())]
    )


def _contrasts(image: Image.Image) -> list[np.ndarray]:
    """Mean distance of the opaque part from each background, or [] if all or none of the image is opaque."""
    image = _corrected(image)
    small = image.convert("LA" if _is_grey(image) else "RGBA")
    small.thumbnail((64, 64), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    alpha, levels = pixels[..., -1], pixels[..., :-1]
    if alpha.min() == 255 or alpha.max() == 0:
        return []
    distances = [np.abs(levels - ground).mean(-1) for ground in GROUNDS]
    return [np.array([(distance * alpha).sum() / alpha.sum() for distance in distances])]


def on_threads(
    task: Callable[[T], np.ndarray], items: Sequence[T], shape: tuple[int, ...], nbytes: int = 1 << 24
) -> np.ndarray:
    """The results of `task`, stacked in the order of the items, (n, *shape). Pillow decodes without the GIL.

    `nbytes` is the memory that decoding the largest image needs; it limits the number of threads.
    """
    Image.init()  # before the threads: concurrent registration of WebP fails in Pillow
    result = np.zeros((len(items), *shape), np.uint8)

    def run(index: int) -> None:
        result[index] = task(items[index])

    workers = max(1, min(8, os.cpu_count() or 1, IN_FLIGHT // max(1, nbytes)))
    if workers == 1 or len(items) < 2:
        for index in range(len(items)):
            run(index)
        return result
    with ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(run, range(len(items))):
            pass
    return result


def check_size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) from the option `size`; one number means a square. Raises UserError for other values."""
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MOST_SIDE for side in sides):
        raise UserError(f"size: got {size!r}, expected a number, or height and width, from 1 to {MOST_SIDE}; change it")
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
        limit = f"at most {Image.MAX_IMAGE_PIXELS} pixels"
        raise UserError(f"image {name!r} is too large ({error}); expected {limit}; make it smaller") from error
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise almost any type for damaged files, among them SyntaxError
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
        advice = "copy it again or remove it"
        raise UserError(f"image {name!r} cannot be read ({reason}); expected {'/'.join(FORMATS)}; {advice}") from error


def _check_bytes(image: Image.Image, size: int, name: str) -> None:
    """Raises UserError for an image that needs more memory than MOST_BYTES, or implausibly more than its file's `size`.

    JPEG is exempt: it compresses at most 500 times, and is reduced while it is decoded.
    """
    if image.format == "JPEG":
        return
    limit = min(MOST_BYTES, max(FREE, RATIO * size))
    if _nbytes(image) > limit:
        raise UserError(
            f"image {name!r} is too large: {size:,} bytes decode to {_nbytes(image):,}; expected at most {limit:,}; "
            "make it smaller or remove it"
        )


def _check_scans(image: Image.Image, stream: IO[bytes], name: str) -> None:
    """Raises UserError for a progressive JPEG with more than MOST_SCANS scans, each of which decodes all pixels.

    Pillow calls a JPEG with several images MPO.
    """
    if image.format not in ("JPEG", "MPO") or not image.info.get("progressive"):
        return
    place, count, last_byte = stream.tell(), 0, b""
    stream.seek(0)
    while count <= MOST_SCANS and (part := stream.read(1 << 20)):
        count += (last_byte + part).count(SCAN)
        last_byte = part[-1:]
    stream.seek(place)
    if count > MOST_SCANS:
        raise UserError(
            f"image {name!r} has more than {MOST_SCANS} scans, which take long to decode; expected at most "
            f"{MOST_SCANS}; save it again or remove it"
        )


def _nbytes(image: Image.Image) -> int:
    """Number of bytes of the decoded pixels: 4 per pixel, or 1 in single-byte modes."""
    return image.width * image.height * (1 if image.mode in ("1", "L", "P") else 4)


def _draft(image: Image.Image, size: tuple[int, int]) -> None:
    """Lets Pillow decode a JPEG at 1/8, 1/4 or 1/2 of its size if that is still twice `size` (width, height)."""
    if image.format != "JPEG":
        return
    width, height = size[::-1] if _orientation(image) >= 5 else size
    scale = min(image.width / width, image.height / height)
    if scale >= 4:
        image.draft(None, (int(2 * image.width / scale), int(2 * image.height / scale)))  # type: ignore[arg-type]


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 means as stored. Invalid values count as 1, as in image viewers."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF in an intact image
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info  # the A in LAB is a colour


def _is_grey(image: Image.Image) -> bool:
    """Whether the image is grey, including palettes of only greys."""
    if image.mode == "P":
        levels = np.frombuffer(bytes(image.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
        return bool((levels == levels[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I") or _stored(image) == "LA;16B"


def _stored(image: Image.Image) -> str:
    """Pillow's name of the stored pixel format, before decoding."""
    tiles = getattr(image, "tile", None)
    format = tiles[0][3] if tiles else ""
    return str(format[0] if isinstance(format, tuple) and format else format)


def _corrected(image: Image.Image) -> Image.Image:
    """Corrects images that Pillow reads wrongly: inverted or 16-bit greys, and transparent levels that it loses.

    Raises ValueError for a PNG with damaged pixels.
    """
    stored, hidden = _stored(image), image.info.get("transparency")
    tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    if tags.get(ZERO_IS) == 0 and image.mode in ("F", "I;16", "I;16B"):
        return ImageChops.invert(_eight_bits(image))
    if image.mode.startswith("I;16") and _white(image) != 65535:
        return _eight_bits(image)  # before the file's tags are gone
    if image.format != "PNG":
        return image
    _check_sums(image)
    if stored == "LA;16B":
        return image.convert("LA")
    if stored in ("L;2", "L;4") and isinstance(hidden, int):
        maximum = 2 ** int(stored[2:]) - 1
        image.info["transparency"] = (hidden & maximum) * (255 // maximum)
    elif image.mode.startswith("I") and isinstance(hidden, int):
        image = _with_transparency(image, _eight_bits(image), np.asarray(image) == hidden)
    elif stored == "RGB;16B" and isinstance(hidden, tuple):
        low = _low_bytes(image)  # before decoding, which closes the file
        values = np.asarray(image).astype(int) * 256 + low
        image = _with_transparency(image, image, (values == hidden).all(-1))
    return image


def _with_transparency(image: Image.Image, visible: Image.Image, hidden: np.ndarray) -> Image.Image:
    """`visible` with `hidden` pixels transparent, and with the EXIF of `image`."""
    result = visible.copy()
    result.info = {key: value for key, value in image.info.items() if key != "transparency"}
    result.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return result


def _low_bytes(image: Image.Image) -> np.ndarray:
    """Low bytes of 16-bit colours. Pillow reads the high bytes, but the low ones if the byte order is swapped."""
    stream = image.fp  # type: ignore[attr-defined]
    stream.seek(0)
    swapped = Image.open(stream, formats=("PNG",))
    swapped.tile = [tile._replace(args="RGB;16L") for tile in swapped.tile]  # type: ignore[attr-defined]
    return np.asarray(swapped)


def _check_sums(image: Image.Image) -> None:
    """Raises ValueError for a PNG with a wrong checksum of its pixels, which Pillow ignores."""
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
            raise ValueError("the checksum of its pixels is wrong: it is damaged")
    stream.seek(place)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Converts grey levels of up to 16 bits, or floats, to 8 bits by value / white; convert("L") would clip at 255.

    Raises ValueError for values whose white level is unknown.
    """
    values, white = np.asarray(image), _white(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        low, high = float(values.min()), float(values.max())
        if image.mode != "F" or not (low >= 0 and high <= 1):
            raise ValueError(f"values from {low:g} to {high:g}, whose white is unknown")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if values.max() > white:
        raise ValueError(f"values up to {values.max():,}, above the {white:,} of its bits")
    return Image.fromarray(((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8))


def _white(image: Image.Image) -> int:
    """The white level: 65,535, or the maximum of a TIFF with fewer than 16 bits."""
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
            return _pasted_on(background, image.convert("RGBA")).convert("L")
        return _pasted_on(background, (image.convert("L") if image.mode == "1" else image).convert("LA"))
    return image.convert("L")


def _rgb(image: Image.Image, background: int) -> Image.Image:
    if _is_grey(image):
        return _grey(image, background).convert("RGB")
    # via RGBA, because Pillow warns about a palette with transparency
    return _pasted_on(background, image.convert("RGBA")) if _has_alpha(image) else image.convert("RGB")


def _pasted_on(background: int, image: Image.Image) -> Image.Image:
    """An image of mode LA or RGBA pasted on a plain background."""
    mode = image.mode[:-1]
    alpha = image.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return image.convert(mode)
    ground = Image.new(mode, image.size, background if mode == "L" else (background,) * 3)
    ground.paste(image.convert(mode), mask=alpha)
    return ground
