"""The code that builds a network is an input of a run: its file, what it imports from beside it, and its package."""

from __future__ import annotations

import json
import shutil
import sys

import pytest

from datafree._core import user_code
from datafree._core.code_names import code_name
from datafree._core.files import sha256_file
from datafree.models.input_spec import InputSpec
from datafree.releases import load

BUILD = """
from torch import nn
{imports}
def build(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear({width}, 10))
"""
SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abcdefghij"))


@pytest.fixture
def code(tmp_path, monkeypatch):
    """own.py with a helper that imports another, and a package with one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(BUILD.format(imports="from helper_one import WIDTH", width="WIDTH"))
    (tmp_path / "helper_one.py").write_text("import helper_two\nWIDTH = 64\n")
    (tmp_path / "helper_two.py").write_text("")
    (tmp_path / "not_read.py").write_text("")
    for name in [name for name in sys.modules if name.partition(".")[0] == "of_mine"]:  # of an earlier test
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(user_code, "_FILES", {})
    package = tmp_path / "of_mine" / "nets"
    package.mkdir(parents=True)
    (package / "small.py").write_text(BUILD.format(imports="from .parts import WIDTH", width="WIDTH"))
    (package / "parts.py").write_text("WIDTH = 64\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("own.py:build", ["helper_one.py", "helper_two.py"]),
        ("of_mine.nets.small:build", ["of_mine/nets/parts.py", "of_mine/nets/small.py"]),
    ],
)
def test_the_files_that_code_is_made_of_are_known_once_it_is_loaded(code, name, files):
    for _ in range(2):
        load.new_model(name, SPEC, seed=0)
        found = load.code_files(code_name(name))
        assert [path.relative_to(code.resolve()).as_posix() for path in found] == files


@pytest.mark.parametrize(
    ("name", "changed"),
    [("own.py:build", "helper_two.py"), ("of_mine.nets.small:build", "of_mine/nets/parts.py")],
)
def test_a_result_of_other_code_is_not_complete_and_rerun_says_so(code, command, name, changed):
    line = f"train {name} --data digits --limit 50 --epochs 1 --out net --quiet"
    assert command(line).code == 0
    assert "already complete" in command(line).out
    log = json.loads((code / "net" / "run.json").read_text())
    assert "content of modules of model" in log["inputs"] and str(code) not in json.dumps(log)
    beside = json.loads((code / "net.run.json").read_text())
    assert beside["inputs"][str((code / changed).resolve())] == sha256_file(code / changed)
    with (code / changed).open("a") as file:
        file.write("# other\n")
    done = command(line)
    assert done.code == 2 and "net was made with other content of modules of model: sha256 " in done.err
    done = command("rerun net --out again --trust")
    assert f"note: {(code / changed).resolve()} is not what that run read" in done.out


LATE = """
def build(spec):
    from helper_one import WIDTH
    return __import__("own").build(spec)
"""


def test_what_code_imports_while_it_builds_and_from_other_folders_counts(code, command):
    (code / "late.py").write_text(LATE)
    (code / "elsewhere").mkdir()
    (code / "elsewhere" / "far.py").write_text("WIDTH = 64\n")
    far = "import sys\nsys.path.insert(0, 'elsewhere')\nfrom far import WIDTH"
    (code / "reaching.py").write_text(BUILD.format(imports=far, width="WIDTH"))
    (code / "linked.py").write_text(BUILD.format(imports="from link import WIDTH", width="WIDTH"))
    (code / "link.py").symlink_to(code / "elsewhere" / "far.py")
    for name, files in (
        ("late", {"helper_one.py", "helper_two.py", "own.py"}), ("reaching", {"elsewhere/far.py"}), ("linked", {"link.py"}),
    ):  # fmt: skip
        load.new_model(f"{name}.py:build", SPEC, seed=0)
        found = load.code_files(code_name(f"{name}.py:build"))
        assert {path.relative_to(code).as_posix() for path in found} == files, name
    line = "train late.py:build --data digits --limit 50 --epochs 1 --out net --quiet"
    done = command(line)
    assert "hand over late.py, helper_one.py, helper_two.py, own.py with it" in done.out
    report = "report net --code late.py:build --data digits --out r.html --quiet"
    assert command(report).code == 0 and "already complete" in command(report).out
    (code / "late.py").write_text(LATE + "# other\n")
    assert "r.html was made with other content of late.py" in command(report).err


def test_a_helper_that_was_not_handed_over_is_named(code, command):
    (code / "helper_one.py").unlink()
    done = command("train own.py:build --data digits --epochs 1 --out net --quiet")
    assert done.code == 2
    assert "no module 'helper_one' for model 'own.py'; get helper_one.py from that file's author" in done.err


def test_a_run_of_code_with_a_helper_is_rerun_in_a_copy_of_the_folder(code, command, monkeypatch):
    assert command("train own.py:build --data digits --limit 50 --epochs 1 --out net --quiet").code == 0
    shutil.copytree(code, code.parent / "copy")
    monkeypatch.chdir(code.parent / "copy")
    assert command("rerun net --out again --trust").code == 0


def test_a_result_of_an_earlier_version_is_complete_whatever_its_modules_were(code, command):
    line = "train own.py:build --data digits --limit 50 --epochs 1 --out net --quiet"
    assert command(line).code == 0
    log = json.loads((code / "net" / "run.json").read_text())
    del log["inputs"]["content of modules of model"]
    (code / "net" / "run.json").write_text(json.dumps(log))
    assert "already complete" in command(line).out
