"""Finds the source of a data set by its name. Imports a source, and with it torch, only to load it."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.errors import UserError, unknown
from ..models.class_names import check_names

if TYPE_CHECKING:
    from .dataset import Dataset

__all__ = ["check_exists", "load", "names"]

# name: (module, function); a function takes (name, split, folder or None, **its options) and gives a Dataset
SOURCES = {
    "digits": ("digits", "digits"),
    "mnist": ("mnist", "mnist"),
    "fashion-mnist": ("mnist", "fashion_mnist"),
    "cifar10": ("cifar", "cifar10"),
    "cifar100": ("cifar", "cifar100"),
    "svhn": ("svhn", "svhn"),
    "celeba": ("celeba", "celeba"),
}
PATHS = {"folder": "a folder of images", "npz": "an .npz file"}
"""What is said of data that a path names: the path may tell more than whoever hands a result over wants to."""


def names() -> tuple[str, ...]:
    """The built-in names."""
    return tuple(SOURCES)


def load(name: str, split: str, *, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """The `split` ("train" or "test"; CelebA also has "valid") of a data set.

    `name` is a built-in name, else the path of an image folder or an .npz file. `data_dir` holds the files of built-in
    data sets; without it the environment's DATAFREE_DATA does. Options by source: cifar100 `labels` ("fine", "coarse");
    celeba `attribute`, `size`; an image folder `size`, `channels`, `class_order`; .npz `layout`. What a reader chose or
    left out is in the data set's `notes`. Raises UserError for what is missing
    or damaged.
    """
    name = str(name)
    source = _source(name)
    _check_options(name, source, options)
    found = source(name, split, _folder(data_dir), **options)
    check_names(found.classes, f"data set {name!r}", stored=True)
    return found if name in SOURCES else replace(found, public=PATHS[_path_source(name)[0]])


def check_exists(name: str) -> None:
    """Raises UserError where no data set has that name or path; nothing is read."""
    if name not in SOURCES:
        _path_source(name)


def _source(name: str) -> Callable[..., Dataset]:
    module, function = SOURCES.get(name) or _path_source(name)
    return getattr(importlib.import_module(f"datafree.data.{module}"), function)


def _path_source(name: str) -> tuple[str, str]:
    path = Path(name).expanduser()
    if name and os.path.isdir(path):
        return "folder", "folder"
    if path.suffix.lower() == ".npz" and os.path.isfile(path):
        return "npz", "npz"
    wanted = "wanted a folder of images or a file that ends in .npz"
    if name and os.path.exists(path):
        raise UserError(f"no data set {name!r}: it is another kind of file; {wanted}")
    if path.suffix.lower() == ".npz" or os.path.dirname(name):
        raise UserError(f"no data set {name!r}: no such file or folder; {wanted}, or one of {', '.join(SOURCES)}")
    raise unknown("data set", name, SOURCES, "the data sets, and no such folder or .npz file")


def _check_options(name: str, source: Callable[..., Dataset], options: dict[str, Any]) -> None:
    parameters = inspect.signature(source).parameters.values()
    known = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if not known:
            raise UserError(f"no option {option!r} for data set {name!r}; wanted none; leave it out")
        if option not in known:
            raise unknown("option", option, known, where=f"data set {name!r}")


def _folder(data_dir: str | Path | None) -> Path | None:
    chosen = data_dir if data_dir is not None else os.environ.get("DATAFREE_DATA")
    return Path(chosen).expanduser() if chosen else None
