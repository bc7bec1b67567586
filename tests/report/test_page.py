import os
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from datafree._core.errors import UserError
from datafree.evaluation.report import Grid, Line, Report, Row, render, write

from .conftest import make_grid

HOSTILE = "<script>alert(1)</script>\"' onload=x $\\frac{ @7@ {{ 7 }} \x00 \udc80 \u202e 漢字"


class Reader(HTMLParser):
    """Elements with their attributes and the text of each, checked for balance."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def results(page):
    """The text of every row of the first table, cell by cell, without line ends."""
    table = page[page.index('<table class="results">') : page.index("</table>")]
    rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    cells = [re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in row] for row in cells]


def hostile():
    return Report(
        title=HOSTILE,
        summary=HOSTILE,
        rows=[Row(HOSTILE, group, 50.0, None, 10, 10, None, None, HOSTILE) for group in ("without data", HOSTILE)],
        grids=[replace(make_grid(HOSTILE), note=HOSTILE)],
        lines=[Line(HOSTILE, [1.0, 2.0], HOSTILE, HOSTILE)],
        settings={HOSTILE: HOSTILE, "group": {HOSTILE: {HOSTILE: [HOSTILE]}}, HOSTILE + "2": {"a": 1}},
        warnings=[HOSTILE],
        classes=(HOSTILE, "b", "c"),
        scatter=[(HOSTILE, 1000.0, 0.5, 50.0)],
    )


def test_a_hostile_name_is_only_ever_text():
    page = render(hostile())
    reader = Reader(page)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "iframe", "object", "link", "foreignobject"}
    assert not [key for _, attrs in reader.elements for key in attrs if key.startswith("on")]
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 10
    assert "{{ 7 }}" in page
    assert "\x00" not in page


def test_a_hostile_page_can_be_written(tmp_path):
    write(hostile(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render(hostile())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_same_report_gives_the_same_bytes_in_another_process(report):
    code = "import pickle, sys; from datafree.evaluation.report import render; "
    code += "sys.stdout.buffer.write(render(pickle.load(sys.stdin.buffer)).encode())"
    given, other = pickle.dumps(hostile()), {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "LC_ALL": "C"}
    run = subprocess.run([sys.executable, "-c", code], input=given, capture_output=True, check=True, env=other)
    assert run.stdout.decode() == render(hostile())
    assert render(report) == render(report)


def test_nothing_on_the_page_comes_from_elsewhere(report):
    page = render(report)
    reader = Reader(page)
    assert "script" not in {tag for tag, _ in reader.elements}
    links = [attrs[key] for _, attrs in reader.elements for key in ("src", "href", "xlink:href") if key in attrs]
    assert len(links) > 2
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert all(target == "#" for target in re.findall(r"url\(['\"]?(.)", page))
    assert "@import" not in page
    policy = next(attrs for attrs in reader.all("meta") if "http-equiv" in attrs)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_every_link_within_the_page_has_its_end_and_no_id_is_given_twice(report):
    reader = Reader(render(report))
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {attrs[key][1:] for _, attrs in reader.elements for key in ("href", "xlink:href") if key in attrs}
    assert targets <= set(ids)
    assert "warnings" in targets


def test_rows_stand_by_group_teacher_first_and_none_is_marked_as_the_best(report):
    extra = [Row("last", "quantized", 90.0, None, 5, 5, 1.0, 1)]
    table = results(render(replace(report, rows=report.rows + extra)))
    assert [row[0] for row in table[1:]] == [
        "teacher", "big", "with data", "labels", "without data", "pairs", "top", "quantized", "last",
    ]  # fmt: skip
    assert "best" not in render(report)


def test_numbers_say_what_was_measured_over_how_many_seeds(report):
    table = {row[0]: row[1:] for row in results(render(report))}
    assert table["pairs"][:6] == [
        "92.47 ± 0.41, n = 5", "93.00", "15,738 4.0× smaller", "64.2 kB", "12,000", "46 min 44 s",
    ]  # fmt: skip
    assert table["big"] == ["98.90", "–", "62,952", "248.3 kB", "60,000", "not measured", "ten epochs"]
    assert table["top"][2:6] == ["15,738 4.0× smaller", "812 B", "not measured", "3.0 s"]


def test_an_unmeasured_accuracy_is_said(report):
    rows = [
        Row("x", "without data", None, None, 1, 1, None, None),
        Row("y", "without data", float("nan"), 1, 1, 1, 1, 1),
    ]
    page = render(replace(report, rows=rows))
    table = results(page)
    assert [row[1] for row in table[2:]] == ["not measured", "not measured"]


def test_several_seeds_without_an_sd_are_said():
    rows = [Row("x", "without data", 90.0, None, 1, 1, None, None, seeds=3)]
    page = render(Report("t", "s", rows, [], [], {}, [], ("a", "b")))
    assert results(page)[2][1] == "90.00 sd not measured, n = 3"


def test_a_row_of_another_size_than_the_teacher_says_so(report):
    rows = [*report.rows, Row("huge", "with data", 1.0, None, 125_904, 1, None, None)]
    table = {row[0]: row for row in results(render(replace(report, rows=rows)))}
    assert table["huge"][3] == "125,904 2.0× larger"


def test_the_page_can_be_read_without_seeing_it(report):
    reader = Reader(render(report))
    assert reader.all("html") == [{"lang": "en"}]
    assert [attrs["alt"] for attrs in reader.all("img")] == [
        f"{name}: the mean image of each class, below it 2 random images. Columns: a, b, c."
        for name in ("Real", "Pairs")
    ]
    assert all("scope" in attrs for attrs in reader.all("th"))
    plots = reader.all("svg")
    assert [attrs["role"] for attrs in plots] == ["img"] * 4  # each plot is wide and narrow, and one of them is shown
    assert all("big from 50 to 98.9" in plot["aria-label"] for plot in plots[:2])
    assert all("none: 11.00% with 0 B, leakage not measured" in plot["aria-label"] for plot in plots[2:])


def test_sections_come_in_reading_order_and_empty_ones_stay_away(report):
    heads = re.compile(r"<h[12][^>]*>(.*?)</h[12]>")
    full = ["A title", "Images", "Curves", "Cost of the record", "Warnings", "Settings"]
    assert heads.findall(render(report)) == full
    bare = replace(report, grids=[], lines=[], scatter=(), warnings=[])
    assert heads.findall(render(bare)) == ["A title", "Warnings", "Settings"]
    assert "#warnings" not in render(bare)


def test_settings_stand_in_groups_with_versions_last(report):
    settings = {"versions": {"torch": "2.13.0"}, "a": {"b": {"c": (1, 2.5)}, "d": None}, "on": True, "e": {3, 1}}
    page = render(replace(report, settings=settings))
    cells = re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", page[page.index('<table class="settings">') :])
    assert cells == [
        "setting", "value", "on", "yes", "e", "1, 3", "a", "b.c", "1, 2.5", "d", "none", "versions", "torch", "2.13.0",
    ]  # fmt: skip


def test_missing_versions_are_said(report):
    page = render(replace(report, settings={"seed": 0}))
    assert re.search(r'<th scope="row">versions</th><td>not recorded</td>', page)


def test_of_100_classes_20_are_shown_and_the_page_says_so(report):
    names = tuple(f"class {k}" for k in range(100))
    page = render(replace(report, classes=names, grids=[make_grid(classes=100, channels=3)]))
    assert "The first 20 of 100 classes are shown." in page
    assert re.findall(r'<span title="(.*?)">', page) == list(names[:20])


def test_a_class_without_images_is_named(report):
    grid = make_grid()
    grid.means[1], grid.samples[:, 1] = np.nan, np.nan
    page = render(replace(report, grids=[grid]))
    assert "<span>no images of b</span>" in page
    assert "Columns: a, b, c. No images of b." in page


def test_a_grid_of_other_classes_than_the_report_is_refused(report):
    with pytest.raises(
        UserError, match="grid 'Real': got 2 classes, expected the report's 3; give a mean image for each class"
    ):
        render(replace(report, grids=[make_grid(classes=2)]))


def test_seven_methods_of_incompressible_digits_stay_below_a_megabyte(report):
    rng = np.random.default_rng(0)
    grids = [Grid(f"m{i}", rng.random((10, 1, 28, 28)), rng.random((3, 10, 1, 28, 28)), 0.0, 1.0) for i in range(8)]
    page = render(replace(report, classes=tuple("0123456789"), grids=grids))
    assert len(page.encode()) < 1_000_000


def test_importing_the_report_imports_none_of_torch_matplotlib_jinja_and_pillow():
    packages = "{'torch', 'matplotlib', 'jinja2', 'PIL'}"
    code = f"import sys, datafree.evaluation.report; print(sorted({packages} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
