"""A method of the user's own, named file.py:Class: its flags are in --help, and a run with it can be repeated."""

from __future__ import annotations

import json

import pytest

from datafree.synthesis.synthetic_set import SyntheticSet

METHOD = '''
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from datafree import Settings
from datafree.synthesis.methods import Batch, chunk_labels


class Grey(Settings):
    """Images of one grey."""

    method: Literal["grey"] = "grey"
    brightness: float = Field(default=0.25, ge=0, le=1)
    """Grey of every pixel."""

    summary: ClassVar[str] = "one grey everywhere"
    targeted: ClassVar[bool] = False
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


class Tables(Grey):
    method: Literal["tables"] = "tables"
    weights: dict[str, float] = {"all": 0.5}
    """Weight of each layer."""
    sizes: list[int] = Field(default_factory=list)
    names: tuple[str, ...] | None = None
    count: int


class Other:
    pass
'''


@pytest.fixture
def grey(here):
    (here / "grey.py").write_text(METHOD)
    return here


@pytest.mark.usefixtures("grey")
def test_its_fields_are_flags_in_the_help(command):
    out = command("synthesize grey.py:Grey --help").out
    assert "--brightness" in out and "Grey of every pixel." in out and "one grey everywhere" in out
    assert "--brightness" in command("distill fresh grey.py:Grey --help").out


def test_it_runs_and_its_run_is_repeated_with_trust_alone(command, grey):
    done = command("synthesize grey.py:Grey teacher --brightness 0.75 --images 8 --chunk 8 --out a --quiet")
    assert done.code == 0, done.err
    about = json.loads((grey / "a" / "set.json").read_text())
    assert {**about["method"], "code": None} == {
        "method": "grey", "brightness": 0.75, "code": None, "targeted": False,
    }  # fmt: skip
    done = command("rerun a --out b")
    assert done.code == 2 and "runs the code 'grey.py:Grey'" in done.err and not (grey / "b").exists()
    assert command("rerun a --out b --trust").code == 0
    assert json.loads((grey / "b" / "set.json").read_text())["method"] == about["method"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("synthesize grey.py:Grey teacher --brightness 2 --out o", "--brightness: got 2, "),
        ("synthesize grey.py:Gray teacher --out o", "no class 'Gray' in grey.py"),
        ("synthesize grey.py:Other teacher --out o", "Other is no synthesis method"),
        ("synthesize nosuch.py:Grey teacher --out o", "nosuch.py"),
        ("synthesize grey.py:Grey teacher --darkness 2 --out o", "no flag '--darkness'; nearest: '--brightness'"),
    ],
)
def test_what_is_wrong_is_one_line(grey, refused, line, text):
    assert text in refused(line)
    assert grey.exists()


@pytest.mark.usefixtures("grey")
def test_tables_and_lists_are_flags_that_take_json(command, grey):
    text = " ".join(command("synthesize grey.py:Tables --help").out.replace("│", " ").split())
    assert 'Weight of each layer. As JSON. [default: {"all": 0.5}]' in text and "--sizes STR... Repeat it" in text
    line = "synthesize grey.py:Tables teacher --images 8 --chunk 8 --quiet --count 3 --out t"
    done = command(f"""{line} --weights '{{"all": 2}}' --sizes '[4, 5]'""")
    assert done.code == 0, done.err
    method = json.loads((grey / "t" / "set.json").read_text())["method"]
    assert (method["weights"], method["sizes"], method["count"]) == ({"all": 2.0}, [4, 5], 3)


def test_a_list_is_a_repeated_flag_too_and_flags_may_stand_before_the_teacher(command, grey):
    line = (
        "synthesize grey.py:Tables --count 3 --sizes 4 --sizes 5 --names a --names b teacher --images 8 --out t --quiet"
    )
    assert command(line).code == 0
    method = json.loads((grey / "t" / "set.json").read_text())["method"]
    assert (method["sizes"], method["names"]) == ([4, 5], ["a", "b"])
    assert command("rerun t --out t2 --trust").code == 0
    assert json.loads((grey / "t2" / "set.json").read_text())["method"] == method


@pytest.mark.usefixtures("grey")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--count 3 --sizes 4,5", "--sizes: got '4,5' as number 1, expected a valid integer"),
        ("--count 3 --sizes [x]", "--sizes: got '[x]' as number 1, expected a valid integer"),
        (
            "--count 3 --sizes 4 5",
            "unexpected argument '5', expected a flag before each value (repeat it for more than one)",
        ),
        ("--count 3 --weights all=1", """--weights: got 'all=1', expected a table, such as {"a": 1}"""),
        ("extra --count 3", "unexpected argument 'extra', expected a flag before each value"),
        ("", "--count: got nothing, expected a value"),
    ],
)
def test_a_list_that_is_none_and_a_field_without_default_are_named(command, options, text):
    done = command(f"synthesize grey.py:Tables teacher --images 8 --out t {options}")
    assert done.code == 2 and done.err.startswith(f"datafree: {text}") and done.err.count("\n") == 1


def test_a_set_without_target_classes_is_not_judged_by_them_in_another_process(command, grey):
    command("synthesize grey.py:Grey teacher --images 8 --chunk 8 --out u --quiet")
    about = json.loads((grey / "u" / "set.json").read_text())
    about["method"]["method"] = "a-name-that-this-process-has-not-loaded"
    assert SyntheticSet(grey / "u", about).targeted is False
