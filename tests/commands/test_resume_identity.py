"""A stopped run goes on with its own threads and the data that it was begun on, or is refused in one line."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from datafree import fit
from datafree.files import read_header

LINE = "train hinton8 --data data.npz --epochs 2 --out a --quiet"


class Stopped(KeyboardInterrupt):
    pass


def write_data(path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    np.savez(path, images=rng.integers(0, 256, (60, 4, 4)).astype(np.uint8), labels=np.arange(60) % 3)


@pytest.fixture
def stopped(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data("data.npz", 0)
    save = fit._save

    def saved(*own) -> None:
        save(*own)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(fit, "_save", saved)
        assert command(f"{LINE} --threads 2").code == 130
    return tmp_path / "a" / "training.safetensors"


def test_it_goes_on_with_the_threads_it_was_begun_on(stopped, command):
    assert read_header(stopped, kind="training-state")[1]["environment"]["threads"] == 2
    assert "--threads: got 1, expected 2, on which the stopped run" in command(f"{LINE} --threads 1").line
    used, before = [], torch.set_num_threads
    torch.set_num_threads = lambda count: (used.append(count), before(count))[1]
    try:
        assert command(LINE).code == 0
    finally:
        torch.set_num_threads = before
    assert used[0] == 2


def test_it_does_not_go_on_with_other_data(stopped, command):
    before = stopped.read_bytes()
    write_data("data.npz", 1)
    assert "a holds an unfinished run with other content of an .npz file (train): sha256 " in command(LINE).line
    (stopped.parent / ".datafree.json").write_text('{"kind":"release"}\n')  # without what names the run
    assert "is of a run with other data or input files" in command(LINE).line
    assert stopped.read_bytes() == before
