"""The picture of what synthetic sets match of the stored statistics: its words, its reference, one layer, none."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

from datafree.evaluation.report import Match, SimilarityTable, render
from datafree.evaluation.report.matched import matched_svg
from datafree.evaluation.similarity import LayerMatches

from .test_page import Reader
from .test_similarity_plot import FOUND, texts

SETS = [
    LayerMatches("a $very$ <set>", (0.1, 0.3), (0.5, 0.0)),
    LayerMatches("noise", (3.0, 5.0), (1.0, 2.0), reference=True),
]


def test_both_panels_are_named_with_what_they_measure_and_every_line_once():
    shown = texts(matched_svg(SETS))
    assert {"mean: (m \u2212 \u03bc) / \u03c3", "standard deviation: s / \u03c3 \u2212 1"} <= set(shown)
    assert shown.count("a $very$ <set>") == shown.count("noise") == 1


def test_the_reference_is_grey_and_no_set_is():
    assert "#808890" in matched_svg(SETS)
    assert "#808890" not in matched_svg(SETS[:1])


def test_the_picture_says_in_words_what_it_shows():
    label = ET.fromstring(matched_svg(SETS)).attrib["aria-label"]
    assert "a $very$ <set>: means off by 0.2 standard deviations, standard deviations by 25%" in label


def test_one_layer_is_drawn_and_no_set_is_no_picture():
    assert "set" in texts(matched_svg([LayerMatches("set", (0.0,), (1.0,))]))
    assert matched_svg([]) == ""


def test_several_plots_on_a_page_keep_apart_with_captions_of_their_own(report):
    similarities = [SimilarityTable("first <b>", FOUND), SimilarityTable("second", FOUND, "")]
    page = render(replace(report, similarities=similarities, matches=[Match("of one", SETS), Match("of two", SETS)]))
    ids = [attrs["id"] for _, attrs in Reader(page).elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert all(text in page for text in ("first &lt;b&gt;", "second", "of one", "of two", "cannot be compared"))
    assert "cannot be compared" not in render(replace(report, similarities=similarities[:1]))
