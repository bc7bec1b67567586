"""At phone width: every plot has a narrow form whose text can be read and names its lines, and every cell its label."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from datafree.evaluation.report import Line, curves_svg, online_run, render, tradeoff_svg
from datafree.evaluation.report.matched import matched_svg
from datafree.evaluation.report.phases import phases_svg
from datafree.evaluation.report.similarity import similarity_svg
from datafree.evaluation.similarity import LayerMatches, Similarity
from datafree.runs.run_reader import OnlineLog

NAMES = ["student-all-dropout", "noise"]
PLOTS = {
    "curves": lambda narrow: curves_svg(
        [Line(name, [1.0, 2.0], "agreement with the teacher on generated probes, %") for name in NAMES], narrow=narrow
    ),
    "matched": lambda narrow: matched_svg(
        [LayerMatches(name, (0.1, 1.0), (0.2, 2.0)) for name in NAMES], narrow=narrow
    ),
    "similarity": lambda narrow: similarity_svg(
        [Similarity(name, 10, 2.0, {"a": 1.0, "b": 3.0}) for name in NAMES], narrow=narrow
    ),
    "phases": lambda narrow: phases_svg(
        [online_run(name, OnlineLog(seconds=(9.0,), phases={"student": 5.0, "generator": 3.0})) for name in NAMES],
        narrow=narrow,
    ),
    "tradeoff": lambda narrow: tradeoff_svg([(name, 1000.0, 0.5, 50.0) for name in NAMES], narrow=narrow),
}
PHONE = 362
"""Width of the content on a screen of 390 px."""


def width_of(svg: str) -> float:
    return float(ET.fromstring(svg).get("viewBox", "").split()[2])


def font_sizes(svg: str) -> list[float]:
    return [float(size) for size in re.findall(r"font(?:-size)?: (?:\w+ )?([0-9.]+)px", svg)]


@pytest.mark.parametrize("plot", PLOTS)
def test_the_text_of_a_narrow_plot_is_legible_on_a_phone(plot):
    narrow, wide = (PLOTS[plot](narrow) for narrow in (True, False))
    assert min(font_sizes(narrow)) * PHONE / width_of(narrow) > 8  # an exponent; other text is larger
    assert max(font_sizes(wide)) * PHONE / width_of(wide) < 6


@pytest.mark.parametrize("plot", PLOTS)
def test_a_narrow_plot_names_what_the_wide_one_names_and_nothing_is_outside_it(plot):
    root = ET.fromstring(PLOTS[plot](True))
    width = width_of(PLOTS[plot](True))
    texts = list(root.iter("{http://www.w3.org/2000/svg}text"))
    found = " ".join("".join(text.itertext()) for text in texts)
    assert ("student-all-dropo" in found or "student-all-d…" in found) and "noise" in found
    for text in texts:
        if text.get("x") is not None and "rotate(-90" not in text.get("transform", ""):
            letters = 4.9 * len("".join(text.itertext()).strip())
            anchor = re.search(r"text-anchor: (\w+)", text.get("style", ""))
            left = float(text.get("x", 0)) - {"middle": letters / 2, "end": letters}.get(anchor[1] if anchor else "", 0)
            assert left > -3 and left + letters < width + 12, found


def test_a_long_title_has_two_lines_in_a_narrow_plot():
    found = re.findall(r"<text[^>]*>([^<]*)</text>", PLOTS["curves"](True))
    assert "agreement with the teacher on generated" in found and "probes, %" in found


def test_the_page_shows_one_form_of_each_plot(report):
    page = render(report)
    assert page.count('<div class="on-wide">') == page.count('<div class="on-narrow">') == 2
    css = page[: page.index("</style>")]
    assert ".on-narrow { display: none; }" in css
    assert "{ .on-wide { display: none; } .on-narrow { display: block; } }" in css


def test_every_cell_of_a_row_says_its_column_where_there_is_no_room_for_a_header(report):
    log = OnlineLog(scores=(50.0, 60.0), agreement=(70.0, 80.0), seconds=(1.0, 1.0))
    page = render(replace(report, online=[online_run("a", log, "bank")]))
    tables = re.findall(r'<table class="results.*?</table>', page, re.DOTALL)
    assert len(tables) == 3
    for table in tables:
        heads = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', table)
        rows = [row for row in re.findall(r"<tr>.*?</tr>", table, re.DOTALL) if 'scope="row"' in row]
        assert rows
        for row in rows:
            cells = re.findall(r'<td[^>]*?(?:data-label="([^"]*)"|class="note")>', row)
            assert [cell or head for cell, head in zip(cells, heads[1:], strict=True)] == heads[1:]
