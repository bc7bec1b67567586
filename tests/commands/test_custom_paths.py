"""A path among the settings of a class of the user's own is in no shared folder: its content's hash is."""

from __future__ import annotations

import json

import pytest

import datafree as df
from datafree._core.files import sha256_file

METHOD = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

import datafree as df
from datafree.distillation.replay.none import NoReplay
from datafree.synthesis.methods import Batch, chunk_labels


class Mine(df.Settings):
    method: Literal["mine"] = "mine"
    table: Path
    """File with a grey."""
    others: list[Path] = []
    summary: ClassVar[str] = "the grey of a file"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):
        return Bound(self, teacher)


class Memory(NoReplay):
    replay: Literal["mine"] = "mine"
    table: Path


@dataclass(frozen=True)
class Bound:
    settings: Any
    teacher: Any

    def chunk(self, index, seed, size):
        grey = float(self.settings.table.read_text())
        return Batch(torch.full((size, *self.teacher.spec.shape), grey), chunk_labels(index, size, 10))
'''


@pytest.fixture
def mine(here):
    (here / "mine.py").write_text(METHOD)
    (here / "private").mkdir()
    (here / "private" / "grey.txt").write_text("0.5")
    return here


def _has_path(folder):
    texts = {path.name: path.read_text("utf-8", "replace") for path in folder.iterdir() if path.is_file()}
    return [name for name, text in texts.items() if "grey.txt" in text or "private" in text]


def test_a_set_states_the_hash_of_the_file_and_does_not_grow_with_another(command, mine):
    line = "synthesize mine.py:Mine teacher --table private/grey.txt --others private --chunk 8 --quiet --out a"
    assert command(f"{line} --images 8").code == 0
    digest = f"file {sha256_file(mine / 'private' / 'grey.txt')[:12]}"
    run = json.loads((mine / "a" / "run.json").read_text())
    about = json.loads((mine / "a" / "set.json").read_text())
    assert run["settings"]["table"] == about["method"]["table"] == digest
    assert run["settings"]["others"] == about["method"]["others"] and _has_path(mine / "a") == []
    private = json.loads((mine / "a.run.json").read_text())["settings"]
    assert (private["table"], private["others"]) == ("private/grey.txt", ["private"])
    assert command(f"{line} --images 16").code == 0
    assert command("rerun a --out b --trust").code == 0
    (mine / "private" / "grey.txt").write_text("0.75")
    assert "a was made with --table file" in command(f"{line} --images 24").line


def test_training_and_online_training_state_the_hash_too(command, mine):
    fresh = "distill fresh mine.py:Mine teacher hinton8 --table private/grey.txt --epochs 1 --epoch-images 16"
    online = "distill online teacher hinton8 --replay mine.py:Memory --table private/grey.txt --epochs 1 --iterations 2"
    for line, folder in ((f"{fresh} --quiet --out f", "f"), (f"{online} --batch 16 --quiet --out o", "o")):
        done = command(line)
        assert done.code == 0, done.err
        assert _has_path(mine / folder) == []
        assert f"file {sha256_file(mine / 'private' / 'grey.txt')[:12]}" in (mine / folder / "run.json").read_text()
        assert "already complete" in command(line).out


def test_a_set_and_a_student_from_python_state_the_hashes_of_file_and_code(mine):
    teacher = df.load_model("teacher")
    method = df.method("mine.py:Mine", table=mine / "private" / "grey.txt")
    made = df.synthesize(teacher, None, method, mine / "a", images=8, chunk=8, workers=1)
    run = json.loads((mine / "a" / "run.json").read_text())
    assert run["settings"]["code"] == made.about["method"]["code"] == json.loads(
        (mine / "a" / "set.json").read_text()
    )["method"]["code"]  # fmt: skip
    assert len(run["settings"]["code"]) == 64 and _has_path(mine / "a") == []
    with pytest.warns(match="near chance"):
        student = df.distill(teacher, "hinton8", method=method, epoch_images=16, settings={"epochs": 1})
    df.save_student(mine / "s", student)
    assert _has_path(mine / "s") == []
