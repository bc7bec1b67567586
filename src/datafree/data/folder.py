"""A folder of images: folder/<split>/<class>/* or folder/<class>/*, where a class is the name of its folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .._core.errors import UserError, unknown
from .dataset import Dataset, check_split
from .find_files import entries, is_folder
from .image_files import WHITE, Look, check_size, decode, look, on_threads, visible_on
from .listing import Listing, flat_listing, listed, order_note
from .stratified import ALL, split_note, split_rows

__all__ = ["class_files", "folder"]

SPLITS = ("train", "test")
WORDS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "validation", "valid": "validation", "validation": "validation",
}  # fmt: skip
"""What folders of splits are called, in lower case."""
ORDERS = ("number", "text")
SAMPLE = 16
"""Images that are looked at for their background and brightness."""
QUICK = 1 << 25
"""Bytes of a decoded image above which it is not looked at so."""
NAMES = {255: "white", 0: "black", 128: "grey"}
DARK = 32
"""A data set whose brightest pixel is below this level is said to be dark."""


def folder(
    name: str,
    split: str,
    _folder: Path | None,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    class_order: str | None = None,
    labelled: bool = True,
) -> Dataset:
    """Images cropped and resized to `size`, else to the first image's; `channels` 1 or 3, else 3 where any has colour.

    Classes, the first image, colour and background are those of folder/train where there is one. In folder/<class>/* a
    fixed fifth of each class is "test". `class_order` is "number" or "text"; without it names that are all numbers are
    sorted by value, others as text. Where labels do not count (not `labelled`), images may lie in the folder itself: all
    of it is read then, for either split, as one class.
    """
    check_split(name, split, (*SPLITS, ALL))
    sides = check_size(size)
    if channels not in (None, 1, 3):
        raise UserError(f"channels {channels!r} for data set {name!r}; wanted 1 (grey) or 3 (RGB); change it")
    if class_order not in (None, *ORDERS):
        raise unknown("class order", class_order, ORDERS, where=f"data set {name!r}")
    root = Path(name).expanduser()
    flat = None if labelled else flat_listing(root) or _flat_split(root, split)
    main, listing, notes = _listings(root, split, class_order, labelled) if flat is None else (flat, flat, [])
    files = [file for images in listing.classes.values() for file in images]
    counts = [len(images) for images in listing.classes.values()]
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    looks = [look(file) for file in files]
    reference = [file for images in main.classes.values() for file in images]
    shown = looks if main is listing else [look(file) for file in reference]
    colours = {seen.shape[0] for seen in shown}
    shape = (channels or max(colours), *(sides or shown[0].shape[1:]))
    splits = {} if flat is not None else _splits(root)
    if split == ALL and splits:
        raise unknown("split", split, splits, where=f"data set {name!r}")
    place = root / splits.get(split, next(iter(splits.values()))) if splits else root
    ground = _ground([file for file, seen in zip(reference, shown) if seen.alpha and seen.nbytes <= QUICK])
    either = channels is None and len(colours) > 1  # a network of one channel gets them all as grey
    order = order_note(list(main.classes), class_order) if labelled else None
    notes += [note for note in (order, _said(place, listing, looks, shape, ground, either)) if note]
    if place == root and flat is None:
        notes.append(split_note(root, "train and test folders", labels))
        rows = split_rows(labels, split)
        files, looks, labels = [files[row] for row in rows], [looks[row] for row in rows], labels[rows]
    if files and (brightest := _brightest(files, looks, shape[0], ground)) < DARK:
        notes.append(
            f"{place}: the brightest of {min(SAMPLE, len(files))} images reaches {brightest} of 255; are they scaled?"
        )
    at = partial(_reader, files, max((seen.nbytes for seen in looks), default=1), ground)
    return Dataset(
        name, split, tuple(main.classes), torch.from_numpy(labels), shape, at(shape), at=at,
        channels=(channels,) if channels else tuple(sorted(colours)), notes=tuple(map(_printable, notes)),
    )  # fmt: skip


def class_files(root: Path) -> dict[str, list[Path]]:
    """{class: its images}, in class order."""
    return listed(root).classes


def _visible(root: Path) -> list[str]:
    """The folders in `root` that may be classes or splits."""
    return [entry.name for entry in entries(root) if is_folder(entry) and not entry.name.startswith((".", "__"))]


def _named(root: Path) -> dict[str, str]:
    """{split: its folder in `root`}: train and test, and, where no class can be meant, Train, TEST, training.

    A class can be meant where there is neither train/<class> nor test/<class> and some folder is called otherwise.
    """
    names = _visible(root)
    exact = {split: split for split in SPLITS if split in names}
    if not all(name.lower() in WORDS for name in names) and not any(_has_folders(root / name) for name in exact):
        return exact
    for split in SPLITS:
        alike = [name for name in names if WORDS.get(name.lower()) == split]
        if split not in exact and len(alike) > 1:
            raise UserError(
                f"folders {', '.join(map(repr, sorted(alike)))} in {str(root)!r}, of one split; wanted one {split!r}; "
                "merge them or move one away"
            )
        if split not in exact and alike:
            exact[split] = alike[0]
    return {split: exact[split] for split in SPLITS if split in exact}


def _splits(root: Path) -> dict[str, str]:
    """{split: its folder in `root`}, of those with folders of classes."""
    return {split: name for split, name in _named(root).items() if _has_folders(root / name)}


def _check_classes(root: Path) -> None:
    """Raises UserError for folders that are called as splits are and would be read as classes."""
    names = sorted(_visible(root))
    if not names or not all(name.lower() in WORDS for name in names):
        return
    flat = [name for name in names if not _has_folders(root / name)]
    if len(names) > 1 or not flat:
        got = f"without class folders in {', '.join(map(repr, flat))}" if flat else "neither train nor test among them"
        raise UserError(
            f"the folders of {str(root)!r} are called as splits are ({', '.join(names)}), {got}; wanted train/<class>/* and "
            "test/<class>/*; put the images of each class into a folder of its own there, or rename the folders"
        )


def _flat_split(root: Path, split: str) -> Listing | None:
    """The images of folder/train/* or folder/test/*, without class folders; None where there are none, or classes are meant.

    They are where one split is there alone, beside folders that are called otherwise, and has no class folders.
    """
    named = _named(root)
    if len(named) < len(SPLITS) and not all(own.lower() in WORDS for own in _visible(root)) and not _splits(root):
        return None
    name = named.get(split)
    return flat_listing(root / name) if name is not None and os.path.isdir(root / name) else None


def _has_folders(root: Path) -> bool:
    return bool(_visible(root))


def _listings(root: Path, split: str, order: str | None, labelled: bool) -> tuple[Listing, Listing, list[str]]:
    """What decides on classes and shape, what is read, with the same classes, and what is to be said of both."""
    splits = _splits(root)
    if not splits:
        if labelled:
            _check_classes(root)
        main = listed(root, order)
        return main, main, []
    first = next(iter(splits))
    if split not in splits and not labelled:
        split = first
    others = [name for name in _visible(root) if name not in splits.values()]
    if split not in splits:
        held_out = [name for name in others if WORDS.get(name.lower()) == "validation"]
        rename = f", or rename {held_out[0]!r} if that is what to test on" if held_out and split == "test" else ""
        raise UserError(
            f"no folder of classes in {str(root / split)!r}; wanted it beside {splits[first]!r}; add it{rename}"
        )
    beside = " and ".join(splits.values())
    notes = [f"{root}: the folders {', '.join(others)} beside {beside} are not read"] if others else []
    main = listed(root / splits[first], order)
    listing = main if split == first else listed(root / splits[split], order)
    if not labelled:
        return listing, listing, notes
    for label in listing.classes:
        if label not in main.classes:
            raise UserError(
                f"class {label!r} of {splits[split]!r} is not in {str(root / splits[first])!r}; wanted it in both; add it"
            )
    listing.classes = {label: listing.classes.get(label, []) for label in main.classes}
    missing = [label for label, images in listing.classes.items() if not images]
    if missing:
        notes.append(
            f"{root / splits[split]}: no folder of {len(missing)} of {len(main.classes)} classes ({missing[0]!r})"
        )
    return main, listing, notes


def _printable(text: str) -> str:
    """One line without control characters, which names of files may have."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _ground(files: list[Path]) -> int:
    return visible_on([files[row] for row in _spread(len(files))]) if files else WHITE


def _spread(count: int) -> list[int]:
    """At most SAMPLE positions below `count`, from the first to the last."""
    return np.linspace(0, count - 1, min(count, SAMPLE)).round().astype(int).tolist() if count else []


def _brightest(files: list[Path], looks: list[Look], channels: int, ground: int) -> int:
    """The highest level of some images that are quick to decode, each at no more than 256 x 256."""
    most = 0
    quick = [row for row, seen in enumerate(looks) if seen.nbytes <= QUICK]
    if not quick:
        return WHITE
    for row in (quick[place] for place in _spread(len(quick))):
        _, height, width = looks[row].shape
        small = (channels, min(256, height), min(256, width))
        most = max(most, int(decode(files[row], str(files[row]), small, ground).max()))
        if most >= DARK:
            break
    return most


def _said(
    place: Path, listing: Listing, looks: list[Look], shape: tuple[int, int, int], ground: int, either: bool
) -> str | None:  # fmt: skip
    """One line of what is read otherwise than it lies there, and of what is not read; `either` grey or colour will do."""
    counts = Counter(
        {
            f"grey, read as colour{' (all as grey for a network of 1 channel)' if either else ''}": sum(
                seen.shape[0] < shape[0] for seen in looks
            ),
            "in colour, read as grey": sum(seen.shape[0] > shape[0] for seen in looks),
            f"with transparency, shown on {NAMES.get(ground, ground)}": sum(seen.alpha for seen in looks),
            "with several frames, of which the first is read": sum(seen.frames for seen in looks),
            "turned as their EXIF says": sum(seen.turned for seen in looks),
            f"of another size than the first, {shape[1]} x {shape[2]}, cropped to its shape and resized": sum(
                seen.shape[1:] != shape[1:] for seen in looks
            ),
            "in folders inside the class folders": listing.nested,
        }
    )
    parts = [f"{count:,} {text}" for text, count in counts.items() if count]
    if listing.left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(listing.left_out.items()))
        parts.append(f"left out: {kinds}")
    return f"{place}: {len(looks):,} images; {'; '.join(parts)}" if parts else None


def _reader(
    files: list[Path], nbytes: int, ground: int, shape: tuple[int, int, int]
) -> Callable[[np.ndarray], np.ndarray]:
    return partial(_read, files, nbytes, ground, shape)


def _read(files: list[Path], nbytes: int, ground: int, shape: tuple[int, int, int], indices: np.ndarray) -> np.ndarray:
    chosen = [files[int(index)] for index in indices]
    return on_threads(lambda file: decode(file, str(file), shape, ground), chosen, shape, nbytes)
