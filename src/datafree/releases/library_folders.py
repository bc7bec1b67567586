"""Folders of the Hugging Face hub with a network of timm or transformers: config.json beside weights."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeGuard

from torch import nn

from .._core import memory
from .._core.errors import UserError, cut, out_of_memory
from .._core.files import read_json
from .._core.folder_kinds import cache_repository
from .._core.optional_packages import first_line
from ..models.class_names import MOST_CLASSES

__all__ = [
    "LARGEST_CONFIG", "check_folder", "check_memory", "check_named", "described", "files_of", "is_size", "name_of",
    "read_config", "weights_of",
]  # fmt: skip

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LARGEST_CONFIG = 4 << 20
MOST_LAYERS = 1000
"""Maximum of a number in config.json that counts layers, blocks or stages: a text can name any number of them."""
MOST_NUMBERS = 10_000
"""Maximum number of numbers under one name."""
CLASSES = ("num_labels", "num_classes")
"""Names of the number of classes, for each of which a library keeps a name."""
_COUNTS = re.compile(r"layers|blocks|depth|stages|repeats|num_hidden_layers")


def check_folder(folder: str) -> None:
    """Raises UserError unless this is a folder with a config.json. Imports nothing."""
    # Path.is_file raises for names that are too long
    if folder and os.path.isfile(Path(folder) / "config.json"):
        return
    if folder and (repository := cache_repository(Path(folder))) is not None:
        raise UserError(repository)
    raise UserError(
        f"no config.json in the folder {cut(folder)!r}, expected a folder as save_pretrained writes it; nothing is "
        "downloaded here: download the network first, and give its folder"
    )


def weights_of(folder: str) -> Path:
    """The file of weights in the folder. Raises UserError if there is none, or several that belong together."""
    check_folder(folder)
    for name in WEIGHTS:
        if (Path(folder) / name).exists():
            return Path(folder) / name
        if (Path(folder) / f"{name}.index.json").exists():
            raise UserError(f"{folder} has its weights in several files, expected one {WEIGHTS[0]}; save it as one")
    raise UserError(f"{folder} has no {WEIGHTS[0]}, expected the weights; give them as `weights`, or get it again")


def files_of(folder: str) -> list[Path]:
    """The files that decide what the folder's network computes, config.json first."""
    names = ("config.json", "preprocessor_config.json", *WEIGHTS)
    return [path for name in names if (path := Path(folder) / name).is_file()]


def read_config(folder: str) -> dict[str, Any]:
    """The content of config.json. Raises UserError for counts of layers, and numbers of counts, that cannot be meant."""
    check_folder(folder)
    path = Path(folder) / "config.json"
    config = read_json(path, cap=LARGEST_CONFIG)
    sums: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for key, value in _numbers(config):
        if key in CLASSES and value > MOST_CLASSES:
            raise UserError(
                f"{path}: {key}: got {cut(f'{value:,}')}, expected at most {MOST_CLASSES:,}; get the folder again"
            )
        counts[key] += 1
        if _COUNTS.search(key):
            sums[key] += max(0, value)
    for key, count in counts.items():
        if sums.get(key, 0) > MOST_LAYERS:
            raise UserError(
                f"{path}: {key}: got {sums[key]:,.0f} in all, expected at most {MOST_LAYERS:,}; get the folder again"
            )
        if count > MOST_NUMBERS:
            raise UserError(
                f"{path}: {cut(key)}: got {count:,} numbers, expected at most {MOST_NUMBERS:,}; get the folder again"
            )
    return config


def check_memory(folder: str, module: nn.Module) -> None:
    """Raises UserError for a network, on the meta device, whose weights do not fit into memory."""
    count = sum(parameter.numel() for parameter in module.parameters())
    available = memory.available()
    if available is not None and 4 * count > available:
        raise UserError(
            f"{folder}/config.json describes {count:,} weights of {4 * count:,} bytes, expected at most the "
            f"{available:,} of memory available; get the folder again, or use a machine with more"
        )


@contextmanager
def described(folder: str, library: str, network: str = "the network") -> Iterator[None]:
    """What the library raises inside becomes a UserError of one line that names config.json.

    Its values may be of any type, so the error may be too. Missing packages and memory are not the folder's fault.
    """
    try:
        yield
    except (UserError, ImportError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        kind = f"{type(error).__name__}: " if isinstance(error, (LookupError, AttributeError)) else ""
        raise UserError(
            f"{library} cannot build {network} as {folder}/config.json describes it: {kind}{first_line(error)}; get the "
            f"folder again, or update {library}"
        ) from None


def is_size(side: Any) -> TypeGuard[int]:
    """Whether a value of a file is the height or width of an image, in pixels."""
    return isinstance(side, int) and not isinstance(side, bool) and 0 < side <= 1 << 14


def name_of(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The name by which a network of timm or transformers in this folder opens; None for any other config.json."""
    if "format" in config:
        return None
    if isinstance(config.get("architecture"), str) and ("pretrained_cfg" in config or "num_features" in config):
        return f"timm:{folder}" if {"/", "\\"} & set(str(folder)) else f"timm:./{folder}"
    return f"transformers:{folder}" if isinstance(config.get("model_type"), str) else None


def check_named(folder: str) -> None:
    """Raises UserError for a folder of timm or transformers that was given without the library's name."""
    path = Path(folder) / "config.json"
    name = None
    with suppress(UserError):  # of a file that is damaged, of which nothing is known
        name = name_of(Path(folder), read_json(path, cap=LARGEST_CONFIG)) if path.is_file() else None
    if name is not None:
        raise UserError(f"{folder} is a folder of {name.partition(':')[0]}, expected its name; give {name}")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in it, each with the nearest name above it."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _numbers(entry, str(name))
    elif isinstance(value, list):
        for entry in value:
            yield from _numbers(entry, key)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield key, value
