"""A folder of images: folder/<split>/<class>/* or folder/<class>/*, where a class is the name of its folder."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datafree.data.dataset import Dataset, check_split
from datafree.data.files import entries
from datafree.data.pictures import check_size, decode, natural_shape, on_threads
from datafree.data.strata import split_rows
from datafree.errors import UserError

__all__ = ["class_files", "folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
SPLITS = ("train", "test")


def folder(
    name: str,
    split: str,
    _folder: Path | None,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
) -> Dataset:
    """Images cropped and resized to `size`, else to the first image's; `channels` 1 or 3, else the first image's.

    Classes and the first image are those of folder/train where there is one. In folder/<class>/* a fixed fifth of each
    class is "test".
    """
    check_split(name, split, SPLITS)
    sides = check_size(size)
    if channels not in (None, 1, 3):
        raise UserError(f"channels {channels!r} for data set {name!r}; wanted 1 (grey) or 3 (RGB); change it")
    classes, files, labels, first = _listed(Path(name).expanduser(), split)
    c, h, w = natural_shape(first)
    h, w = sides or (h, w)
    shape = (channels or c, h, w)
    return Dataset(name, split, classes, torch.from_numpy(labels), shape, partial(_read, files, shape))


def _listed(root: Path, split: str) -> tuple[tuple[str, ...], list[Path], np.ndarray, Path]:
    """Classes, files of the split, their labels, and the first of all files."""
    splits = [part for part in SPLITS if os.path.isdir(root / part) and _folders(root / part)]
    if not splits:
        files, labels, classes = _labelled(class_files(root))
        rows = split_rows(labels, split)
        return classes, [files[row] for row in rows], labels[rows], files[0]
    if split not in splits:
        raise UserError(f"no folder of classes in {str(root / split)!r}; wanted it beside {splits[0]!r}; add it")
    by_class = {part: class_files(root / part) for part in splits}
    main = by_class[splits[0]]
    for label in by_class[split]:
        if label not in main:
            raise UserError(
                f"class {label!r} of {split!r} is not in {str(root / splits[0])!r}; wanted it in both; add it"
            )
    files, labels, classes = _labelled({label: by_class[split].get(label, []) for label in main})
    return classes, files, labels, next(iter(main.values()))[0]


def class_files(root: Path) -> dict[str, list[Path]]:
    """{class: its images}, both sorted by name."""
    classes = {path.name: _images(path) for path in _folders(root)}
    if not classes:
        raise UserError(
            f"no folder of a class in {str(root)!r}; wanted <class>/*.png or <split>/<class>/*.png; add them"
        )
    for label, files in classes.items():
        if not files:
            wanted = "wanted " + ", ".join(SUFFIXES)
            raise UserError(
                f"no image in the class folder {str(root / label)!r}; {wanted}; add some or remove the folder"
            )
    return classes


def _labelled(by_class: dict[str, list[Path]]) -> tuple[list[Path], np.ndarray, tuple[str, ...]]:
    files = [file for files in by_class.values() for file in files]
    labels = np.repeat(np.arange(len(by_class)), [len(files) for files in by_class.values()]).astype(np.int64)
    return files, labels, tuple(by_class)


def _folders(root: Path) -> list[Path]:
    return [root / entry.name for entry in entries(root) if entry.is_dir() and not entry.name.startswith((".", "__"))]


def _images(root: Path) -> list[Path]:
    """A name that begins with a dot is no image: macOS puts ._a.jpg beside a.jpg."""
    images = [entry for entry in entries(root) if entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "."]
    return [root / entry.name for entry in images if entry.is_file()]


def _read(files: list[Path], shape: tuple[int, int, int], indices: np.ndarray) -> np.ndarray:
    return on_threads(lambda file: decode(file, str(file), shape), [files[int(index)] for index in indices], shape)
