"""Finds the reader of a data set by name. Readers, and with them torch, are imported only to load data."""

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

# name: (module, function); a function takes (name, split, folder or None, **options) and returns a Dataset
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
"""Public names of data given by path: the path itself may reveal more than a user wants to share."""


def names() -> tuple[str, ...]:
    """Names of the built-in data sets."""
    return tuple(SOURCES)


def load(name: str, split: str, *, data_dir: str | Path | None = None, **options: Any) -> Dataset:
    """The `split` ("train" or "test"; CelebA also has "valid") of a data set.

    `name` is a built-in name, or the path of an image folder or an .npz file. `data_dir` holds the files of built-in
    data sets; by default the environment variable DATAFREE_DATA. Options by source: cifar100 `labels` ("fine",
    "coarse"); celeba `attribute`, `size`; an image folder `size`, `channels`, `class_order`; .npz `layout`. The data
    set's `notes` list what the reader chose or left out. Raises UserError for missing or damaged files and unknown
    names or options.
    """
    from .._core.arguments import check_argument, check_paths  # imports numpy and pydantic

    check_argument("data_dir", data_dir, str | Path | None)
    check_paths("data_dir", data_dir, str | Path | None)
    name = str(name)
    source = _source(name)
    _check_options(name, source, options)
    dataset = source(name, split, _folder(data_dir), **options)
    check_names(dataset.classes, f"data set {name!r}", stored=True)
    return dataset if name in SOURCES else replace(dataset, public=PATHS[_path_source(name)[0]])


def check_exists(name: str) -> None:
    """Raises UserError if no data set has that name or path. Reads nothing."""
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
    expected = "expected a folder of images or a file that ends in .npz"
    if name and os.path.exists(path):
        raise UserError(f"no data set {name!r}: it is another kind of file; {expected}")
    if path.suffix.lower() == ".npz" or os.path.dirname(name):
        raise UserError(f"no data set {name!r}: no such file or folder; {expected}, or one of {', '.join(SOURCES)}")
    raise unknown("data set", name, SOURCES, "the data sets, and no such folder or .npz file")


def _check_options(name: str, source: Callable[..., Dataset], options: dict[str, Any]) -> None:
    parameters = inspect.signature(source).parameters.values()
    accepted = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    for option in options:
        if not accepted:
            raise UserError(f"no option {option!r} for data set {name!r}; expected no options; remove it")
        if option not in accepted:
            raise unknown("option", option, accepted, where=f"data set {name!r}")


def _folder(data_dir: str | Path | None) -> Path | None:
    chosen = data_dir if data_dir is not None else os.environ.get("DATAFREE_DATA")
    return Path(chosen).expanduser() if chosen else None
