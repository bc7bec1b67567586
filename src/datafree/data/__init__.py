"""Image classification data in its standard layouts: ``load(name, split)`` gives a `Dataset`.

A name is one of ``names()``, the path of an image folder, or that of an .npz file. Nothing is downloaded, extracted
or unpickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registry import load, names

if TYPE_CHECKING:
    from .dataset import Dataset, sha256

__all__ = ["Dataset", "load", "names", "sha256"]


def __getattr__(name: str) -> Any:
    # Late, so that names() (a command line's completion and --help) does not wait for torch.
    if name in ("Dataset", "sha256"):
        from . import dataset

        return getattr(dataset, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
