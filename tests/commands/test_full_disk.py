"""A disk that is full at any moment: one line, old files intact, and the same command finishes once there is space."""

from __future__ import annotations

import errno
import os
import shutil

import pytest

from datafree._core.files import read_tensors, read_weights
from datafree._core.files.atomic import TEMPORARY

LINES = {
    "train hinton16 --data digits --limit 200 --epochs 2 --out new --quiet": "new/model.safetensors",
    "record teacher --replace --data digits --limit 200 --preset small --quiet": "teacher/record.safetensors",
    "synthesize top teacher --images 16 --chunk 8 --steps 1 --out new --quiet": "new/unit-000001.safetensors",
    "distill teacher --set set --epochs 2 --out new --quiet": "new/model.safetensors",
    "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out new": "new/model.safetensors",
}

LONG = ("synthesize", "distill", "pack")
"""Verbs whose disk is full in the slow tests alone."""


def whole(folder) -> int:
    """Reads every tensor file below; a part of a file would be refused."""
    files = [path for path in folder.rglob("*.safetensors") if "evil" not in path.name]
    for path in files:
        kind = {"record.safetensors": "record", "training.safetensors": "training-state"}.get(path.name)
        if path.name == "model.safetensors":
            read_weights(path)
        else:
            read_tensors(path, kind=kind or "shard")
    assert not [path for path in folder.rglob("*") if TEMPORARY.fullmatch(path.name)]
    return len(files)


@pytest.mark.parametrize(
    "line",
    [pytest.param(line, id=(verb := line.split()[0]), marks=[pytest.mark.slow] * (verb in LONG)) for line in LINES],
)
def test_a_full_disk_at_any_write_is_one_line_and_loses_nothing(command, here, monkeypatch, line):
    """Every call of fsync fails once, in a folder of its own; then the command is given again."""
    real, calls = os.fsync, []

    def run_with(failing: int | None):
        calls.clear()

        def fsync(number: int) -> None:
            calls.append(number)
            if len(calls) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(number)

        with monkeypatch.context() as inside:
            inside.setattr(os, "fsync", fsync)
            return command(line)

    whole_copy = here.parent / "copy"
    shutil.copytree(here, whole_copy)
    assert run_with(None).code == 0
    wanted, count = (here / LINES[line]).read_bytes(), len(calls)
    assert count >= 4
    refused = 0
    for failing in range(1, count + 1):
        shutil.rmtree(here)
        shutil.copytree(whole_copy, here)
        monkeypatch.chdir(here)
        done = run_with(failing)
        if done.code == 0:  # what failed was tidying: the result is there
            assert (here / LINES[line]).read_bytes() == wanted
        else:
            assert done.code == 2 and done.err.startswith("datafree: ") and done.err.count("\n") == 1, done.err
            assert "No space left on device" in done.err
            refused += 1
        assert whole(here) >= 5
        assert run_with(None).code == 0, failing
        assert (here / LINES[line]).read_bytes() == wanted
    assert refused >= 4
