"""The picture of a ranking: its words, its order, on a page of either colour."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from datafree import Similarity
from datafree.report.similarity import similarity_svg

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
    assert "train: 3; a $very$ long <name> of a set: 888.4" in said


def test_the_same_ranking_is_the_same_picture_and_no_data_none():
    assert similarity_svg(FOUND) == similarity_svg(FOUND)
    assert similarity_svg([]) == ""


def test_more_sets_than_colours_are_all_drawn():
    many = [Similarity(f"set {index}", 9, index + 1.0, {"bn": index + 1.0}) for index in range(23)]
    assert {f"set {index}" for index in range(23)} <= set(texts(similarity_svg(many)))
