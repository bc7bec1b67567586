"""One module per peer. Each has `PEER`, what the table and the README say of it, and `run`, which starts its code."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.peers.budget import Budget
from datafree._core.errors import UserError, unknown
from datafree.data import Dataset
from datafree.models.network import Network

__all__ = ["METHODS", "Job", "Peer", "adapter", "settings_of"]

METHODS = {
    "dafl": "dafl", "dfad": "dfad", "kegnet": "kegnet", "pre-dfkd": "pre_dfkd", "fast": "fast", "cmi": "cmi",
    "ours-online-teacher": "ours", "ours-online-random": "ours", "ours-set": "ours", "real-data": "ours",
}  # fmt: skip
"""Method -> the adapter's module."""


@dataclass(frozen=True)
class Peer:
    title: str
    folder: str
    """Folder of the peer's code below `--peers`; empty for our own methods."""
    files: tuple[str, ...] = ()
    """Files that the code must have: its layout."""
    url: str = ""
    commit: str = ""
    """The commit that the adapter was written for."""
    licence: str = ""
    data: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that `--set` can change, with the values of the table."""
    changes: tuple[str, ...] = ()
    """Everything that differs from the peer's own defaults."""

    def check(self, peers: Path) -> Path:
        """The folder with the peer's code. Raises UserError if it is absent or has another layout."""
        folder = peers / self.folder
        if not folder.is_dir():
            raise UserError(
                f"{self.title}: no folder {folder}, expected a checkout of {self.url}; fetch it there as the README says"
            )
        for name in self.files:
            if not (folder / name).is_file():
                raise UserError(
                    f"{self.title}: {folder} has no {name}, expected the layout of commit {self.commit[:12]} of {self.url}; "
                    "check that commit out"
                )
        return folder


@dataclass(frozen=True)
class Job:
    """One run: everything that an adapter hands to the peer."""

    method: str
    data: str
    teacher: Network
    student: Network
    """Randomly initialised. A peer trains its module in place."""
    feature: str
    budget: Budget
    settings: Mapping[str, Any]
    seed: int
    folder: Path
    """The peer's code."""
    train: Dataset
    """For the row on real data alone."""
    measure: Callable[[Network], float]
    """Accuracy of a network on all test images, in %."""


def adapter(method: str) -> ModuleType:
    """The adapter's module. Raises UserError for an unknown method."""
    if method not in METHODS:
        raise unknown("method", method, METHODS, "the benchmark")
    return importlib.import_module(f"{__name__}.{METHODS[method]}")


def settings_of(method: str, changes: Mapping[str, str]) -> dict[str, Any]:
    """The method's settings with changes as text, each read as the type of the default."""
    settings = dict(adapter(method).PEER.settings)
    for key, text in changes.items():
        if key not in settings:
            raise unknown("setting", key, settings, method)
        kind = type(settings[key])
        try:
            settings[key] = kind(text)
        except ValueError:
            raise UserError(f"{method}.{key}: got {text!r}, expected {kind.__name__}; give such a number") from None
    return settings
