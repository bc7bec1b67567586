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
    shares: dict[str, float] = {"all": 0.5}
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
    done = command(f"""{line} --shares '{{"all": 2}}' --sizes '[4, 5]'""")
    assert done.code == 0, done.err
    method = json.loads((grey / "t" / "set.json").read_text())["method"]
    assert (method["shares"], method["sizes"], method["count"]) == ({"all": 2.0}, [4, 5], 3)


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
        ("--count 3 --shares all=1", """--shares: got 'all=1', expected a table, such as {"a": 1}"""),
        ("extra --count 3", "unexpected argument 'extra', expected a flag before each value"),
        ("", "synthesize grey.py:Tables needs --count, which was not given."),
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


LITERALS = """
from typing import ClassVar, Literal

from pydantic import Field

from grey import Grey


class Chosen(Grey):
    method: Literal["chosen"] = "chosen"
    level: Literal[1, 2, 3] = 1
    mode: Literal["auto", 1, True] | None = None
    on: Literal[False, True] = False
    steps: list[Literal[1, 2]] = [1]
    text: Literal["1", "2"] = "1"
    table: dict[str, float] = {}
    lists: dict[str, list[int]] | None = None
    count: int
    need: bool
"""


@pytest.fixture
def chosen(grey):
    (grey / "chosen.py").write_text(LITERALS)
    return grey


CHOSEN = "synthesize chosen.py:Chosen teacher --images 8 --chunk 8 --quiet --out c"


def test_choices_that_are_no_text_are_set_from_the_command_line(command, chosen):
    line = f"{CHOSEN} --count 1 --need --level 2 --mode 1 --on true --steps 2 --steps 1 --text 2"
    done = command(line)
    assert done.code == 0, done.err
    method = json.loads((chosen / "c" / "set.json").read_text())["method"]
    assert (method["level"], method["mode"], method["on"], method["steps"], method["text"]) == (2, 1, True, [2, 1], "2")
    assert type(method["mode"]) is int and "already complete" in command(line).out


@pytest.mark.usefixtures("chosen")
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("--count 1 --need --level 4", "--level: got 4, expected 1, 2 or 3"),
        (
            '--count 1 --need --table \'{"a": 1, "b": "x"}\'',
            "--table: got 'x' for the key 'b', expected a valid number",
        ),
        (
            '--count 1 --need --lists \'{"a": [1, "x"]}\'',
            "--lists: got 'x' as number 2 for the key 'a', expected a valid integer",
        ),
        ("--need", "synthesize chosen.py:Chosen needs --count, which was not given."),
        ("--count 1", "synthesize chosen.py:Chosen needs --need, which was not given."),
    ],
)
def test_what_is_wrong_with_a_setting_names_the_key_and_what_is_required(command, options, text):
    assert command(f"{CHOSEN} {options}").line.startswith(text)


@pytest.mark.usefixtures("chosen")
def test_a_field_without_default_is_shown_as_required(command):
    text = " ".join(command("synthesize chosen.py:Chosen --help").out.replace("│", " ").split())
    for flag in ("--count", "--need --no-need"):
        assert text.rpartition(f" {flag}")[2].split()[:2].count("[required]"), text
    text = " ".join(command("synthesize grey.py:Grey --help").out.replace("│", " ").split())
    assert "[required]" not in text.partition("--brightness")[2][:60]


@pytest.mark.usefixtures("grey")
@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            "synthesize grey.py teacher --out o",
            "grey.py names no class, expected grey.py:Class; add the name of the class",
        ),
        (
            "synthesize missing.py:Grey teacher --out o",
            "no file missing.py, expected the Python file of the class Grey",
        ),
        ("distill fresh grey.py teacher hinton8 --out o", "grey.py names no class, expected grey.py:Class"),
        ("record grey.py teacher --data digits", "grey.py names no class, expected grey.py:Class"),
        ("condense grey.py --data digits --per-class 1 --out o", "grey.py names no class, expected grey.py:Class"),
        ("distill online teacher hinton8 --replay grey.py --out o", "grey.py names no class, expected grey.py:Class"),
        (
            "distill online teacher hinton8 --replay no.py:X --out o",
            "no file no.py, expected the Python file of the class X",
        ),
    ],
)
def test_a_file_without_the_name_of_a_class_and_a_missing_file_are_said(command, line, text):
    assert command(line).line.startswith(text)
