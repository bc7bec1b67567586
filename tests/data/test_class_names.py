"""Class names from every source are different ones of 1 to 255 characters, and together fit the header of a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from datafree._core.errors import Notice, UserError
from datafree._core.files import check_room, write_sealed_json
from datafree.data import load
from datafree.data.condensed.condensed_set import Condensed, one_hot
from datafree.models.class_names import LONGEST_NAME, MOST_BYTES, MOST_CLASSES
from datafree.models.input_spec import InputSpec
from datafree.releases.load import load_model, new_model
from datafree.releases.quantized import read_config
from datafree.releases.release import write_release
from datafree.synthesis.methods import from_name
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize

SPEC = InputSpec(shape=(1, 4, 4), classes=("a", "b", "c"))
BAD = {
    "long": (
        ["a", "b", "x" * 1_000_000],
        "class 2 of .* has a name of 1,000,000 characters, expected 1 to 255; shorten it",
    ),
    "no text": (["a", "b", "\ud800"], r"class 2 of .* has the name '\\ud800', expected Unicode text; rename it"),
}
TWICE = {
    "twice": (["a", "b", "a"], "has the name 'a' for class 0 and for class 2"),
    "empty": (["a", "", "c"], "has no name for class 1"),
}


@pytest.mark.parametrize("kind", [*BAD, *TWICE])
def test_a_new_network_has_different_names_that_can_be_stored(kind):
    names, text = {**BAD, **TWICE}[kind]
    with pytest.raises(UserError, match=text) as caught:
        InputSpec(shape=(1, 4, 4), classes=tuple(names))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["x" * LONGEST_NAME, "é\u202e", " ", "7", '"\\', "\udcff"])
def test_names_of_any_text_up_to_the_limit_are_taken(name):
    assert InputSpec(shape=(1, 4, 4), classes=("a", name)).classes[1] == name


@pytest.mark.parametrize("letter", ["x", "é", '"', "\U0001f600"])
def test_names_that_are_taken_fit_the_header_of_a_record(letter):
    """The most names of 200 letters: with a hundred more they are refused before any work, with their size."""
    size = len(json.dumps(json.dumps([letter * 200]))) - len(json.dumps(json.dumps([])))
    count = MOST_BYTES // (size + 8) - 10
    names = [f"{letter * 200}{index}" for index in range(count)]
    spec = InputSpec(shape=(1, 4, 4), classes=tuple(names))
    check_room("record", {"a/mean": (torch.float32, (3,))}, {"spec": spec.model_dump(mode="json")}, kind="record")
    with pytest.raises(UserError, match=r"class names of the network take .* expected at most 786,432; shorten them"):
        InputSpec(shape=(1, 4, 4), classes=(*names, *(f"{letter * 250}{index}" for index in range(100))))


def test_the_most_bare_numbers_fit_and_one_more_is_refused():
    assert len(InputSpec(shape=(1, 4, 4), classes=tuple(map(str, range(MOST_CLASSES)))).classes) == MOST_CLASSES
    with pytest.raises(UserError, match="has 65,537 classes, expected at most 65,536; give fewer"):
        InputSpec(shape=(1, 4, 4), classes=tuple(map(str, range(MOST_CLASSES + 1))))


def _npz(path, names) -> str:
    images = np.full((6, 4, 4), 200, np.uint8)
    np.savez(path / "d.npz", images=images, labels=np.arange(6) % 3, classes=np.array(names))
    return str(path / "d.npz")


@pytest.mark.parametrize("kind", [*BAD, *TWICE])
def test_names_in_an_npz_are_looked_at_as_it_is_loaded(tmp_path, kind):
    names, text = {**BAD, **TWICE}[kind]
    names = [name[:5000] for name in names] if kind == "long" else names
    text = text.replace("1,000,000", "5,000")
    if kind in BAD:
        with pytest.raises(UserError, match=text):
            load(_npz(tmp_path, names), "train")
    else:  # evaluated against a network of the same names; a new one of them is refused
        with pytest.warns(Notice, match=text):
            data = load(_npz(tmp_path, names), "train")
        with pytest.raises(UserError, match=text):
            InputSpec(shape=data.shape, classes=data.classes)


def _resealed(path, names) -> None:
    config = json.loads(path.read_text())
    config["spec"]["classes"] = names
    write_sealed_json(path, config)


@pytest.mark.parametrize("kind", [*BAD, *TWICE])
def test_a_release_of_an_earlier_version_opens_with_a_notice_where_names_are_not_told_apart(tmp_path, kind):
    names, text = {**BAD, **TWICE}[kind]
    write_release(tmp_path / "r", new_model("hinton8", SPEC, seed=0))
    _resealed(tmp_path / "r" / "config.json", names)
    if kind in BAD:
        with pytest.raises(UserError, match=text):
            load_model(str(tmp_path / "r"))
        return
    with pytest.warns(Notice, match=text):
        network = load_model(str(tmp_path / "r"))
    assert network.spec.classes == tuple(names)
    write_release(tmp_path / "s", new_model("hinton4", network.spec, seed=0))
    with pytest.warns(Notice, match=text):  # what is made of it opens as well
        assert load_model(str(tmp_path / "s")).spec.classes == tuple(names)


def test_sets_and_quantized_folders_follow_the_same_rule(tmp_path):
    teacher = new_model("hinton8", SPEC, seed=0)
    synthesize(teacher, None, from_name("gaussian"), tmp_path / "s", images=3, chunk=3, workers=1)
    _resealed(tmp_path / "s" / "set.json", BAD["long"][0])
    with pytest.raises(UserError, match="has a name of 1,000,000 characters"):
        SyntheticSet.open(tmp_path / "s")
    twice = SPEC.model_copy(update={"classes": ("a", "b", "a")})
    Condensed(torch.rand(3, 1, 4, 4), one_hot(torch.arange(3), 3), twice, {}).save(tmp_path / "c")
    with pytest.warns(Notice, match=TWICE["twice"][1]):
        assert Condensed.open(tmp_path / "c").spec.classes == ("a", "b", "a")
    (tmp_path / "q").mkdir()
    config = {"format": 1, "kind": "quantized", "architecture": "x", "bits": {}, "original": "0" * 64, "sha256": {}}
    for names, wrong in ((["a", "b", "a"], None), (BAD["long"][0], "has a name of 1,000,000 characters")):
        spec = {**SPEC.model_dump(mode="json"), "classes": names}
        write_sealed_json(tmp_path / "q" / "config.json", {**config, "spec": spec})
        with pytest.raises(UserError, match=wrong) if wrong else pytest.warns(Notice, match="for class 0 and"):
            read_config(tmp_path / "q")
