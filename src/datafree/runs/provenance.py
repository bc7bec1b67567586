"""The origin that a shared folder states: public names and hashes, never a path, a user or a machine."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._core.code_names import code_name
from .._core.errors import UserError
from .._core.files import read_json, sha256_file
from .._core.folder_kinds import REDUCED, is_zoo
from ..data import names as data_names

__all__ = ["IN_MEMORY", "hash_of", "is_known", "place", "public_paths", "public_settings", "shown"]

PLACES = (
    "model", "teacher", "student", "source", "weights", "checkpoint", "record", "code", "data", "images", "condensed",
    "calibrate", "finetune",
)  # fmt: skip
"""Settings whose text may be a path."""
PRIVATE = ("data_dir", "quiet")
"""Settings that do not affect a result."""
PARTS = ("model.safetensors", "model.onnx", "set.json", "condensed.safetensors")
METHODS = (
    "all", "all-dropout", "bns", "bns-inception", "distribution", "gaussian", "inception", "matched",
    "meta-generator", "spectral-all", "spectral-pairs", "top",
)  # fmt: skip
"""Names of synthesis methods; a test compares them with `synthesis.methods.methods()`."""
IN_MEMORY = "images in memory"
"""Name in settings of images that were passed from Python; their hash is among the inputs."""
SHOWN = 12
"""Number of digits of a hash in settings; the whole hash is among the inputs."""


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run without paths: each path is replaced by the kind and hash of what it names."""
    shared = {key: value for key, value in settings.items() if key not in PRIVATE}
    if shared.get("data") != "celeba":
        shared.pop("attribute", None)
    public = {key: _public(value, key in PLACES or key.endswith("code")) for key, value in shared.items()}
    if isinstance(shared.get("data"), (str, Path)) and not is_known(str(shared["data"])):
        public["data"] = _kind(Path(shared["data"]))  # its images' hash is among the inputs
    if shared.get("student") in REDUCED:
        public["student"] = shared["student"]
    return public


def public_paths(settings: Any) -> Any:
    """The settings of a class of the user's own, with each `Path` replaced by the kind and hash of what it names."""
    return _public(settings, False)


def _public(value: Any, may_be_path: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _public(entry, False) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_public(entry, may_be_path) for entry in value]
    if isinstance(value, Path) or (may_be_path and isinstance(value, str)):
        return place(value)
    return value


def place(name: str | Path) -> str:
    """`name` itself if it is public (a network of the zoo, a data set, a method); else its kind and hash."""
    text, path = str(name), Path(name)
    if re.fullmatch(r"[0-9a-f]{64}", text):  # already a hash, of the code of a class of the user's own
        return text
    if is_known(text) and not (path / "config.json").is_file():
        return text
    if not path.exists():
        return _code(text) if ":" in text else "a file"
    return f"{_kind(path)} {hash_of(path)[:SHOWN]}"


def shown(name: Any) -> str:
    """The result of `place` for a sentence, without the hash."""
    match = re.fullmatch(r"(.+) [0-9a-f]{12}", str(name))
    return str(name) if match is None else f"{'an' if match[1].startswith('.n') else 'a'} {match[1]}"


def is_known(text: str) -> bool:
    """Whether `text` is a public name, which reveals nothing about the user."""
    base, _, split = text.rpartition(":")
    word = base if split in ("train", "test") else text
    return is_zoo(text) or word in data_names() or text in ("noise", "none", IN_MEMORY) or text in METHODS


def hash_of(path: str | Path) -> str:
    """sha256 of a file's content. For a folder that datafree wrote, of its main files, without record, card and log; for any
    other folder, of the names and sizes of its files.
    """
    path = Path(path)
    if path.is_file():
        return sha256_file(path)
    digest, is_ours = hashlib.sha256(), False
    for name in PARTS:
        if (path / name).is_file():
            digest.update(f"{name} {sha256_file(path / name)}\n".encode())
            is_ours = True
    if (path / "config.json").is_file():
        digest.update(_config(path / "config.json").encode())
    elif not is_ours:
        for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
            name = file.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
            digest.update(name + f" {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def _config(path: Path) -> str:
    """The part of config.json that decides a network's answers; the same for every version."""
    try:
        config = read_json(path)
    except UserError:  # reported when the file is read
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
    known = (".npz", ".safetensors", ".pt", ".pth", ".parquet", ".onnx")
    return f"{path.suffix} file" if path.suffix.lower() in known else "file"


def _code(text: str) -> str:
    """A network's name without a path: that of a library whole, and the function of the user's own code."""
    code = code_name(text)
    if code is not None and code.is_library and not {"/", "\\"} & set(text):
        return text
    name = "" if code is None else code.attribute
    return "custom:" + (name if re.fullmatch(r"\w{1,64}", name) else "network")
