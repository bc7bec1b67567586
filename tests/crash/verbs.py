"""The commands that are interrupted, and what of their results is the same in every run."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from datafree.__main__ import run

__all__ = ["VERBS", "Verb", "contents", "copy", "prepare"]

MAKE = (
    "train hinton8 --data digits --limit 200 --epochs 1 --out teacher --quiet",
    "record teacher --data digits --limit 200 --preset paper --quiet",
    "synthesize teacher --method top --steps 1 --images 16 --unit 8 --workers 1 --out set --quiet",
    "condense --data digits --per-class 1 --method random --out few --quiet",
)


@dataclass(frozen=True)
class Verb:
    """A command line, and the files of its result that hold times or have no fixed bytes."""

    line: str
    loose: tuple[str, ...] = ()

    @property
    def argv(self) -> list[str]:
        return self.line.split()


VERBS = {
    "train": Verb("train hinton4 --data digits --limit 100 --epochs 2 --out new --quiet"),
    "record": Verb("record teacher --data digits --limit 200 --preset small --replace --quiet"),
    "record --add": Verb("record teacher --data digits --limit 200 --kind input --add --quiet"),
    "record --out": Verb(
        "record hinton8 --weights teacher/model.safetensors --data digits --limit 200 --preset small --out new --quiet"
    ),
    "condense": Verb("condense --data digits --per-class 1 --method random --out new --quiet"),
    "import-condensed": Verb("import-condensed few.npz teacher --pixels 0-1 --anyway --out new"),
    "synthesize": Verb("synthesize teacher --method top --steps 1 --images 16 --unit 8 --workers 1 --out new --quiet"),
    "synthesize more": Verb(
        "synthesize teacher --method top --steps 1 --images 24 --unit 8 --workers 1 --out set --quiet"
    ),
    "expand": Verb("expand teacher few --images 10 --unit 10 --steps 1 --workers 1 --out new --quiet"),
    "distill": Verb("distill teacher hinton4 --images set --epochs 2 --out new --quiet"),
    "online": Verb("distill teacher hinton4 --online generator --epochs 2 --iterations 2 --batch 8 --out new --quiet"),
    "evaluate": Verb("evaluate teacher --data digits --limit 50 --out new --quiet"),
    "similarity": Verb("similarity teacher digits noise --images 20 --out new --quiet"),
    "report": Verb("report teacher set --out page.html", ("page.html",)),
    "pack": Verb("pack hinton8 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out new"),
    "convert": Verb("convert weights.pt --out new.safetensors"),
    "quantize": Verb(
        "quantize teacher --calibrate noise --images 8 --out new --quiet",
        ("README.md", "config.json", "model.pt2"),
    ),
}
TIMES = ("seconds", "phases", "speed", "resumed", "threads")


def prepare(folder: Path) -> None:
    """Everything that the commands read."""
    folder.mkdir()
    with contextlib.chdir(folder):
        for line in MAKE:
            assert run(line.split()) == 0, line
        torch.save({"fc.weight": torch.zeros(2, 2)}, "weights.pt")
        rng = np.random.default_rng(0)
        np.savez("few.npz", images=rng.random((20, 8, 8)).astype(np.float32), labels=np.arange(20) % 10)


def contents(root: Path, verb: Verb) -> dict[str, Any]:
    """What is in every file below, without what differs from run to run; `...` where only its presence counts."""
    return {str(path.relative_to(root)): _content(path, verb) for path in sorted(root.rglob("*")) if path.is_file()} | {
        f"{path.relative_to(root)}/": None for path in sorted(root.rglob("*")) if path.is_dir()
    }


def _content(path: Path, verb: Verb) -> Any:
    if path.name in verb.loose:
        return ...
    if path.name.endswith("run.json"):
        return _timeless(json.loads(path.read_text()))
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(own) for key, own in value.items() if key not in TIMES}
    return [_timeless(own) for own in value] if isinstance(value, list) else value


def copy(base: Path, root: Path) -> Path:
    """`base` in the place of what is in `root`."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base, root)
    return root
