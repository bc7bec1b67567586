"""Finds the files of a built-in data set and reads them, also .gz and .xz, never more bytes than they should hold."""

from __future__ import annotations

import gzip
import lzma
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from .._core.errors import UserError

__all__ = ["affordable", "damaged", "entries", "find", "find_first", "is_file", "is_folder", "locate", "read"]

SUFFIXES = ("", ".gz", ".xz")
CHUNK = 1 << 20
RATIO, FREE = 50, 1 << 26
"""A file may unpack to RATIO times its size and FREE bytes: many times what images compress to, and no bomb."""


def locate(name: str, data_dir: Path | None, subfolder: str, files: Sequence[str]) -> Path:
    """Where `files` of data set `name`, or some of them, lie: `data_dir`/`subfolder`, else `data_dir` itself."""
    expected = ", ".join(f"{subfolder}/{file}" for file in files)
    if data_dir is None:
        todo = f"pass --data-dir or set DATAFREE_DATA to a folder with {expected}"
        raise UserError(f"no folder for data set {name!r}; {todo}")
    if not os.path.isdir(data_dir):  # False, not an error, where it may not be looked at
        raise UserError(f"no folder {str(data_dir)!r} for data set {name!r}; wanted a folder with {expected}")
    # One place for all: images of one place and labels of another might be of two data sets.
    for place in (data_dir / subfolder, data_dir):
        if any(find_first(place, file) for file in files):
            return place
    raise UserError(f"no file {str(data_dir / subfolder / files[0])!r} for data set {name!r}; put its files there")


def find(folder: Path, file: str) -> Path:
    """The path of `file` or `file`.gz or `file`.xz. Raises UserError that names it."""
    path = find_first(folder, file)
    if path is None:
        raise UserError(f"no file {str(folder / file)!r}, nor with .gz or .xz; copy or download it there")
    return path


def find_first(folder: Path, file: str) -> Path | None:
    """The path of `file` as it is, or compressed, or None."""
    paths = (folder / (file + suffix) for suffix in SUFFIXES)
    return next((path for path in paths if os.path.isfile(path)), None)


def read(path: Path, most: int) -> bytes:
    """The decompressed bytes, at most `most` + 1 of them: a file that is longer shows it by one byte.

    Raises UserError for a file that is damaged, or unpacks to more than `affordable`.
    """
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            bound = affordable(path)
            content = _read_most(cast(BinaryIO, stream), min(most, bound) + 1)
            if len(content) > bound:
                raise damaged(path, f"unpacks to more than {bound:,} bytes", "the file as it was published")
            return content
    except MemoryError as error:  # an .xz file names the memory that unpacking takes
        raise damaged(path, "needs more memory than there is", "the file as it was published") from error
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, f"cannot be read ({error})", "a whole file") from error


def affordable(path: Path) -> int:
    """The number of bytes that the file may unpack to."""
    return RATIO * path.stat().st_size + FREE


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What `folder` holds, sorted by name, so that every machine sees the same order."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        got = f"{str(folder)!r} cannot be listed ({error.strerror})"
        raise UserError(f"{got}; wanted a folder; check its rights") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Also through a link; False for one that leads in a circle, where the entry's own method raises."""
    with suppress(OSError):
        return entry.is_dir()
    return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """As `is_folder`."""
    with suppress(OSError):
        return entry.is_file()
    return False


def damaged(path: Path | str, got: str, wanted: str) -> UserError:
    """The error for a file that isn't what it should be."""
    return UserError(f"{str(path)!r} {got}; wanted {wanted}; copy or download it again")


def _read_most(stream: BinaryIO, most: int) -> bytes:
    content = bytearray()
    while chunk := stream.read(min(CHUNK, most - len(content))):
        content += chunk
    return bytes(content)
