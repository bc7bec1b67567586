"""Reads a folder of images: folder/<split>/<class>/* or folder/<class>/*; folder names are class names."""

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
"""Names of split folders in lower case, and the split that they mean."""
ORDERS = ("number", "text")
SAMPLE = 16
"""Number of images that are inspected for background and brightness."""
QUICK = 1 << 25
"""Maximum number of bytes of a decoded image that is inspected."""
NAMES = {255: "white", 0: "black", 128: "grey"}
DARK = 32
"""A note warns of a data set whose brightest pixel is below this level."""


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
    """Images cropped and resized to `size`, by default the first image's; `channels` is 1 or 3, by default 3 for any
    colour.

    Classes, default size, colour and background come from folder/train if it exists. In folder/<class>/*, a fixed fifth
    of each class is "test". `class_order` is "number" or "text"; by default, names that are all numbers are sorted by
    value, others as text. With `labelled` False, images may be directly in the folder; then all of it is read for
    either split, as one class. Raises UserError for missing or empty class folders, unknown splits and damaged images.
    """
    check_split(name, split, (*SPLITS, ALL))
    sides = check_size(size)
    if channels not in (None, 1, 3):
        raise UserError(f"channels: got {channels!r} for data set {name!r}, expected 1 (grey) or 3 (RGB); change it")
    if class_order not in (None, *ORDERS):
        raise unknown("class order", class_order, ORDERS, where=f"data set {name!r}")
    root = Path(name).expanduser()
    flat = None if labelled else flat_listing(root) or _unlabelled_split(root, split)
    main, listing, notes = _listings(root, split, class_order, labelled) if flat is None else (flat, flat, [])
    files = [file for images in listing.classes.values() for file in images]
    counts = [len(images) for images in listing.classes.values()]
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int64)
    looks = [look(file) for file in files]
    reference = [file for images in main.classes.values() for file in images]
    reference_looks = looks if main is listing else [look(file) for file in reference]
    colours = {image_look.shape[0] for image_look in reference_looks}
    shape = (channels or max(colours), *(sides or reference_looks[0].shape[1:]))
    splits = {} if flat is not None else _splits(root)
    if split == ALL and splits:
        raise unknown("split", split, splits, where=f"data set {name!r}")
    split_root = root / splits.get(split, next(iter(splits.values()))) if splits else root
    background = _background(
        [
            file
            for file, image_look in zip(reference, reference_looks)
            if image_look.alpha and image_look.nbytes <= QUICK
        ]
    )
    grey_or_colour = channels is None and len(colours) > 1  # a 1-channel network gets all images in grey
    order = order_note(list(main.classes), class_order) if labelled else None
    notes += [
        note for note in (order, _reading_note(split_root, listing, looks, shape, background, grey_or_colour)) if note
    ]
    if split_root == root and flat is None:
        notes.append(split_note(root, "train and test folders", labels))
        rows = split_rows(labels, split)
        files, looks, labels = [files[row] for row in rows], [looks[row] for row in rows], labels[rows]
    if files and (brightest := _brightest(files, looks, shape[0], background)) < DARK:
        notes.append(
            f"{split_root}: the brightest of {min(SAMPLE, len(files))} images reaches {brightest} of 255; are they "
            "scaled?"
        )
    reader_at = partial(_reader, files, max((image_look.nbytes for image_look in looks), default=1), background)
    return Dataset(
        name, split, tuple(main.classes), torch.from_numpy(labels), shape, reader_at(shape), at=reader_at,
        channels=(channels,) if channels else tuple(sorted(colours)), notes=tuple(map(_printable, notes)),
    )  # fmt: skip


def class_files(root: Path) -> dict[str, list[Path]]:
    """Images by class, in class order."""
    return listed(root).classes


def _subfolders(root: Path) -> list[str]:
    """Names of the folders in `root` that may be classes or splits."""
    return [entry.name for entry in entries(root) if is_folder(entry) and not entry.name.startswith((".", "__"))]


def _split_folders(root: Path) -> dict[str, str]:
    """The folder name of each split in `root`: train and test, or names such as TEST and training if they are no
    classes.

    They may be classes if neither train/<class> nor test/<class> exists and another folder is not named after a split.
    Raises UserError for two folders of one split.
    """
    names = _subfolders(root)
    exact = {split: split for split in SPLITS if split in names}
    if not all(name.lower() in WORDS for name in names) and not any(_has_folders(root / name) for name in exact):
        return exact
    for split in SPLITS:
        same_split = [name for name in names if WORDS.get(name.lower()) == split]
        if split not in exact and len(same_split) > 1:
            raise UserError(
                f"folders {', '.join(map(repr, sorted(same_split)))} in {str(root)!r} are the same split; expected one "
                f"{split!r}; merge them or move one away"
            )
        if split not in exact and same_split:
            exact[split] = same_split[0]
    return {split: exact[split] for split in SPLITS if split in exact}


def _splits(root: Path) -> dict[str, str]:
    """The folder name of each split in `root` that has class folders."""
    return {split: name for split, name in _split_folders(root).items() if _has_folders(root / name)}


