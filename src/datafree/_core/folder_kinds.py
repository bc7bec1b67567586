"""Tells the kinds of output folders apart, and folders from names of the zoo. Does not import torch."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .errors import UserError
from .files import read_json
from .files.paths import MARKER

__all__ = [
    "CONDENSED",
    "EXPORTED",
    "NO_COPY",
    "QUANTIZED",
    "REDUCED",
    "cache_repository",
    "check_original",
    "is_comparison",
    "is_onnx",
    "is_quantized",
    "is_release",
    "is_zoo",
    "no_release",
    "without_logs",
]

EXPORTED = (".onnx", ".pt2", ".pte")
"""Suffixes of the files of a quantized network."""
CONDENSED = "condensed.safetensors"
QUANTIZED = "quantized"
"""The kind in the config.json of a quantized network."""
NO_COPY = (
    "a quantized file only returns logits: it cannot be quantized again, none of its layers can be recorded, and no "
    "gradient passes through it; give the original"
)


REDUCED = ("half", "shallow")
"""Students that are made of their teacher, whatever folders and files there are of these names."""


def is_zoo(name: str) -> bool:
    """Whether the name has the form of a zoo name, with any sizes."""
    return re.fullmatch(r"hinton[0-9]+|lenet5(-half)?|alexnet(/[0-9]+|-half)?|resnet[0-9]+(/[0-9]+)?", name) is not None


def is_onnx(name: str | Path) -> bool:
    """Whether the name has the form of an ONNX file's; its content is checked when it is opened."""
    return Path(name).suffix.lower() == ".onnx"


def is_release(name: str | Path) -> bool:
    """Whether the name is a folder; its content is checked when it is opened. A zoo's name needs a config.json in it."""
    if not os.path.isdir(name):  # False for text that no file can have as its path, where Path.is_dir raises
        return False
    return (Path(name) / "config.json").is_file() or not is_zoo(str(name))


def is_quantized(folder: str | Path) -> bool:
    """Whether the folder claims to hold a quantized network; its content is checked when it is opened."""
    path = Path(folder) / "config.json"
    return path.is_file() and read_json(path).get("kind") == QUANTIZED


def is_comparison(folder: str | Path) -> bool:
    """Whether the folder was claimed by `datafree compare`, or holds its table."""
    folder = Path(folder)
    if (folder / "comparison.json").is_file():
        return True
    with suppress(UserError, OSError):
        return (folder / MARKER).is_file() and read_json(folder / MARKER).get("kind") == "comparison"
    return False


def check_original(name: str | Path) -> None:
    """Raises UserError for the folder of a quantized network. For work that needs gradients, layers or weights."""
    if is_quantized(name):
        raise UserError(f"{name}: {NO_COPY}")


def no_release(folder: Path) -> str:
    """A message about a folder without config.json: what it is, and what to name instead."""
    if (folder / "set.json").is_file():
        return f"{folder} is a synthetic set, which holds no network, expected a release; name the network's folder"
    if (folder / CONDENSED).is_file():
        return f"{folder} is a condensed set, which holds no network, expected a release; name the network's folder"
    if is_comparison(folder):
        return f"{folder} is a comparison, which holds no network, expected a release; name the teacher's folder"
    with suppress(UserError):
        verb = read_json(folder / "run.json").get("verb") if (folder / "run.json").is_file() else None
        if verb in ("evaluate", "similarity"):
            return (
                f"{folder} was written by datafree {verb} and holds no network, expected a release; name the folder of the "
                "network that was measured"
            )
    if (repository := cache_repository(folder)) is not None:
        return repository
    return f"{folder} has no config.json, expected a release; make one with datafree train, distill or pack"


def cache_repository(folder: Path) -> str | None:
    """A message about a repository in the Hugging Face cache, with the snapshot that it calls main, or its first one; None
    for any other folder.
    """
    with suppress(OSError, UnicodeDecodeError):
        names = sorted(path.name for path in (folder / "snapshots").iterdir() if path.is_dir())
        main = folder / "refs" / "main"
        current = main.read_text()[:100].strip() if main.is_file() and main.stat().st_size < 100 else ""
        if names:
            snapshot = folder / "snapshots" / (current if current in names else names[0])
            return f"{folder} is a repository of the Hugging Face cache, expected one of its snapshots; give {snapshot}"
    return None


def without_logs(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths without the FOLDER.run.json of a FOLDER among them. A shell's `runs-*` expands to both."""
    paths = tuple(paths)
    logs = {folder.with_name(f"{folder.name}.run.json") for folder in paths if folder.name}
    return tuple(path for path in paths if path not in logs)
