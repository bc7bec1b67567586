"""Logs, markers and whole pages: run.json in and beside folders, repeated runs, reports, similarities."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from datafree._core.files import claim_folder, write_tensors
from datafree.cli import main as program
from datafree.cli.inspect import inspect
from datafree.cli.report import report
from datafree.cli.rerun import rerun
from datafree.cli.similarity import similarity
from datafree.releases.release import RELEASE_FOLDER, write_release
from datafree.runs.output_folder import output_folder
from datafree.runs.run_log import RunLog

from .releases import RELEASES
from .subject import Subject, teacher

__all__ = ["LOGS"]

HISTORY = {
    "loss": [1.0, 0.5], "scores": [50.0, 60.0], "agreement": [50.0, 60.0], "average_scores": [51.0, 61.0],
    "average_agreement": [52.0, 62.0], "health": [{"classes": 2.5, "duplicates": 0.1}] * 2, "seconds": [1.0, 1.0],
    "rollbacks": ["epoch 1: a collapse"], "phases": {"student": 1.0, "memory": 0.5}, "images": 100, "memory_bytes": 600,
}  # fmt: skip


def _claim(folder: Path) -> Any:
    return claim_folder(folder / "m", kind="release").name


# -- an output folder, finished or not ----------------------------------------------------------------------------


def _finish(folder: Path) -> Any:
    """The same run: it finds its result, or makes it."""
    log = RunLog("distill", {"seed": 0, "epochs": 2, "data": "digits"}, {})
    with output_folder(folder / "r", RELEASE_FOLDER, log) as out:
        if out is not None:
            write_release(out, teacher())
            log.write(out, {"evaluation": {"accuracy": 50.0}})
    return out is None


def _unfinished(folder: Path) -> None:
    _finish(folder)
    log = json.loads((folder / "r" / "run.json").read_text())
    pending = {key: log[key] for key in ("format", "verb", "settings", "inputs")}
    (folder / "r" / ".datafree.json").write_text(json.dumps({"kind": "release", "unfinished": pending}))
    (folder / "r" / "run.json").unlink()


# -- runs that are repeated ---------------------------------------------------------------------------------------


def _typed(folder: Path) -> None:
    argv = ["train", "hinton8", "--data", "digits", "--seed", "3", "--out", "r"]
    log = {"argv": argv, "folder": str(folder), "inputs": {"w.safetensors": "0" * 64}, "verb": "train"}
    (folder / "w.safetensors").write_bytes(b"")
    (folder / "r").mkdir()
    (folder / "r.run.json").write_text(json.dumps(log))
    (folder / "r" / "run.json").write_text(json.dumps({"format": 2, "verb": "train"}))


def _repeat(folder: Path) -> Any:
    os.chdir(folder)
    before, program.run = program.run, lambda argv: len(argv)
    try:
        return rerun(Path("r"), out=Path("s"))
    finally:
        program.run = before


# -- pages --------------------------------------------------------------------------------------------------------


def _runs(folder: Path) -> None:
    RELEASES["record"].make(folder)
    RELEASES["set.json"].make(folder)
    played = {"verb": "distill", "settings": {"seed": 0, "replay": {"replay": "bank"}}, "inputs": {"teacher": "0" * 64}}
    write_release(folder / "t", teacher())
    (folder / "t" / "run.json").write_text(json.dumps({**played, "result": {"online": HISTORY}}))
    pixels = torch.zeros(3, 2, 1, 4, 4, dtype=torch.uint8)
    write_tensors(folder / "t" / "generated.safetensors", {"pixels": pixels}, {"epochs": [1, 2, 3]}, kind="generated")
    (folder / "l").mkdir()
    found = {"name": "noise", "images": 8, "total": 1.5, "by_layer": {"fc1": 1.5}}
    alike = {"verb": "similarity", "settings": {"model": "release", "form": "forward"}, "inputs": {}}
    (folder / "l" / "run.json").write_text(json.dumps({**alike, "result": {"similarity": [found]}}))
    made = {"verb": "synthesize", "settings": {}, "inputs": {}, "seconds": 3.0, "result": {"images": 5}}
    (folder / "s" / "run.json").write_text(json.dumps(made))


def _page(folder: Path) -> Any:
    report(*(folder / name for name in "rtls"), out=folder / "page.html", title="t")
    return (folder / "page.html").is_file()


def _similar(folder: Path) -> Any:
    similarity(str(folder / "r"), str(folder / "s"), "noise", images=5, out=folder / "found", layers=True)
    return (folder / "found" / "similarity.svg").read_bytes()


def _look(folder: Path) -> Any:
    for name in ("r", "s", "r/record.safetensors", "r/run.json"):
        inspect(folder / name)
    return None


LOGS: dict[str, Subject] = {
    "marker": Subject(lambda f: _claim(f) and None, ("m/.datafree.json",), _claim, sealed=False),
    "finished folder": Subject(
        _finish, ("r/run.json", "r.run.json", "r/.datafree.json", "r/config.json", "r/model.safetensors"), _finish,
        sealed=False,
    ),
    "unfinished folder": Subject(_unfinished, ("r/.datafree.json", "r.run.json"), _finish, sealed=False),
    "repeated run": Subject(_typed, ("r.run.json", "r/run.json"), _repeat, sealed=False),
    "report": Subject(
        _runs,
        ("r/run.json", "t/run.json", "l/run.json", "s/run.json", "t/generated.safetensors", "s/set.json", "r/config.json"),
        _page, sealed=False, slow=True,
    ),
    "similarity": Subject(
        _runs, ("s/set.json", "s/unit-000000.safetensors", "r/record.safetensors", "r/config.json"), _similar, slow=True
    ),
    "inspect": Subject(
        _runs, ("r/record.safetensors", "r/config.json", "r/run.json", "s/set.json"), _look, sealed=False
    ),
}  # fmt: skip
