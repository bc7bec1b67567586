"""CelebA's aligned faces (Liu et al. 2015) with one of its 40 attributes as the label; zip or unpacked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from zipfile import ZipInfo

import numpy as np
import torch

from .._core.errors import UserError, unknown
from .dataset import Dataset, check_split
from .find_files import damaged, entries, find, locate, read
from .image_files import check_size, decode, on_threads
from .zip_members import members, read_member

__all__ = ["celeba"]

PARTITIONS = {"train": "0", "valid": "1", "test": "2"}
ATTRIBUTES, PARTITION = "list_attr_celeba.txt", "list_eval_partition.txt"
ZIP, FOLDER = "img_align_celeba.zip", "img_align_celeba"
MOST_BYTES = 1 << 28  # of a list file: ten times CelebA's


def celeba(name: str, split: str, folder: Path | None, *, attribute: str = "Attractive", size: int = 64) -> Dataset:
    """Faces, cropped to the central square and resized to `size` when read. Label 1 means `attribute` is 1."""
    check_split(name, split, tuple(PARTITIONS))
    sides = check_size(size) or (64, 64)
    place = locate(name, folder, "celeba", [ATTRIBUTES, PARTITION])
    attribute_of = _attribute(find(place, ATTRIBUTES), attribute)
    partition_of = _partition(find(place, PARTITION))
    source, images = _images(place)
    _check_same(attribute_of, ATTRIBUTES, partition_of, PARTITION)
    _check_same(attribute_of, ATTRIBUTES, images, source.name)
    files = [file for file, partition in partition_of.items() if partition == PARTITIONS[split]]
    labels = torch.tensor([attribute_of[file] for file in files], dtype=torch.int64)
    shape = (3, sides[0], sides[1])
    reader = partial(_read, source, [images[file] for file in files], shape)
    return Dataset(name, split, (f"not {attribute}", attribute), labels, shape, reader)


def _attribute(path: Path, attribute: str) -> dict[str, int]:
    """0 or 1 by file, from one column. The first line counts the rows, the second names the columns."""
    lines = _lines(path)
    names = lines[1].split() if len(lines) > 1 else []
    if attribute not in names and names:
        raise unknown("attribute", attribute, names, where=repr(str(path)))
    column, rows = names.index(attribute) + 1 if names else 0, lines[2:]
    if not names or lines[0].split() != [str(len(rows))]:
        raise damaged(path, f"holds {len(rows)} rows", "a line with their number, a line of names, and that many rows")
    return {row[0]: int(row[column] == "1") for row in _rows(path, rows, 1 + len(names), column, ("-1", "1"))}


def _partition(path: Path) -> dict[str, str]:
    return {row[0]: row[1] for row in _rows(path, _lines(path), 2, 1, tuple(PARTITIONS.values()))}


def _lines(path: Path) -> list[str]:
    content = read(path, MOST_BYTES)
    if len(content) > MOST_BYTES:
        raise damaged(path, f"holds more than {MOST_BYTES} bytes", "CelebA's list")
    return [line for line in content.decode(errors="replace").splitlines() if line.strip()]


def _rows(path: Path, lines: list[str], length: int, column: int, values: tuple[str, ...]) -> list[list[str]]:
    rows = [line.split() for line in lines]
    for row in rows:
        if len(row) != length or row[column] not in values:
            expected = f"a file and {length - 1} values of {', '.join(values)}"
            raise damaged(path, f"has a bad row for {row[0]!r}", expected)
    if len({row[0] for row in rows}) < len(rows):
        raise damaged(path, "lists an image twice", "one row per image")
    return rows


def _images(place: Path) -> tuple[Path, Mapping[str, ZipInfo | str]]:
    """The folder or zip file, and its entries by file name. Only bare names are used, so no path can escape."""
    folder, archive = place / FOLDER, place / ZIP
    if os.path.isdir(folder):
        files = {entry.name: entry.name for entry in entries(folder) if _is_image(entry.name)}
        if files or not os.path.isfile(archive):
            return folder, files
    if not os.path.isfile(archive):
        raise UserError(f"no file {str(archive)!r} and no folder {str(folder)!r}; copy or download one of them there")
    listed = [member for member in members(archive) if _is_image(member.filename)]
    files = {PurePosixPath(member.filename).name: member for member in listed}
    if len(files) < len(listed):
        raise damaged(archive, f"holds {len(listed)} images with {len(files)} names", "one image per name")
    return archive, files


def _is_image(path: str) -> bool:
    return path.lower().endswith(".jpg") and "__MACOSX/" not in path


def _check_same(files_a: Mapping, name_a: str, files_b: Mapping, name_b: str) -> None:
    """Raises UserError with the first file that only one of both lists has."""
    direction = (files_a, name_a, files_b, name_b)
    for files, name, other_files, other_name in (direction, direction[2:] + direction[:2]):
        missing = next((file for file in files if file not in other_files), None)
        if missing is not None:
            expected = "expected the same images in both; copy or download them again"
            raise UserError(f"image {missing!r} of {name} is not in {other_name}; {expected}")


def _read(source: Path, images: list[ZipInfo | str], shape: tuple[int, int, int], indices: np.ndarray) -> np.ndarray:
    def read_image(index: int) -> np.ndarray:
        image = images[index]
        if isinstance(image, str):
            return decode(source / image, str(source / image), shape)
        return decode(read_member(source, image), f"{source}/{image.filename}", shape)

    return on_threads(read_image, [int(index) for index in indices], shape)
