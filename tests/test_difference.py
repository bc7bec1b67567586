"""In what a run is another than an earlier one: the words, for every kind of setting and input."""

from __future__ import annotations

import pytest

from datafree.runs.difference import difference

MOMENTS = {"statistic": {"kind": "moments", "covariance": "none"}, "taps": ["fc1", "fc2"]}
FULL = {"statistic": {"kind": "moments", "covariance": "full"}, "taps": ["fc1", "fc2"]}
INPUT = {"statistic": {"kind": "input"}, "taps": None}
MANY = {"statistic": {"kind": "ranges"}, "taps": [f"layer{index}" for index in range(40)]}


def log(inputs=None, /, verb="train", **settings):
    return {"verb": verb, "settings": settings} | ({} if inputs is None else {"inputs": inputs})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"epochs": 3}, {"epochs": 4}, "with `epochs=3`, not 4"),
        ({"seed": 0}, {"seed": 1}, "with `seed=0`, not 1"),
        ({"optimizer": "muon"}, {}, "with `optimizer=muon`, not adam"),
        ({}, {"optimizer": "muon"}, "with `optimizer=adam`, not muon"),
        ({"start": "teacher"}, {}, "with `start=teacher`, not random"),
        ({"decay": "constant"}, {}, "with the decay constant, not without"),
        ({"decay": "cosine"}, {"decay": "constant"}, "with the decay cosine, not constant"),
        ({"replay": {"decay": 0.9}}, {"replay": {"decay": 0.5}}, "with `decay=0.9`, not 0.5"),
        ({"batch": 1}, {"batch": 0}, "with `batch=1`, not 0"),
        ({"limit": None}, {"limit": 900}, "without `limit`, not with `limit=900`"),
        ({"limit": 900}, {"limit": None}, "with `limit=900`, not without"),
        ({}, {"limit": 900}, "without `limit`, not with `limit=900`"),
        ({"equalise": True}, {"equalise": False}, "with `equalise`, not without"),
        ({"executorch": False}, {"executorch": True}, "without `executorch`, not with it"),
        ({"code": []}, {"code": ["nets.py:build"]}, "without `code`, not with `code=nets.py:build`"),
        ({"code": ["nets.py:build"]}, {"code": []}, "with `code=nets.py:build`, not without"),
        ({"runs": ["a", "b"]}, {"runs": ["a"]}, "with runs a b, not a"),
        ({"data": ["digits"]}, {"data": ["digits", "noise"]}, "with data digits, not digits noise"),
        ({"data": "digits"}, {"data": "mnist"}, "with `data=digits`, not mnist"),
        ({"target_cpu": "any"}, {"target_cpu": "vnni"}, "with `target_cpu=any`, not vnni"),
        ({"model": "hinton8"}, {"model": "hinton16"}, "with model hinton8, not hinton16"),
        ({"mean": [0.0]}, {"mean": [0.5, 0.5]}, "with `mean=0.0`, not 0.5 0.5"),
        ({"mean": [0.0, 1.0]}, {"mean": [0.0, 2.0]}, "with `mean=1.0`, not 2.0"),
        ({"online": {"balance": 5.0}}, {"online": {"balance": 4.0}}, "with `balance=5.0`, not 4.0"),
        (
            {"method": {"method": "distribution"}}, {"method": {"steps": 100, "method": "bns"}},
            "with the method distribution, not bns",
        ),
        (
            {"learns_from": "a set of top", "images": "s"}, {"learns_from": "fresh images of top", "method": {}},
            "from a set of top, not from fresh images of top",
        ),
        ({"title": "x" * 90}, {"title": "y"}, f"with `title={'x' * 57}...`, not y"),
        ({"what": [MOMENTS], "preset": "full"}, {"what": [INPUT], "preset": "small"}, "with `preset=full`, not small"),
        (
            {"what": [MOMENTS], "preset": "safe", "leak": 0.6},
            {"what": [INPUT], "preset": "safe", "leak": 0.55},
            "with `leak=0.6`, not 0.55",
        ),
        ({"what": [MOMENTS, INPUT]}, {"what": [INPUT]}, "with the entries moments of fc1, fc2; input of all layers, not "
         "input of all layers"),
        ({"what": [MOMENTS]}, {"what": [INPUT], "preset": "small"}, "with the entries moments of fc1, fc2, not input of all "
         "layers"),
        ({"what": [MANY]}, {"what": [INPUT]}, "with the entries ranges of 40 layers, not input of all layers"),
        ({"what": [FULL]}, {"what": [MOMENTS]}, "with entries of other settings: statistic covariance full, not statistic "
         "covariance none"),
    ],
)  # fmt: skip
def test_the_setting_that_made_the_result_comes_first_and_is_named_as_it_is_typed(old, new, words):
    assert difference(log(**new), log(**old)) == words


def test_equal_runs_settings_that_change_no_result_and_the_one_that_may_grow_are_no_difference():
    one = log({"data": "a"}, epochs=3, threads=2, quiet=True, images=10)
    other = log({"data": "a"}, epochs=3, threads=1, quiet=False, images=20)
    assert difference(other, one, ignored="images") is None
    assert difference(other, one) == "with `images=10`, not 20"
    assert difference(log(what=[MOMENTS], preset="full"), log(what=[MOMENTS], preset="paper")) is None


def test_another_command_and_other_content_are_named():
    assert difference(log(verb="train"), log(verb="distill")) == "by datafree distill, not datafree train"
    old, new = log({"digits (train)": "a" * 64}), log({"digits (train)": "b" * 64})
    assert difference(new, old) == f"with other content of digits (train): sha256 {'a' * 12}, not sha256 {'b' * 12}"
    assert difference(log({}), old) == f"with other content of digits (train): sha256 {'a' * 12}, not nothing"
    assert difference(log(), old) is None


def test_of_long_lists_the_entry_that_differs_is_named():
    data = [f"a folder of images {number:012d}" for number in range(5)]
    one, other = ({"verb": "similarity", "settings": {"data": own}} for own in (data, data[:-1]))
    assert difference(other, one) == f"with data {data[-1]} as well, not without it"
    assert difference(one, other) == f"with data other than {data[-1]}, not {data[-1]} as well"


def test_other_data_is_named_before_the_entries_that_were_chosen_by_it():
    words = difference(log(what=[MOMENTS], data="fashion-mnist"), log(what=[FULL], data="digits"))
    assert words == "with `data=digits`, not fashion-mnist"
