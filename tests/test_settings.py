"""What is wrong with settings is told in one line, by the flag that there is, in words that are not pydantic's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import Field

from datafree._core.errors import UserError
from datafree._core.files import write_sealed_json
from datafree._core.settings import Settings, parse
from datafree.models.input_spec import InputSpec
from datafree.releases.quantized import read_config
from datafree.releases.release import Release
from datafree.synthesis.synthetic_set import read_about


class Several(Settings):
    needed: int
    per_channel: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)
    names: tuple[str, ...] = Field(("a", "b"), min_length=2, max_length=3)
    three_numbers: tuple[int, int, int] = (1, 2, 3)
    either: float | str = Field(1.0, union_mode="left_to_right")
    table: dict[str, int] = Field({})
    word: str = Field("ab", min_length=2, max_length=3)
    form: str = Field("ab", pattern="^a")
    even: int = Field(2, multiple_of=2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"per_channel": (1, float("nan"))}, "per_channel: got nan as number 2, expected a finite number"),
        ({"per_channel": (0, 1)}, "per_channel: got 0 as number 1, expected above 0"),
        ({"per_channel": (1, "x")}, "per_channel: got 'x' as number 2, expected a valid number"),
        ({"names": ("a",)}, "names: got ('a',), expected at least 2 items"),
        ({"names": tuple("abcd")}, "names: got ('a', 'b', 'c', 'd'), expected at most 3 items"),
        ({"three_numbers": (1, 2)}, "three_numbers: got (1, 2), expected a number 3 as well"),
        ({"three_numbers": (1, 2, 3, 4)}, "three_numbers: got (1, 2, 3, 4), expected at most 3 items"),
        ({"either": ()}, "either: got (), expected a valid number"),
        ({"table": {"k": "x"}}, "table: got 'x' for the key 'k', expected a valid integer"),
        ({"word": "a"}, "word: got 'a', expected at least 2 characters"),
        ({"word": "abcd"}, "word: got 'abcd', expected at most 3 characters"),
        ({"form": "b"}, "form: got 'b', expected text that matches '^a'"),
        ({"even": 3}, "even: got 3, expected a multiple of 2"),
    ],
    ids=str,
)
def test_a_setting_that_does_not_fit_is_named_by_its_parameter(values, expected):
    with pytest.raises(UserError) as caught:
        parse(Several, {"needed": 1, **values})
    assert str(caught.value) == f"{expected}; give such a value"


def test_a_setting_that_is_missing_is_named_by_its_parameter():
    with pytest.raises(UserError, match=r"^needed: got nothing, expected a value, since it has no default; give one$"):
        parse(Several, {})


SPEC = {"shape": [1, 8, 8], "mean": [0.0], "std": [1.0], "low": 0.0, "high": 1.0, "classes": ["a", "b"]}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("low", False), ("high", True), ("high", "1.0"), ("shape", [True, 8, 8]), ("shape", [1.0, 8, 8]),
        ("shape", ["1", 8, 8]), ("mean", [False]), ("std", ["1"]), ("classes", [1, 2]), ("classes", "ab"),
    ],
)  # fmt: skip
def test_a_value_of_another_json_type_in_a_file_is_refused(field, value):
    assert InputSpec.stored({**SPEC, "low": 0, "mean": [0], "high": 1}, "file") == InputSpec.stored(SPEC, "file")
    with pytest.raises(UserError, match=f"^{field}: got .*, expected "):
        InputSpec.stored({**SPEC, field: value}, "file")


@pytest.mark.parametrize("number", [True, 1.0, "1", None, 2])
def test_a_format_that_is_no_whole_1_is_refused_in_every_file(number, tmp_path):
    about = {"format": number, "spec": SPEC, "architecture": "hinton8", "kind": "quantized", "sha256": {}}
    about |= {"method": {"method": "top"}, "seed": 0, "unit": 1, "teacher": "0" * 64, "record": None}
    (tmp_path / "r").mkdir()
    write_sealed_json(tmp_path / "r" / "config.json", about)
    with pytest.raises(UserError, match="format"):
        read_config(tmp_path / "r")
    write_sealed_json(tmp_path / "r" / "config.json", {**about, "kind": None})
    with pytest.raises(UserError, match="format"):
        Release.open(tmp_path / "r")
    kept = ("format", "method", "seed", "unit", "teacher", "record", "spec")
    write_sealed_json(tmp_path / "r" / "set.json", {**{key: about[key] for key in kept}, "images": 1, "shards": None})
    with pytest.raises(UserError, match="format"):
        read_about(tmp_path / "r")


SETS = """
import datafree as df

class Sets(df.Settings):
    names: set[str] = {"b", "a", "d", "c", "e"}
    numbers: frozenset[int] = frozenset({10, 9, 100})
    mixed: set[int | str] = {"b", 2, "a", 10}
    table: dict[str, set[str]] = {"x": {"b", "a", "c"}, "y": {"z"}}
    groups: tuple[frozenset[str], ...] = (frozenset({"b", "a", "c"}),)

print(Sets().model_dump_json())
"""


def test_sets_are_stored_sorted_in_every_process():
    stored = {
        subprocess.run(
            [sys.executable, "-c", SETS], env={**os.environ, "PYTHONHASHSEED": str(seed)}, capture_output=True,
            text=True, check=True,
        ).stdout
        for seed in range(3)
    }  # fmt: skip
    (text,) = stored
    values = json.loads(text)
    assert values["names"] == ["a", "b", "c", "d", "e"] and values["numbers"] == [9, 10, 100]
    assert values["mixed"] == [2, 10, "a", "b"]
    assert values["table"] == {"x": ["a", "b", "c"], "y": ["z"]} and values["groups"] == [["a", "b", "c"]]


def test_a_stored_value_may_be_the_default_that_is_not_written():
    spec = InputSpec(shape=(1, 2, 2), classes=("a", "b"))
    assert "border" not in spec.model_dump(mode="json")
    assert InputSpec.stored({**spec.model_dump(mode="json"), "border": None}, "some.json") == spec


@pytest.mark.parametrize("border", ["red", None, (0.5,)])
def test_a_border_is_one_of_two_words(border):
    with pytest.raises(UserError, match=r"^no border '.*'; expected one of 'black', 'mean'$"):
        InputSpec(shape=(1, 2, 2), classes=("a", "b")).with_border(border)