def _check_classes(root: Path) -> None:
    """Raises UserError for folders that are named after splits but would be read as classes."""
    names = sorted(_subfolders(root))
    if not names or not all(name.lower() in WORDS for name in names):
        return
    flat = [name for name in names if not _has_folders(root / name)]
    if len(names) > 1 or not flat:
        got = f"without class folders in {', '.join(map(repr, flat))}" if flat else "neither train nor test among them"
        raise UserError(
            f"the folders of {str(root)!r} are named after splits ({', '.join(names)}), {got}; expected "
            "train/<class>/* and test/<class>/*; put the images of each class into their own folder there, or rename "
            "the folders"
        )


def _unlabelled_split(root: Path, split: str) -> Listing | None:
    """The images of folder/train/* or folder/test/* without class folders; None if there are none.

    Also None if the folders may be classes: only one split exists, without class folders, next to other folders.
    """
    folders = _split_folders(root)
    if (
        len(folders) < len(SPLITS)
        and not all(entry.lower() in WORDS for entry in _subfolders(root))
        and not _splits(root)
    ):
        return None
    name = folders.get(split)
    return flat_listing(root / name) if name is not None and os.path.isdir(root / name) else None


def _has_folders(root: Path) -> bool:
    return bool(_subfolders(root))


def _listings(root: Path, split: str, order: str | None, labelled: bool) -> tuple[Listing, Listing, list[str]]:
    """The listing that defines classes and shape, the listing to read, with the same classes, and notes on both."""
    splits = _splits(root)
    if not splits:
        if labelled:
            _check_classes(root)
        main = listed(root, order)
        return main, main, []
    main_split = next(iter(splits))
    if split not in splits and not labelled:
        split = main_split
    unread = [name for name in _subfolders(root) if name not in splits.values()]
    if split not in splits:
        held_out = [name for name in unread if WORDS.get(name.lower()) == "validation"]
        rename = f", or rename {held_out[0]!r} to test on it" if held_out and split == "test" else ""
        raise UserError(
            f"no class folders in {str(root / split)!r}; expected it next to {splits[main_split]!r}; add it{rename}"
        )
    split_names = " and ".join(splits.values())
    notes = [f"{root}: the folders {', '.join(unread)} next to {split_names} are not read"] if unread else []
    main = listed(root / splits[main_split], order)
    listing = main if split == main_split else listed(root / splits[split], order)
    if not labelled:
        return listing, listing, notes
    for label in listing.classes:
        if label not in main.classes:
            raise UserError(
                f"class {label!r} of {splits[split]!r} is not in {str(root / splits[main_split])!r}; expected it in both; "
                "add it"
            )
    listing.classes = {label: listing.classes.get(label, []) for label in main.classes}
    missing = [label for label, images in listing.classes.items() if not images]
    if missing:
        notes.append(
            f"{root / splits[split]}: no folder of {len(missing)} of {len(main.classes)} classes ({missing[0]!r})"
        )
    return main, listing, notes


def _printable(text: str) -> str:
    """One line without control characters, which file names may contain."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _background(files: list[Path]) -> int:
    return visible_on([files[row] for row in _spread_rows(len(files))]) if files else WHITE


def _spread_rows(count: int) -> list[int]:
    """At most SAMPLE positions below `count`, from the first to the last."""
    return np.linspace(0, count - 1, min(count, SAMPLE)).round().astype(int).tolist() if count else []


def _brightest(files: list[Path], looks: list[Look], channels: int, background: int) -> int:
    """The brightest level in a sample of images that are fast to decode, at most 256 x 256 each."""
    brightest = 0
    quick = [row for row, image_look in enumerate(looks) if image_look.nbytes <= QUICK]
    if not quick:
        return WHITE
    for row in (quick[index] for index in _spread_rows(len(quick))):
        _, height, width = looks[row].shape
        small = (channels, min(256, height), min(256, width))
        brightest = max(brightest, int(decode(files[row], str(files[row]), small, background).max()))
        if brightest >= DARK:
            break
    return brightest


def _reading_note(
    place: Path, listing: Listing, looks: list[Look], shape: tuple[int, int, int], background: int, grey_or_colour: bool
) -> str | None:  # fmt: skip
    """A note on images that are converted and on entries that are not read, or None.

    `grey_or_colour`: the network decides whether images are read in grey or colour.
    """
    counts = Counter(
        {
            f"grey, read as colour{' (all as grey for a network of 1 channel)' if grey_or_colour else ''}": sum(
                image_look.shape[0] < shape[0] for image_look in looks
            ),
            "in colour, read as grey": sum(image_look.shape[0] > shape[0] for image_look in looks),
            f"with transparency, drawn on {NAMES.get(background, background)}": sum(
                image_look.alpha for image_look in looks
            ),
            "with several frames, of which the first is read": sum(image_look.frames for image_look in looks),
            "rotated according to their EXIF": sum(image_look.turned for image_look in looks),
            f"of another size than the first, {shape[1]} x {shape[2]}, cropped and resized to it": sum(
                image_look.shape[1:] != shape[1:] for image_look in looks
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
    files: list[Path], nbytes: int, background: int, shape: tuple[int, int, int]
) -> Callable[[np.ndarray], np.ndarray]:
    return partial(_read, files, nbytes, background, shape)


def _read(
    files: list[Path], nbytes: int, background: int, shape: tuple[int, int, int], indices: np.ndarray
) -> np.ndarray:
    chosen = [files[int(index)] for index in indices]
    return on_threads(lambda file: decode(file, str(file), shape, background), chosen, shape, nbytes)
