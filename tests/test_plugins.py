"""Methods by name: the user's own classes, installed plug-ins, and that a name out of a file runs no code."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
import torch

import datafree as df
from datafree._core import plugins
from datafree._core.code_names import without_code
from datafree._core.errors import Notice, UserError
from datafree.data.condensed import methods as condensing
from datafree.distillation import replay
from datafree.models.network import Network
from datafree.records import statistics
from datafree.synthesis import methods
from datafree.synthesis.losses import alignment
from datafree.synthesis.methods import Batch, chunk_labels

OWN = """
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal
import torch
from datafree import Settings
from datafree._core.seeds import stream
from datafree.synthesis.methods import Batch, chunk_labels

Path("ran").write_text("")

class Grey(Settings):
    method: Literal["grey"] = "grey"
    level: float = 0.5
    summary: ClassVar[str] = "images of one grey with noise"
    in_range: ClassVar[bool] = True
    targeted: ClassVar[bool] = False

    def bind(self, teacher, record):
        return Bound(teacher, self)

@dataclass(frozen=True)
class Bound:
    teacher: Any
    settings: Grey

    def chunk(self, index, seed, size):
        noise = torch.rand(size, *self.teacher.spec.shape, generator=stream(seed, "grey", index))
        return Batch(self.settings.level * noise, chunk_labels(index, size, len(self.teacher.spec.classes)))

class Unnamed(Settings):
    def bind(self, teacher, record): ...

class Taken(Grey):
    method: Literal["bns"] = "bns"

class Verbless(Settings):
    method: Literal["verbless"] = "verbless"
    summary: ClassVar[str] = ""
    in_range: ClassVar[bool] = True

class Plain:
    method = "plain"
"""
COUNTED = """
from typing import ClassVar, Literal
from datafree import Settings
from datafree.distillation.replay.none import NoReplay
from datafree.data.condensed.methods.random import RandomImages
from datafree.synthesis.losses.alignment.means import Means
from datafree.records.statistics.input import InputMoments

class Forget(NoReplay):
    replay: Literal["forget"] = "forget"

class First(RandomImages):
    method: Literal["first"] = "first"

class Near(Means):
    alignment: Literal["near"] = "near"

class Sums(InputMoments):
    kind: Literal["sums"] = "sums"
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(plugins, "_FILES", {})
    return tmp_path


def line(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Black(df.Settings):
    """A method in the user's own program."""

    method: Literal["black"] = "black"
    level: float = 0.0
    summary: ClassVar[str] = "black images"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):  # noqa: ARG002
        return BoundBlack(teacher, self)


@dataclass(frozen=True)
class BoundBlack:
    teacher: Network
    settings: Black

    def chunk(self, index, seed, size):  # noqa: ARG002
        pixels = torch.full((size, *self.teacher.spec.shape), self.settings.level)
        return Batch(pixels, chunk_labels(index, size, len(self.teacher.spec.classes)))


@pytest.mark.usefixtures("here")
def test_a_method_of_the_users_program_works_in_every_function(teacher):
    method = Black(level=1.0)
    assert float(df.sample(teacher, method, n=4).pixels.min()) == 1.0
    made = df.synthesize(teacher, None, method, "set", images=4, workers=1)
    assert {**made.about["method"], "code": None} == {"method": "black", "level": 1.0, "code": None}
    assert float(df.fresh_images(method, teacher, images=4).bound_method.chunk(0, 0, 2).pixels.max()) == 1.0
    with pytest.warns(Notice, match="near chance"):
        student = df.distill(teacher, "hinton8", method=method, epoch_images=32, epochs=1)
    assert student.training.learned_from == "fresh images of black"


def test_a_class_of_a_file_is_a_name_with_settings_wherever_a_method_is_named(teacher, here):
    samples = df.sample(teacher, {"method": "own.py:Grey", "level": 0.1}, n=6)
    assert float(samples.pixels.max()) <= 0.1
    by_name = df.method("own.py:Grey", level=0.1)
    assert type(by_name).__name__ == "Grey" and by_name.method == "grey"
    assert type(by_name) is type(df.method("own.py:Grey"))
    made = df.synthesize(teacher, None, "own.py:Grey", "set", images=6, workers=1)
    assert {**made.about["method"], "code": None} == {
        "method": "grey",
        "level": 0.5,
        "code": None,
        "targeted": False,
    } and not made.targeted
    assert "no setting 'levle'" in line(lambda: df.method("own.py:Grey", levle=1))
    (here / "own.py").write_text(OWN.replace("level: float = 0.5", "level: float = 0.25, "[:-2]))
    assert df.method("own.py:Grey").level == 0.25


def test_a_class_of_a_module_is_found_from_the_working_directory(here):
    (here / "mine_for_plugins.py").write_text(OWN)
    try:
        assert df.method("mine_for_plugins:Grey").level == 0.5
    finally:
        sys.modules.pop("mine_for_plugins", None)


