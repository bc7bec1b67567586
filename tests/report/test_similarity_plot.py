"""The picture of a ranking: its words, its order, on a page of either colour."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from datafree import Similarity
from datafree.evaluation.report.similarity import similarity_svg
from datafree.evaluation.report.svg import looks

FOUND = [
    Similarity("train", 100, 3.0, {"bn1": 1.0, "bn2": 2.0}),
    Similarity("a $very$ long <name> of a set", 100, 888.4, {"bn1": 800.0, "bn2": 88.4}),
    Similarity("equal", 100, 0.0, {"bn1": 0.0, "bn2": 0.0}),
]


def texts(svg: str) -> list[str]:
    return ["".join(own.itertext()).strip() for own in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_every_set_is_named_with_its_total_and_nothing_in_a_name_is_markup_or_mathematics():
    shown = texts(similarity_svg(FOUND))
    assert {"train", "equal", "3", "888.4", "0"} <= set(shown)
    assert any(text.startswith("a $very$ long <name>") for text in shown)
    assert similarity_svg(FOUND[:1]) != similarity_svg(FOUND[1:2])


def test_the_picture_says_in_words_what_it_shows():
    root = ET.fromstring(similarity_svg(FOUND[:2]))
    said = " ".join([*root.attrib.values(), *(own.text or "" for own in root.iter() if own.tag.endswith("title"))])
    assert "train: 3 nats; a $very$ long <name> of a set: 888.4 nats" in said


def test_the_same_ranking_is_the_same_picture_and_no_data_none():
    assert similarity_svg(FOUND) == similarity_svg(FOUND)
    assert similarity_svg([]) == ""


def test_more_sets_than_colours_are_all_drawn():
    many = [Similarity(f"set {index}", 9, index + 1.0, {"bn": index + 1.0}) for index in range(23)]
    shown = texts(similarity_svg(many))
    assert all(shown.count(f"set {index}") == 2 for index in range(23))  # at the bar, and at the line's end


def test_more_sets_than_colours_differ_in_line_and_marker():
    own = looks([f"set {index}" for index in range(23)], marked=True)
    seen = {(one["color"], str(one["linestyle"])) for one in list(own.values())[:20]}
    assert len(seen) == 20 and len({str(sorted(one.items(), key=str)) for one in own.values()}) == 23
    assert all(one["marker"] for one in list(own.values())[5:20])


@pytest.mark.parametrize(("unit", "words"), [("nats", "nats"), ("", "no unit")])
def test_the_unit_stands_over_both_halves(unit, words):
    assert {f"all layers, {words}", f"by layer, {words}"} <= set(texts(similarity_svg(FOUND, unit)))


def test_layers_are_whole_numbers():
    for count in range(1, 12):
        some = [Similarity("a", 9, 1.0, {str(layer): 1.0 for layer in range(count)})]
        assert not [text for text in texts(similarity_svg(some)) if re.fullmatch(r"\d+\.\d+", text)]
