"""What the line of a stopped command says of what is there."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from datafree.cli.main import _TOLD, _leave, _stopped
from datafree.runs.resumable import recording_state


@pytest.mark.parametrize("left", ["o/training.safetensors", "o/unit-000000.safetensors", "o.recording"])
@pytest.mark.parametrize("form", ["--out o", "--out=o"])
def test_a_run_stopped_before_it_opened_what_an_earlier_one_left_says_that_it_is_kept(
    tmp_path, monkeypatch, left, form
):
    monkeypatch.chdir(tmp_path)
    argv = f"train hinton8 --data digits {form}".split()
    assert _stopped(argv).startswith("stopped; no part is complete. Start again with: datafree train")
    (tmp_path / "o").mkdir()
    assert "no part is complete" in _stopped(argv)
    (tmp_path / left).write_bytes(b"")
    assert _stopped(argv).startswith("stopped; the part that is complete is kept. Go on with: datafree train")


def test_a_stop_is_told_while_standard_error_goes_elsewhere(monkeypatch):
    real = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", real)
    monkeypatch.setattr(os, "_exit", lambda _: None)
    _TOLD.clear()
    with redirect_stderr(io.StringIO()):
        _leave(["quantize", "net"], 130)
    assert real.getvalue() == "datafree: stopped; no part is complete. Start again with: datafree quantize net\n"


@pytest.mark.parametrize(("name", "place"), [(".", "a/b.recording"), ("..", "a.recording"), ("c/..", "a/b.recording")])
def test_the_sums_of_a_folder_by_any_name_are_beside_it(tmp_path, monkeypatch, name, place):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    assert recording_state(Path(name)) == tmp_path / place
