"""What a folder that the commands wrote is, and whether a name is a folder or one of the zoo's. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .errors import UserError
from .files import read_json

__all__ = [
    "CONDENSED",
    "EXPORTED",
    "NO_COPY",
    "QUANTIZED",
    "check_original",
    "is_quantized",
    "is_release",
    "is_zoo",
    "no_release",
    "without_logs",
]

EXPORTED = (".onnx", ".pt2", ".pte")
"""Files of a quantized network."""
CONDENSED = "condensed.safetensors"
QUANTIZED = "quantized"
"""The kind that the config.json of a quantized network names."""
NO_COPY = (
    "a quantized file gives answers alone: it cannot be quantized again, no layer of it can be recorded, and no gradient "
    "passes it; give the original"
)


def is_zoo(name: str) -> bool:
    """Whether the name has the form of a zoo name, whatever its sizes."""
    return re.fullmatch(r"hinton[0-9]+|lenet5(-half)?|alexnet(/[0-9]+|-half)?|resnet[0-9]+", name) is not None


def is_release(name: str | Path) -> bool:
    """Whether the name is a folder; what is in it is checked on opening. A zoo's name needs a config.json in it."""
    return Path(name).is_dir() and ((Path(name) / "config.json").is_file() or not is_zoo(str(name)))


def is_quantized(folder: str | Path) -> bool:
    """Whether the folder says that it holds a quantized network; what is in it is checked on opening."""
    path = Path(folder) / "config.json"
    return path.is_file() and read_json(path).get("kind") == QUANTIZED


def check_original(name: str | Path) -> None:
    """Raises UserError for the folder of a quantized network, where gradients, layers or weights are needed."""
    if is_quantized(name):
        raise UserError(f"{name}: {NO_COPY}")


def no_release(folder: Path) -> str:
    """What a folder without config.json is instead, and what to name."""
    if (folder / "set.json").is_file():
        return (
            f"{folder} is a synthetic set, which holds no network, wanted a release; name the network's folder, and a set "
            "with --images or --calibrate"
        )
    if (folder / CONDENSED).is_file():
        return f"{folder} is a condensed set, which holds no network, wanted a release; name the network's folder"
    with suppress(UserError):
        verb = read_json(folder / "run.json").get("verb") if (folder / "run.json").is_file() else None
        if verb in ("evaluate", "similarity"):
            return (
                f"{folder} is what datafree {verb} wrote, which holds no network, wanted a release; name the folder of the "
                "network that was measured"
            )
    return f"{folder} has no config.json, wanted a release; make one with datafree train, distill or pack"


def without_logs(paths: Iterable[Path]) -> tuple[Path, ...]:
    """The paths without each FOLDER.run.json whose FOLDER is among them, as a shell's `runs-*` names both."""
    named = tuple(paths)
    logs = {folder.with_name(f"{folder.name}.run.json") for folder in named if folder.name}
    return tuple(path for path in named if path not in logs)
