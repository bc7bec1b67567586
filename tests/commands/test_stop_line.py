"""What the line of a stopped command says of what is there."""

from __future__ import annotations

import pytest

from datafree.__main__ import _stopped


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
