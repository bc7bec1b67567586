"""Lists an image folder: classes with their images, including nested folders, and what is left out."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .._core.errors import UserError
from .._core.files.paths import MARKER
from ..models.class_names import are_numbers, ordered
from .find_files import entries, is_file, is_folder
from .image_files import SUFFIXES

__all__ = ["Listing", "flat_listing", "listed", "order_note"]

DEPTH = 32


@dataclass
class Listing:
    """Images by class, in class order, and counts of everything else in the folder."""

    classes: dict[str, list[Path]] = field(default_factory=dict)
    nested: int = 0
    """Number of images in folders inside the class folders."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Number of entries that are not read, by kind."""


def listed(root: Path, order: str | None = None) -> Listing:
    """The class folders of `root`. Raises UserError if there are none, or if one has no image."""
    listing, folders = Listing(), {}
    for entry in entries(root):
        if _hidden(entry):
            listing.left_out["hidden"] += 1
        elif is_folder(entry):
            label = unicodedata.normalize("NFC", entry.name)  # macOS decomposes accents; the names are the same
            if label in folders:
                raise UserError(
                    f"two folders {label!r} in {str(root)!r}, in different Unicode forms ({entry.name!a} and "
                    f"{folders[label].name!a}); expected one; merge them"
                )
            folders[label] = root / entry.name
        elif entry.name.lower().endswith(SUFFIXES):
            listing.left_out["images beside the class folders"] += 1
        else:
            listing.left_out[_kind(entry)] += 1
    if not folders:
        loose_images = listing.left_out.pop("images beside the class folders", 0)
        contents = (
            f"which holds {loose_images:,} image{'s' * (loose_images > 1)} and no folder"
            if loose_images
            else "which holds output of datafree, unfinished or of another kind"
            if (root / MARKER).is_file()
            else "which has no folder in it"
        )
        raise UserError(
            f"no class folder in {str(root)!r}, {contents}; expected <class>/*.png or <split>/<class>/*.png; "
            "put the images of each class into their own folder"
        )
    for label in ordered(list(folders), order):
        left_out = listing.left_out.copy()
        listing.classes[label] = list(_images(folders[label], listing, ()))
        if not listing.classes[label]:
            contents = ", ".join(f"{count} {kind}" for kind, count in (listing.left_out - left_out).items())
            raise UserError(
                "no image in the class folder "
                f"{str(folders[label])!r}{f', which holds {contents}' if contents else ''}; expected "
                f"{', '.join(SUFFIXES)}; add some or remove the folder"
            )
    return listing


def flat_listing(root: Path) -> Listing | None:
    """All images in `root` and its folders as one class; None if there is no image directly in `root`."""
    if not any(entry.name.lower().endswith(SUFFIXES) and not _hidden(entry) for entry in entries(root)):
        return None
    listing = Listing()
    listing.classes = {"images": list(_images(root, listing, ()))}
    return listing


def order_note(classes: list[str], order: str | None) -> str | None:
    """A note that numeric class names are sorted by value, if sorting as text gives another order."""
    if order is not None or classes == sorted(classes) or not are_numbers(classes):
        return None
    return (
        f"class folders are sorted by their numbers ({', '.join(classes[:3])} ... {classes[-1]}); a network that was "
        f"trained on them sorted as text ({', '.join(sorted(classes)[:4])} ...) needs these names in that order as "
        "its classes"
    )


def _images(folder: Path, listing: Listing, above: tuple[str, ...]) -> list[Path]:
    """Images of `folder` and its subfolders, sorted by name, those directly in `folder` first. Follows links, not
    cycles.

    Ignores names that start with a dot: macOS puts ._a.jpg next to a.jpg.
    """
    real_path, images, nested = os.path.realpath(folder), [], []
    holds_class = bool(above) and above[0].startswith(
        os.path.join(real_path, "")
    )  # a link to a parent of the class folder
    if real_path in above or holds_class or len(above) > DEPTH:
        listing.left_out["cyclic links"] += 1
        return []
    for entry in entries(folder):
        if _hidden(entry):
            listing.left_out["hidden"] += 1
        elif is_folder(entry):
            nested += _images(folder / entry.name, listing, (*above, real_path))
        elif entry.name.lower().endswith(SUFFIXES) and is_file(entry):
            images.append(folder / entry.name)
        else:
            listing.left_out[_kind(entry)] += 1
    listing.nested += len(images) if above else 0
    return images + nested


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith((".", "__")) if is_folder(entry) else entry.name.startswith(".")


def _kind(entry: os.DirEntry[str]) -> str:
    if not is_file(entry):
        return "pipes or devices" if os.path.exists(entry.path) else "broken links"
    return os.path.splitext(entry.name)[1].lower() or "without suffix"
