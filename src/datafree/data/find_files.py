"""Finds and reads the files of a built-in data set, plain, .gz or .xz, with limits on their size."""

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
"""A file may unpack to RATIO times its size plus FREE bytes: enough for images, too little for a zip bomb."""


def locate(name: str, data_dir: Path | None, subfolder: str, files: Sequence[str]) -> Path:
    """The folder with at least one of `files`: `data_dir`/`subfolder`, else `data_dir`. Raises UserError for none."""
    expected = ", ".join(f"{subfolder}/{file}" for file in files)
    if data_dir is None:
        advice = f"give `data_dir` or set DATAFREE_DATA to a folder with {expected}"
        raise UserError(f"no folder for data set {name!r}; {advice}")
    if not os.path.isdir(data_dir):  # False, not an error, for a folder without permission
        raise UserError(f"no folder {str(data_dir)!r} for data set {name!r}; expected a folder with {expected}")
    # One folder for all files: images and labels from different folders may not belong together.
    for place in (data_dir / subfolder, data_dir):
        if any(find_first(place, file) for file in files):
            return place
    raise UserError(f"no file {str(data_dir / subfolder / files[0])!r} for data set {name!r}; put its files there")


def find(folder: Path, file: str) -> Path:
    """The path of `file`, `file`.gz or `file`.xz. Raises UserError if none exists."""
    path = find_first(folder, file)
    if path is None:
        raise UserError(f"no file {str(folder / file)!r}, nor with .gz or .xz; copy or download it there")
    return path


def find_first(folder: Path, file: str) -> Path | None:
    """The path of `file`, plain or compressed, or None."""
    paths = (folder / (file + suffix) for suffix in SUFFIXES)
    return next((path for path in paths if os.path.isfile(path)), None)


def read(path: Path, limit: int) -> bytes:
    """The decompressed bytes, at most `limit` + 1; the extra byte shows that the file is longer.

    Raises UserError for a damaged file, or one that unpacks to more than `affordable`.
    """
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as stream:
            bound = affordable(path)
            content = _read_up_to(cast(BinaryIO, stream), min(limit, bound) + 1)
            if len(content) > bound:
                raise damaged(path, f"unpacks to more than {bound:,} bytes", "the file as it was published")
            return content
    except MemoryError as error:  # an .xz file declares the memory for unpacking
        raise damaged(path, "needs more memory than is free", "the file as it was published") from error
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise damaged(path, f"cannot be read ({error})", "a complete file") from error


def affordable(path: Path) -> int:
    """Maximum number of bytes that the file may unpack to."""
    return RATIO * path.stat().st_size + FREE


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of `folder`, sorted by name for a reproducible order. Raises UserError if it cannot be listed."""
    try:
        with os.scandir(folder) as listing:
            return sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        got = f"{str(folder)!r} cannot be listed ({error.strerror})"
        raise UserError(f"{got}; expected a readable folder; check its permissions") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a folder, or a link to one. False for a cyclic link, for which `is_dir` raises."""
    with suppress(OSError):
        return entry.is_dir()
    return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether the entry is a file, or a link to one; see `is_folder`."""
    with suppress(OSError):
        return entry.is_file()
    return False


def damaged(path: Path | str, problem: str, expected: str) -> UserError:
    """The error for a file with unexpected contents."""
    return UserError(f"{str(path)!r} {problem}; expected {expected}; copy or download it again")


def _read_up_to(stream: BinaryIO, limit: int) -> bytes:
    content = bytearray()
    while chunk := stream.read(min(CHUNK, limit - len(content))):
        content += chunk
    return bytes(content)
