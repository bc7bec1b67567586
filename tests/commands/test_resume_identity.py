"""A stopped run goes on with its own threads and the data that it was begun on, or is refused in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from datafree._core.files import read_header
from datafree.data.dataset import in_memory
from datafree.distillation import training_loop
from datafree.runs.run_log import RunLog

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
    save = training_loop._save

    def saved(*own) -> None:
        save(*own)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "_save", saved)
        assert command(f"{LINE} --threads 2").code == 130
    return tmp_path / "a" / "training.safetensors"


def test_it_goes_on_with_the_threads_it_was_begun_on(stopped, command):
    assert read_header(stopped, kind="training-state")[1]["environment"]["threads"] == 2
    assert "--threads: got 1, expected 2, the threads of the stopped run" in command(f"{LINE} --threads 1").line
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


def write_folder(place, seed: int) -> None:
    """Class folders of pictures whose files have the same names and sizes with every seed."""
    rng = np.random.default_rng(seed)
    for index in range(20):
        (place / str(index % 10)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8)).astype(np.uint8)).save(place / str(index % 10) / f"{index}.bmp")


@pytest.mark.parametrize(
    "line",
    [
        "similarity teacher files --out o --quiet",
        "import-condensed files teacher --anyway --out o --quiet",
        pytest.param("quantize teacher --calibrate files --images 20 --out o --quiet", marks=pytest.mark.slow),
    ],
    ids=lambda line: line.split()[0],
)
def test_a_result_is_not_complete_for_other_pixels_in_files_of_the_same_names_and_sizes(command, here, line):
    if line.startswith("quantize"):
        pytest.importorskip("torchao")
    write_folder(here / "files", 0)
    assert command(line).code == 0
    assert "already complete: " in command(line).out
    log = json.loads((here / "o" / "run.json").read_text())
    write_folder(here / "files", 1)
    assert "o was made with other content of content of " not in command(line).err
    assert "o was made with other content of " in command(line).err
    log["inputs"] = {role: own for role, own in log["inputs"].items() if not role.startswith("content of ")}
    (here / "o" / "run.json").write_text(json.dumps(log))
    assert "already complete: " in command(line).out  # an earlier version's log cannot tell


def test_class_names_alone_make_another_run():
    classes = ("a", "b"), ("a", "c")
    images, labels = np.zeros((2, 1, 2, 2), np.uint8), np.arange(2)
    one, other = (RunLog("evaluate", {}, {}, in_memory("x", "test", own, labels, images)) for own in classes)
    assert one.difference(one.content) is None
    assert other.difference(one.content) == "with other class names of x (test)"
    old = {role: own for role, own in one.content["inputs"].items() if not role.startswith("class names")}
    assert other.difference({**one.content, "inputs": old}) is None


def test_a_page_is_not_complete_for_other_code(command, here):
    line = "report mine --code own.py:build --out r.html"
    assert command("train own.py:build --data digits --epochs 1 --out mine --quiet").code == 0
    assert command(line).code == 0
    assert "already complete: " in command(line).out
    with (here / "own.py").open("a") as file:
        file.write("# other\n")
    assert "r.html was made with other content of own.py: sha256 " in command(line).err