def test_every_family_takes_the_users_classes(teacher, digits, here):
    (here / "more.py").write_text(COUNTED)
    few = df.condense("more.py:First", data=digits, per_class=1, teacher=teacher)
    assert few.about["made"]["method"] == "first" and len(few) == 10
    options = {"epochs": 1, "iterations": 1, "student_steps": 1, "batch": 8, "latent": 4}
    student = df.distill_online(
        teacher, "hinton8", replay="more.py:Forget", condensed=few, alignment="more.py:Near", **options
    )
    assert student.training.replay.replay == "forget"
    statistic = statistics.from_dict({"kind": "more.py:Sums"})
    assert statistic.kind == "sums" and statistics.FAMILY.known("sums") is type(statistic)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("own.py:Gray", "no class 'Gray' in own.py; nearest: 'Grey'"),
        ("nosuch.py:Grey", "no file nosuch.py, expected the Python file of the class Grey; check the path"),
        ("own.py:", "synthesis method 'own.py:' names no class, expected file.py:Class or package.module:Class"),
        ("no_such_module:Grey", "no module 'no_such_module' for synthesis method 'no_such_module'"),
        ("own.py:Unnamed", "Unnamed has no name, expected the setting 'method' with one as its default"),
        ("own.py:Taken", "the method 'bns' is built in; give Taken another name"),
        ("own.py:Verbless", "Verbless has no 'bind', expected method, summary, in_range, bind of a synthesis method"),
        ("own.py:Plain", "Plain is no synthesis method, expected a subclass of datafree.Settings"),
        ("broken.py:Grey", "the code of synthesis method 'broken.py' fails with ZeroDivisionError"),
        ("syntax.py:Grey", "fails with SyntaxError"),
        ("leaving.py:Grey", "fails with SystemExit"),
    ],
)
def test_a_class_that_cannot_be_a_method_is_one_line(teacher, here, name, text):
    (here / "broken.py").write_text("1 / 0")
    (here / "syntax.py").write_text("class :")
    (here / "leaving.py").write_text("raise SystemExit(1)")
    assert text in line(lambda: df.synthesize(teacher, None, name, "set", images=4))
    assert not (here / "set").exists()


def test_objects_that_cannot_be_a_method_are_one_line(teacher):
    assert "method: got the class Black, expected" in line(lambda: df.sample(teacher, Black))
    assert "expected text or a dict or a Synthesizer" in line(lambda: df.sample(teacher, object()))


def test_a_name_out_of_a_file_runs_no_code(teacher, here):
    made = df.synthesize(teacher, None, "gaussian", "set", images=4, workers=1)
    (here / "ran").unlink(missing_ok=True)
    about = json.loads((here / "set" / "set.json").read_text())
    about["method"] = {"method": "own.py:Grey"}
    assert made.targeted is False
    assert type(made)(made.folder, about).targeted is True
    with pytest.raises(UserError, match=r"no statistic 'own\.py:Grey'"):
        statistics.from_dict({"kind": "own.py:Grey"}, strict=True)
    with pytest.raises(UserError, match="no synthesis method"):
        methods.FAMILY.from_dict({"method": "own.py:Grey"}, typed=False)
    assert not (here / "ran").exists()


def test_a_rerun_of_somebody_elses_log_runs_no_code(here):
    with (
        without_code(),
        pytest.raises(UserError, match=r"runs the code 'own\.py', which datafree rerun does only with --trust"),
    ):
        df.method("own.py:Grey")
    assert not (here / "ran").exists()


# -- installed plug-ins ------------------------------------------------------------


@pytest.fixture
def install(here, monkeypatch):
    """Puts a distribution with these entry points on the path."""

    def add(**points: str) -> None:
        info = here / "plugged-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
        lines = [f"{name.replace('_', '-')} = {value}" for name, value in points.items()]
        (info / "entry_points.txt").write_text("[datafree.methods]\n" + "\n".join(lines) + "\n")
        for name in ("plugged_in", "plugged_bad", "plugged_more"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        (here / "plugged_in.py").write_text(OWN)
        (here / "plugged_more.py").write_text(COUNTED)
        (here / "plugged_bad.py").write_text("1 / 0")
        monkeypatch.syspath_prepend(str(here))
        importlib.invalidate_caches()

    yield add
    for name in ("plugged_in", "plugged_bad", "plugged_more"):
        sys.modules.pop(name, None)


def test_installed_plugins_are_found_by_name_in_their_own_family(teacher, install, here):
    install(grey="plugged_in:Grey", forget="plugged_more:Forget", first="plugged_more:First", near="plugged_more:Near")
    assert not (here / "ran").exists()
    assert df.method("grey", level=0.2).level == 0.2 and (here / "ran").exists()
    assert float(df.sample(teacher, "grey", n=3).pixels.max()) <= 0.5
    assert "grey" in methods.methods() and "first" not in methods.methods()
    assert "first" in condensing.methods() and "grey" not in condensing.methods()
    assert "forget" in replay.kinds() and "near" in alignment.kinds()
    assert "no synthesis method 'forget'" in line(lambda: df.method("forget"))


def test_a_broken_plugin_is_a_notice_and_an_error_only_for_whom_names_it(teacher, install):
    install(bad="plugged_bad:Grey", bns="plugged_in:Grey", other="plugged_in:Grey", gone="plugged_none:Grey")
    assert df.sample(teacher, "gaussian", n=2).pixels.shape[0] == 2
    with pytest.warns(Notice) as caught:
        names = methods.methods()
    texts = sorted(str(warning.message) for warning in caught)
    assert [text.split(" of ")[0] for text in texts] == ["plug-in 'bad'", "plug-in 'gone'", "plug-in 'other'"]
    assert "fails with ZeroDivisionError" in texts[0] and "has the method 'grey', expected 'other'" in texts[2]
    assert not {"bad", "gone", "other", "grey"} & set(names) and names["bns"].__module__.startswith("datafree.")
    text = line(lambda: df.method("bad"))
    assert (
        text.startswith("plug-in 'bad' of plugged (plugged_bad:Grey) fails with ZeroDivisionError") and "update" in text
    )


def test_no_plugin_is_loaded_for_somebody_elses_log(install, here):
    install(grey="plugged_in:Grey")
    with without_code():
        assert "grey" not in methods.methods()
        assert "no synthesis method 'grey'" in line(lambda: df.method("grey"))
    assert not (here / "ran").exists()
