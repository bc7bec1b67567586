"""Promises of JSON files: one spelling out, only plain and bounded values in."""

from __future__ import annotations

import os

import pytest

from datafree._core.errors import UserError
from datafree._core.files import read_json, write_json


def test_the_spelling_is_canonical_and_comes_back(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": {"é": "x\ny"}, "seed": 2**64 - 1}
    write_json(tmp_path / "a.json", value)
    assert (tmp_path / "a.json").read_bytes() == (
        b'{"a":{"\\u00e9":"x\\ny"},"b":[1,2.5,null,true],"seed":18446744073709551615}\n'
    )
    assert read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":1,"a":1}', "key 'a' occurs twice"),
        ('{"x":{"a":1,"a":2}}', "key 'a' occurs twice"),
        ('{"a":NaN}', "NaN is no JSON"),
        ('{"a":-Infinity}', "-Infinity is no JSON"),
        ('{"a":1e999}', "not finite"),
        ('{"a":' + "9" * 41 + "}", "an integer of 41 digits"),
        ('{"a":' * 40 + "1" + "}" * 40, "deeper than 32"),
        ("[" * 200_000, "deeper than 32"),
        ("[1]", "expected a JSON object"),
        ("null", "expected a JSON object"),
        ("", "is not valid"),
        ('{"a":1} x', "is not valid"),
        ("\ufeff{}", "byte-order mark, expected UTF-8 without one; save it as such"),
        ('{"a":"' + "x" * (4 << 20) + '"}', "expected at most 4,194,304"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_reason(tmp_path, text, reason):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=reason):
        read_json(tmp_path / "a.json")


def test_bytes_that_are_no_utf8_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a":"\xff"}')
    with pytest.raises(UserError, match="is not valid"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("value", [{"a": float("inf")}, {1: 2}, {"a": {1}}, [1], {"a": 10**41}])
def test_what_would_not_come_back_is_not_written(tmp_path, value):
    with pytest.raises(UserError):
        write_json(tmp_path / "a.json", value)
    assert os.listdir(tmp_path) == []


def test_a_value_that_contains_itself_is_refused(tmp_path):
    value: dict = {}
    value["a"] = value
    with pytest.raises(UserError, match="is no JSON"):
        write_json(tmp_path / "a.json", value)
