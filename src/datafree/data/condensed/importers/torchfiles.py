"""Condensed sets in `.pt` files: dictionaries (DC, DSA, DM), lists (IDC), pairs of files (MTT, DATM)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ...._core.errors import UserError
from ...._core.files import read_torch
from ...._core.files.pickle_reader import Described, Opaque
from .raw import UNWHITENED, Options, Raw

__all__ = ["best", "read"]

CAP = 4 << 30


def read(path: Path, options: Options) -> Raw:
    """Reads one file, or a pair of files of images and labels. Raises UserError for other contents."""
    if path.name.startswith("images_"):
        return best(path.parent, path)
    notes, kind = [], []

    def select(content: Any) -> dict[str, Described]:
        if isinstance(content, Described):
            raise UserError(f"{str(path)!r} holds a single tensor; expected images_*.pt with labels_*.pt; rename it")
        parts, format_name = _select_pair(content, path, options, notes)
        kind.append(format_name)
        return {"images": parts[0], "labels": parts[1]}

    tensors = read_torch(path, select, cap=CAP)
    return Raw(_images(tensors["images"], path), tensors["labels"], kind[0], (path,), notes=tuple(notes))


def best(folder: Path, image_file: Path | None = None) -> Raw:
    """Reads images_best.pt and labels_best.pt; for ZCA-whitened sets, the un-whitened images_zca_*.pt instead."""
    unwhitened, notes = sorted(folder.glob(f"{UNWHITENED}*.pt"), key=_number), []
    path = image_file or folder / "images_best.pt"
    if not path.name.startswith(UNWHITENED) and unwhitened:
        path = unwhitened[-1]
        notes.append(
            f"{image_file.name if image_file else 'images_best.pt'} is ZCA-whitened; the un-whitened {path.name} was "
            "read instead"
        )
    labels = _labels_beside(path)
    images = read_torch(path, lambda content: {"it": _tensor(content, path)}, cap=CAP)["it"]
    rows = read_torch(labels, lambda content: {"it": _tensor(content, labels)}, cap=CAP)["it"]
    return Raw(_images(images, path), rows, "best", (path, labels), notes=tuple(notes))


def _select_pair(content: Any, path: Path, options: Options, notes: list[str]) -> tuple[list[Described], str]:
    """[images, labels] and the name of the format."""
    if isinstance(content, dict) and isinstance(content.get("data"), list) and content["data"]:
        sets = content["data"]
        if not -len(sets) <= options.entry < len(sets):
            raise UserError(
                f"entry: got {options.entry}, but {str(path)!r} holds {len(sets)} sets; give 0 to {len(sets) - 1}"
            )
        if len(sets) > 1:
            notes.append(f"{path.name} holds {len(sets)} sets; number {options.entry % len(sets)} was read")
        content, name = sets[options.entry], "dc"
    else:
        name = "pair"
    if not isinstance(content, list | tuple) or len(content) != 2:
        raise UserError(
            f"{str(path)!r} holds {_type_name(content)}; expected [images, labels], or a dictionary whose 'data' lists "
            "such; save it so"
        )
    return [_tensor(part, path) for part in content], name


def _tensor(content: Any, path: Path) -> Described:
    if not isinstance(content, Described):
        raise UserError(
            f"{str(path)!r} holds {_type_name(content)} instead of a tensor; expected torch tensors; save them as "
            "tensors"
        )
    return content


def _type_name(content: Any) -> str:
    return repr(content.name[:80]) if isinstance(content, Opaque) else f"'{type(content).__name__}'"


def _images(images: Tensor, path: Path) -> Tensor:
    if images.ndim != 4 or not images.numel():
        raise UserError(
            f"images in {str(path)!r} have the shape {tuple(images.shape)}; expected (N, C, H, W); reshape them"
        )
    return images


def _number(path: Path) -> tuple[bool, int]:
    """Sort key: by the iteration in the name, images_zca_best last."""
    digits = re.search(r"(\d+)\.pt$", path.name)
    return digits is None, int(digits[1]) if digits else 0


def _labels_beside(path: Path) -> Path:
    end = path.name.removeprefix("images_").removeprefix("zca_")
    for name in (f"labels_{end}", "labels_best.pt"):
        if (path.parent / name).is_file():
            return path.parent / name
    raise UserError(f"no labels for {str(path)!r}; expected labels_{end} or labels_best.pt next to it; get it too")
