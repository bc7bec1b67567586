"""What lies in an image folder: classes, their images with all folders inside, and what was left out and why."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .._core.errors import UserError
from ..models.class_names import are_numbers, ordered
from .find_files import entries, is_file, is_folder
from .image_files import SUFFIXES

__all__ = ["Listing", "flat_listing", "listed", "order_note"]

DEPTH = 32


@dataclass
class Listing:
    """Images by class, in class order, and counts of what else there is."""

    classes: dict[str, list[Path]] = field(default_factory=dict)
    nested: int = 0
    """Images in folders inside the class folders."""
    left_out: Counter[str] = field(default_factory=Counter)
    """By kind."""


def listed(root: Path, order: str | None = None) -> Listing:
    """The class folders of `root`. Raises UserError where there are none, or one has no image."""
    listing, found = Listing(), {}
    for entry in entries(root):
        if _hidden(entry):
            listing.left_out["hidden"] += 1
        elif is_folder(entry):
            label = unicodedata.normalize("NFC", entry.name)  # macOS writes accents apart: the same name
            if label in found:
                raise UserError(
                    f"two folders {label!r} in {str(root)!r}, in different Unicode forms ({entry.name!a} and "
                    f"{found[label].name!a}); wanted one; merge them"
                )
            found[label] = root / entry.name
        elif entry.name.lower().endswith(SUFFIXES):
            listing.left_out["images beside the class folders"] += 1
        else:
            listing.left_out[_kind(entry)] += 1
    if not found:
        beside = listing.left_out.pop("images beside the class folders", 0)
        held = (
            f"which holds {beside:,} image{'s' * (beside > 1)} and no folder" if beside else "which has no folder in it"
        )
        raise UserError(
            f"no folder of a class in {str(root)!r}, {held}; wanted <class>/*.png or <split>/<class>/*.png; "
            "put the images of each class into a folder of its own"
        )
    for label in ordered(list(found), order):
        before = listing.left_out.copy()
        listing.classes[label] = list(_images(found[label], listing, ()))
        if not listing.classes[label]:
            held = ", ".join(f"{count} {kind}" for kind, count in (listing.left_out - before).items())
            raise UserError(
                f"no image in the class folder {str(found[label])!r}{f', which holds {held}' if held else ''}; wanted "
                f"{', '.join(SUFFIXES)}; add some or remove the folder"
            )
    return listing


def flat_listing(root: Path) -> Listing | None:
    """Images that lie in `root` itself, and those in folders in it, as one class; None where none lies in `root` itself."""
    if not any(entry.name.lower().endswith(SUFFIXES) and not _hidden(entry) for entry in entries(root)):
        return None
    listing = Listing()
    listing.classes = {"images": list(_images(root, listing, ()))}
    return listing


def order_note(classes: list[str], order: str | None) -> str | None:
    """The line that says by what numeric class names are sorted, where text would be another order."""
    if order is not None or classes == sorted(classes) or not are_numbers(classes):
        return None
    return (
        f"class folders are sorted by their numbers ({', '.join(classes[:3])} ... {classes[-1]}); a network that was "
        f"trained on them sorted as text ({', '.join(sorted(classes)[:4])} ...) needs these names in that order (pack "
        "--classes)"
    )


def _images(folder: Path, listing: Listing, above: tuple[str, ...]) -> list[Path]:
    """Images of `folder` and of all folders in it, sorted by name, its own first. Links are followed, but in no circle.

    A name that begins with a dot is no image: macOS puts ._a.jpg beside a.jpg.
    """
    here, own, inside = os.path.realpath(folder), [], []
    holds_class = bool(above) and above[0].startswith(
        os.path.join(here, "")
    )  # a link to the parent: all classes are there
    if here in above or holds_class or len(above) > DEPTH:
        listing.left_out["links in a circle"] += 1
        return []
    for entry in entries(folder):
        if _hidden(entry):
            listing.left_out["hidden"] += 1
        elif is_folder(entry):
            inside += _images(folder / entry.name, listing, (*above, here))
        elif entry.name.lower().endswith(SUFFIXES) and is_file(entry):
            own.append(folder / entry.name)
        else:
            listing.left_out[_kind(entry)] += 1
    listing.nested += len(own) if above else 0
    return own + inside


def _hidden(entry: os.DirEntry[str]) -> bool:
    return entry.name.startswith((".", "__")) if is_folder(entry) else entry.name.startswith(".")


def _kind(entry: os.DirEntry[str]) -> str:
    if not is_file(entry):
        return "pipes or devices" if os.path.exists(entry.path) else "broken links"
    return os.path.splitext(entry.name)[1].lower() or "without suffix"
