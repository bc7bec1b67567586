"""What a folder that is handed over says of its origin: known names and hashes, never a path, a user or a machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._core.errors import UserError
from .._core.files import read_json, sha256_file
from .._core.folder_kinds import is_zoo
from ..data import names as data_names

__all__ = ["IN_MEMORY", "hash_of", "is_known", "place", "public_settings", "shown"]

PLACES = (
    "model", "teacher", "student", "source", "weights", "checkpoint", "record", "code", "data", "images", "condensed",
    "calibrate", "finetune",
)  # fmt: skip
"""Settings whose text may be a path."""
PRIVATE = ("data_dir", "quiet")
"""Settings that say nothing of a result."""
PARTS = ("model.safetensors", "model.onnx", "set.json", "condensed.safetensors")
METHODS = (
    "all", "all-dropout", "bns", "bns-inception", "distribution", "gaussian", "inception", "matched", "spectral-all",
    "spectral-pairs", "top",
)  # fmt: skip
"""Names of synthesis methods; a test compares them with `synthesis.methods.methods()`."""
IN_MEMORY = "images in memory"
"""What settings call images that were handed over in Python; their hash is among the inputs."""
SHOWN = 12
"""Digits of a hash in settings; the whole is among the inputs."""


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run without a path: what a path names is told by its kind and its content's hash."""
    kept = {key: value for key, value in settings.items() if key not in PRIVATE}
    if kept.get("data") != "celeba":
        kept.pop("attribute", None)
    public = {key: _public(value, key in PLACES or key.endswith("code")) for key, value in kept.items()}
    if isinstance(kept.get("data"), (str, Path)) and not is_known(str(kept["data"])):
        public["data"] = _kind(Path(kept["data"]))  # its images' hash is among the inputs
    return public


def _public(value: Any, place_like: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _public(own, False) for key, own in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(own, place_like) for own in value]
    if isinstance(value, Path) or (place_like and isinstance(value, str)):
        return place(value)
    return value


def place(name: str | Path) -> str:
    """`name` itself where everybody knows it (a network of the zoo, a data set, a method); else its kind and hash."""
    text, path = str(name), Path(name)
    if is_known(text) and not (path / "config.json").is_file():
        return text
    if not path.exists():
        return f"custom:{_function(text)}" if ":" in text else "a file"
    return f"{_kind(path)} {hash_of(path)[:SHOWN]}"


def shown(name: Any) -> str:
    """What `place` says, in a sentence: without the hash."""
    found = re.fullmatch(r"(.+) [0-9a-f]{12}", str(name))
    return str(name) if found is None else f"{'an' if found[1].startswith('.n') else 'a'} {found[1]}"


def is_known(text: str) -> bool:
    """Whether `text` is a word of the product: it says nothing of whoever typed it."""
    base, _, split = text.rpartition(":")
    word = base if split in ("train", "test") else text
    return is_zoo(text) or word in data_names() or text in ("noise", "none", IN_MEMORY) or text in METHODS


def hash_of(path: str | Path) -> str:
    """sha256 of a file's content, or of what counts in a folder of ours: its record, card and log do not.

    Of another folder: of the names and sizes of the files in it.
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    digest, known = hashlib.sha256(), False
    for name in PARTS:
        if (path / name).is_file():
            digest.update(f"{name} {sha256_file(path / name)}\n".encode())
            known = True
    if (path / "config.json").is_file():
        digest.update(_config(path / "config.json").encode())
    elif not known:
        for file in sorted(own for own in path.rglob("*") if own.is_file()):
            name = file.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
            digest.update(name + f" {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _config(path: Path) -> str:
    """What decides a network's answers, the same with every version."""
    try:
        config = read_json(path)
    except UserError:  # whoever reads it says so
        return sha256_file(path)
    return repr([config.get("architecture"), sorted(dict(config.get("spec") or {}).items())])


def _kind(path: Path) -> str:
    if (path / "config.json").is_file():
        return "release"
    if (path / "set.json").is_file():
        return "synthetic set"
    if (path / "condensed.safetensors").is_file() or path.name == "condensed.safetensors":
        return "condensed set"
    if path.is_dir():
        return "folder"
    return (
        f"{path.suffix} file" if path.suffix.lower() in (".npz", ".safetensors", ".pt", ".pth", ".parquet") else "file"
    )


def _function(text: str) -> str:
    name = text.rpartition(":")[2]
    return name if re.fullmatch(r"\w{1,64}", name) else "network"
