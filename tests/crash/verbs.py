"""The commands that are disturbed: what each may write, and what a stopped run may leave of it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from operations import CRASHED, child

from datafree.cli.main import run

__all__ = ["READERS", "VERBS", "Verb", "copy", "prepare", "warm"]

MAKE = (
    "train hinton8 --data digits --limit 200 --epochs 1 --out teacher --quiet",
    "record teacher --data digits --limit 200 --preset paper --quiet",
    "synthesize top teacher --steps 1 --images 16 --chunk 8 --workers 1 --out set --quiet",
    "synthesize gaussian teacher --images 16 --chunk 8 --workers 1 --out noise --quiet",
    "condense random --data digits --per-class 1 --out few --quiet",
)
RESUMED = "train hinton4 --data digits --limit 100 --epochs 3 --out half --quiet"
RELEASE = ("teacher/record.safetensors", "teacher/README.md", "teacher/run.json", "teacher.run.json")


@dataclass(frozen=True)
class Verb:
    """A command line and what is promised of its result."""

    line: str
    other: str | None = None
    """The same place with another setting: refused once the first has finished, unless it adds to the result."""
    writes: tuple[str, ...] = ("new", "new.run.json")
    """The only files and folders that it may change."""
    loose: tuple[str, ...] = ()
    """Names of files without fixed bytes."""
    passing: tuple[str, ...] = ()
    """Names of files that a run writes more than once: each of their contents may be left by a stopped one."""
    slow: bool = False

    @property
    def argv(self) -> list[str]:
        return self.line.split()


def _plain(line: str, flag: str, **more: Any) -> Verb:
    """A command that writes `new`; `flag` is what its other run has more, or "FROM > TO" to put into its place."""
    old, _, new = flag.partition(" > ")
    line = f"{line} --out new --quiet" if "--out" not in line else line
    assert old in line or not new, flag
    return Verb(line, line.replace(old, new) if new else f"{line} {flag}", **more)


def _recorded(line: str, flag: str) -> Verb:
    old, _, new = flag.partition(" > ")
    assert old in line, flag
    other = f"{line} --quiet".replace(old, new).replace(" --replace", "")
    return Verb(f"{line} --quiet", other, writes=RELEASE, passing=("README.md",))


EPOCHS = "--epochs 2 > --epochs 3"
SET = ("set.json",)
QUANTIZED = ("README.md", "config.json", "model.pt2", "model.pte")
"""Files with times in them, with checksums of such files, or whose writers draw names."""
SHARDS = "top teacher --steps 1 --images {} --chunk 8 --workers 1 --quiet"

VERBS = {
    "train": _plain("train hinton4 --data digits --limit 100 --epochs 2", EPOCHS),
    "train resumed": Verb(RESUMED, RESUMED.replace("--epochs 3", "--epochs 4"), writes=("half", "half.run.json")),
    "record": _recorded("record teacher --data digits --limit 200 --preset small --replace", "small > full"),
    "record --add": _recorded(
        "record input teacher --data digits --limit 200 --add",
        "record input teacher > record moments teacher --taps fc1",
    ),
    "record --out": _plain(
        "record hinton8 --weights teacher/model.safetensors --data digits --limit 200 --preset small",
        "--limit 200 > --limit 300",
        passing=("README.md",),
    ),
    "condense": _plain("condense random --data digits --per-class 1", "--seed 1"),
    "import-condensed": _plain(
        "import-condensed few.npz teacher --pixels 0-1 --anyway --out new", "--pixels 0-1 > --pixels 0-255"
    ),
    "synthesize": _plain(f"synthesize {SHARDS.format(16)} --out new", "--seed 1", passing=SET),
    "synthesize more": Verb(
        f"synthesize {SHARDS.format(24)} --out set",
        f"synthesize {SHARDS.format(24)} --out set --seed 1",
        writes=("set", "set.run.json"),
        passing=SET,
    ),
    "expand": _plain("expand teacher few --images 10 --chunk 10 --steps 1 --workers 1", "--seed 1", passing=SET),
    "distill": _plain("distill teacher hinton4 --set set --epochs 2", EPOCHS),
    "distill data": _plain("distill teacher hinton4 --data digits --limit 100 --epochs 2", EPOCHS),
    "distill record": _plain("distill fresh top teacher hinton4 --steps 1 --epoch-images 16 --epochs 2", EPOCHS),
    "distill condensed": _plain("distill teacher hinton4 --condensed few --epoch-images 16 --epochs 2", EPOCHS),
    "prune": _plain("prune teacher --keep 0.5 --rounds 2 --set set --epochs 2", EPOCHS),
    "online": _plain(
        "distill online teacher hinton4 --epochs 2 --iterations 2 --batch 8",
        EPOCHS,
        passing=("README.md", "config.json", "model.safetensors", "generated.safetensors", "run.json"),
    ),
    "evaluate": _plain("evaluate teacher --data digits --limit 50", "--split train"),
    "similarity": _plain("similarity teacher digits noise --images 20", "--form l2"),
    "report": Verb(
        "report teacher set --out page.html",
        "report teacher --out page.html",
        writes=("page.html", "page.html.run.json"),
    ),
    "pack": _plain(
        "pack hinton8 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out new", "--mean 0.5"
    ),
    "convert": Verb(
        "convert weights.pt --out new.safetensors",
        "convert other.pt --out new.safetensors",
        writes=("new.safetensors",),
    ),
    "rerun": _plain("rerun set --out new", "rerun set > rerun few", passing=SET),
    "quantize": _plain("quantize teacher --calibrate noise --images 8", "--no-equalise", loose=QUANTIZED, slow=True),
    "quantize --finetune": _plain(
        "quantize teacher --weight-bits 4 --activation-bits 4 --calibrate ./noise --finetune ./noise --epochs 2 --batch 8",
        EPOCHS,
        loose=QUANTIZED,
        slow=True,
    ),
    "demo": _plain("demo --images 20", "--seed 1", passing=SET, loose=("report.html",), slow=True),
}
if importlib.util.find_spec("executorch"):
    VERBS["quantize --executorch"] = _plain(
        "quantize teacher --calibrate noise --images 8 --executorch", "--no-equalise", loose=QUANTIZED, slow=True
    )
READERS = (
    "inspect teacher",
    "inspect set",
    "inspect few",
    "inspect teacher/record.safetensors",
    "inspect teacher.run.json",
    "evaluate teacher --data digits --limit 50 --quiet",
    "similarity teacher digits noise --images 20 --quiet",
    "--help",
    "quantize --help",
)
"""Commands that write nothing."""


def prepare(folder: Path) -> None:
    """Everything that the commands read, a training that was stopped, and an empty folder for temporary files."""
    _shorten()
    folder.mkdir()
    (folder / "tmp").mkdir()
    with contextlib.chdir(folder):
        for line in MAKE:
            assert run(line.split()) == 0, line
        torch.save({"fc.weight": torch.zeros(2, 2)}, "weights.pt")
        torch.save({"fc.weight": torch.ones(2, 2)}, "other.pt")
        rng = np.random.default_rng(0)
        np.savez("few.npz", images=rng.random((20, 8, 8)).astype(np.float32), labels=np.arange(20) % 10)

    def after_an_epoch(_: int, operation: tuple[Any, ...]) -> None:
        if operation[0] == "syncdir" and (folder / "half" / "training.safetensors").exists():
            os._exit(CRASHED)

    assert child(folder, RESUMED.split(), after_an_epoch).code == CRASHED


def _shorten() -> None:
    """`demo` on one method and in one epoch; the commit is not asked for again and again, and may change meanwhile."""
    from datafree.cli import demo
    from datafree.runs import run_log
    from datafree.synthesis import methods

    demo.METHODS = (methods.DEFAULT,)
    demo.TRAINING, demo.LEARNING = (own.model_copy(update={"epochs": 1}) for own in (demo.TRAINING, demo.LEARNING))
    run_log.commit = lambda: "0000000"


def warm(base: Path, root: Path, names: list[str]) -> None:
    """Runs the commands once in this process, so that the forked ones find every module imported.

    What torch's exporter writes for a network is remembered: a run of `quantize` takes one second, not five.
    """
    with _remembered(names):
        for name in names:
            with contextlib.chdir(copy(base, root)), contextlib.redirect_stdout(None):
                assert run(VERBS[name].argv) == 0, name


@contextlib.contextmanager
def _remembered(names: list[str]) -> Iterator[None]:
    if any(name.startswith("quantize") for name in names):
        from datafree import quantization
        from datafree.quantization import export

        written: dict[str, bytes] = {}
        real = export.onnx_content

        def onnx_content(graph: Any, shape: tuple[int, int, int]) -> bytes:
            module = getattr(graph, "module", graph)
            state = [(key, value.tolist()) for key, value in module.state_dict().items()]
            key = repr((getattr(graph, "code", ""), shape, state))
            if key not in written:
                written[key] = real(graph, shape)
            return written[key]

        export.onnx_content = quantization.onnx_content = onnx_content
    yield


def copy(base: Path, root: Path) -> Path:
    """`base` in the place of what is in `root`."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(base, root)
    return root
