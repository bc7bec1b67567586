"""The code of a class of the user's own: its file, its parent's, and the modules that these import."""

from __future__ import annotations

import hashlib
import json

import pytest

from datafree._core.files import sha256_file
from datafree._core.imported_files import imported_files

METHOD = """
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from datafree import Settings
from datafree.synthesis.methods import Batch, chunk_labels


class Grey(Settings):
    method: Literal["grey"] = "grey"
    brightness: float = 0.25
    summary: ClassVar[str] = "one grey everywhere"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):
        return Bound(self, teacher)


@dataclass(frozen=True)
class Bound:
    settings: Any
    teacher: Any

    def chunk(self, index, seed, size):
        labels = chunk_labels(index, size, len(self.teacher.spec.classes))
        return Batch(torch.full((size, *self.teacher.spec.shape), self.settings.brightness), labels)
"""
CHILD = """
from grey import Grey
from typing import Literal
import grey
from beside.level import LEVEL

class Child(Grey):
    method: Literal["child"] = "child"
    def bind(self, teacher, record):
        return grey.Bound(self.model_copy(update={"brightness": LEVEL}), teacher)
"""
LOSS = """
from dataclasses import dataclass
from datafree.synthesis.losses import Term
from beside.level import LEVEL

@dataclass(frozen=True)
class Contrast(Term):
    def __call__(self, view):
        return -LEVEL * view.pixels.flatten(1).var(1).sum()
"""


@pytest.fixture
def child(here):
    (here / "grey.py").write_text(METHOD)
    (here / "child.py").write_text(CHILD)
    (here / "loss.py").write_text(LOSS)
    (here / "beside").mkdir()
    (here / "beside" / "level.py").write_text("import json\nLEVEL = 0.25\n")
    return here


def _edit(path):
    path.write_text(f"{path.read_text()}# other\n")


@pytest.mark.parametrize("edited", ["beside/level.py", "grey.py"])
def test_a_set_does_not_grow_with_another_helper_or_parent(command, child, edited):
    line = "synthesize child.py:Child teacher --chunk 8 --quiet --out a"
    assert command(f"{line} --images 8").code == 0
    logged = json.loads((child / "a" / "run.json").read_text())["inputs"]
    assert {"code of method", "content of modules of method"} <= logged.keys()
    assert command(f"{line} --images 16").code == 0
    _edit(child / edited)
    done = command(f"{line} --images 24")
    assert done.code == 2 and "with other content of modules of method" in done.err, done.err
    (child / "a" / "run.json").unlink()
    done = command(f"{line} --images 24")
    assert done.code == 2 and "a set of other code of its method (sha256 " in done.err, done.err
    assert f"note: {child / edited} is not what that run read" in command("rerun a --out b --trust").out


def test_a_student_of_a_method_with_another_helper_is_not_complete(command, child):
    line = "distill fresh child.py:Child teacher hinton8 --epochs 1 --epoch-images 16 --quiet --out s"
    assert command(line).code == 0
    assert "already complete" in command(line).out
    _edit(child / "beside" / "level.py")
    assert "with other content of modules of method" in command(line).err


def test_the_modules_of_an_extra_loss_count(command, child):
    line = "synthesize top teacher --extra-loss loss.py:Contrast --chunk 8 --steps 2 --workers 1 --images 8 --quiet --out a"
    assert command(line).code == 0
    assert "already complete" in command(line).out
    _edit(child / "beside" / "level.py")
    assert "with other content of modules of extra loss" in command(line).err
    (child / "a" / "run.json").unlink()
    assert "a set of other code of its method (sha256 " in command(line).err


def test_a_class_that_imports_nothing_of_the_users_keeps_its_hash(command, child):
    assert command("synthesize grey.py:Grey teacher --images 8 --chunk 8 --quiet --out a").code == 0
    stored = json.loads((child / "a" / "set.json").read_text())["method"]["code"]
    assert stored == hashlib.sha256(sha256_file(child / "grey.py").encode()).hexdigest()
    assert "content of modules of method" not in json.loads((child / "a" / "run.json").read_text())["inputs"]


def test_imports_are_found_in_functions_packages_and_circles(tmp_path):
    package = tmp_path / "pack" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("from . import one")
    (package / "one.py").write_text("from ..two import x\nfrom .. import three\nimport torch, json")
    (tmp_path / "pack" / "two.py").write_text("def f():\n    from .inner import one\n")
    (tmp_path / "pack" / "three.py").write_text("this is no Python")
    (tmp_path / "own.py").write_text("import pack.inner.one\nimport own\nimport missing")
    found = {path.relative_to(tmp_path).as_posix() for path in imported_files(tmp_path / "own.py")}
    assert found == {
        "pack/__init__.py", "pack/inner/__init__.py", "pack/inner/one.py", "pack/two.py", "pack/three.py",
    }  # fmt: skip
