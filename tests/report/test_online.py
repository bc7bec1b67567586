"""Online runs on the page: figures as by hand, seconds counted once, images in their place, files from strangers."""

from __future__ import annotations

import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from datafree._core.errors import UserError
from datafree._core.files import write_tensors
from datafree.evaluation.report import Timeline, online_lines, online_run, render, timeline
from datafree.evaluation.report.images import GAP
from datafree.evaluation.report.online import facts, figures
from datafree.evaluation.report.phases import phases_svg
from datafree.evaluation.report.timelines import FILE, timeline_png
from datafree.runs.run_reader import FinishedRun, OnlineLog

from .test_page import HOSTILE, Reader
from .test_plots import texts

HISTORY = {
    "loss": [2.0, 1.0, 0.5, 0.4], "generator": [0.1] * 4, "scores": [50, 90, 80, 85], "agreement": [60, 95, 85, 90],
    "health": [{"classes": 1.0 + epoch, "spread": 0.2, "duplicates": 0.01} for epoch in range(4)],
    "seconds": [10.0, 10.0, 10.0, 10.0], "rollbacks": [f"epoch {epoch}: one class" for epoch in range(2, 9)],
    "phases": {"generator": 12.0, "student": 20.0, "memory": 4.0}, "images": 8000,
    "memory_bytes": 1_234_567,
}  # fmt: skip


def run(name="student", series="", replay="bank", **changes):
    return online_run(name, OnlineLog.model_validate({**HISTORY, **changes}), replay, series)


def cells(page, number):
    """The text of table `number`, row by row, cell by cell."""
    table = re.findall(r'<table class="results.*?</table>', page, re.DOTALL)[number]
    rows = [
        re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL)
        for row in re.findall(r"<tr.*?</tr>", table, re.DOTALL)
    ]
    return [[" ".join(re.sub(r"<[^>]+>", "", cell).split()) for cell in row] for row in rows]


def test_the_page_shows_the_figures_of_every_curve_and_window_as_by_hand(report):
    found = cells(render(replace(report, online=[run()])), 2)
    assert found[1] == ["student"]
    assert found[2] == ["test accuracy", "all 4", "76.25", "17.97", "90.00", "85.00", "5.00", "10.00", "10.00"]
    assert found[3] == ["test accuracy", "last 2", "82.50", "3.54", "85.00", "85.00", "0.00", "0.00", "0.00"]
    assert [row[0] for row in found[4:]] == ["agreement on probes"] * 2


def test_runs_that_differ_in_their_seed_alone_are_summed_up_and_others_are_not():
    two = [run("a", "x", scores=[50, 60]), run("b", "x", scores=[50, 80]), run("c", "y", scores=[0, 0])]
    groups = dict(figures(two))
    assert list(groups) == ["a", "b", "c", "mean and standard deviation over 2 seeds: a, b"]
    row = groups["mean and standard deviation over 2 seeds: a, b"][0]
    assert (row["curve"], row["window"]) == ("test accuracy", "all 2")
    assert row["cells"][3] == ("70.00", "± 14.14")  # last


def test_the_page_says_what_the_memory_takes_and_what_was_rolled_back(report):
    found = cells(render(replace(report, online=[run()])), 1)[1]
    assert found[:4] == ["student", "bank", "1.2 MB 1,234,567 bytes", "8,000 200 per second"]
    assert found[4:8] == ["40.0 s", "4.0", "1.00%", "7"]
    assert found[8].startswith("epoch 2: one class; epoch 3") and found[8].endswith("; 2 more")


def test_no_second_is_counted_twice():
    spent = run().phases
    assert spent == {"generator": 12.0, "student": 16.0, "memory": 4.0, "monitoring and other": 8.0}
    assert sum(spent.values()) == sum(HISTORY["seconds"])


def test_the_bars_name_every_phase_once_and_every_run_with_its_seconds():
    svg = phases_svg([run("one"), run("a $two$ <b>", seconds=[5.0] * 8)])
    shown = texts(svg)
    for name in ("generator", "student", "memory", "monitoring and other", "one", "a $two$ <b>"):
        assert shown.count(name) == 1
    assert shown.count("40.0 s") == 2 and "30 %" in shown and "seconds" in shown
    assert "one: generator 12.0 s, student 16.0 s" in ET.fromstring(svg).attrib["aria-label"]
    assert phases_svg([run(phases={}, seconds=[])]) == phases_svg([]) == ""


def test_names_in_the_legend_and_beside_the_bars_do_not_overlap():
    svg = ET.fromstring(phases_svg([run("n" * 60, phases={f"phase {i} {'m' * 40}": 5.0 for i in range(7)})]))
    boxes = []
    for text in svg.iter("{http://www.w3.org/2000/svg}text"):
        words, anchor = "".join(text.itertext()).strip(), re.search(r"text-anchor: (\w+)", text.get("style", ""))
        x, y = (float(text.get(axis)) for axis in "xy")
        wide = 4.7 * len(words)
        start = x - {"middle": wide / 2, "end": wide}.get(anchor[1] if anchor else "start", 0.0)
        boxes.append((start, y - 8, start + wide, y, words))
    assert len(boxes) > 10
    for index, one in enumerate(boxes):
        for other in boxes[:index]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)


def test_curves_share_panels_with_those_of_other_runs_and_the_average_has_a_name_of_its_own():
    lines = online_lines("s", OnlineLog.model_validate({**HISTORY, "average_scores": [1, 2, 3, 4]}))
    assert [(line.name, line.unit) for line in lines if "accuracy" in line.unit] == [
        ("s", "test accuracy, %"), ("average: s", "test accuracy, %")
    ]  # fmt: skip
    assert lines[-1].values == [1.0, 2.0, 3.0, 4.0]


def test_a_hostile_name_is_only_ever_text_here_too(report):
    text = HOSTILE.replace("\udc80", "")  # which a run.json cannot hold
    own = run(HOSTILE, replay=text, rollbacks=[text], phases={text: 3.0})
    pixels = np.zeros((2, 3, 1, 4, 4), dtype=np.uint8)
    reader = Reader(render(replace(report, online=[own], timelines=[Timeline(HOSTILE, pixels, [1, 2], 2)])))
    assert not {tag for tag, _ in reader.elements} & {"script", "iframe", "object", "link"}
    assert not [key for _, attrs in reader.elements for key in attrs if key.startswith("on")]


def test_a_run_without_curves_memory_or_phases_says_not_measured(report):
    row = facts([online_run("s", OnlineLog())])[0]
    assert {row["memory"], row["images"], row["time"], row["classes"]} == {"not measured"}
    assert figures([online_run("s", OnlineLog())]) == []
    assert "Online distillation" in render(replace(report, online=[online_run("s", OnlineLog())]))
    assert "Online distillation" not in render(report)


# -- images over time ---------------------------------------------------------------------------------------------


def generated(folder, pixels, header=None, kind="generated"):
    header = {"epochs": list(range(len(pixels)))} if header is None else header
    write_tensors(folder / FILE, {"pixels": pixels}, header, kind=kind)


def test_rows_are_epochs_and_columns_latents(tmp_path):
    pixels = torch.arange(6, dtype=torch.uint8).mul(40).reshape(2, 3, 1, 1, 1).expand(2, 3, 1, 4, 4).contiguous()
    generated(tmp_path, pixels, {"epochs": [5, 10]})
    found = timeline(tmp_path)
    assert (found.epochs, found.total, found.name) == ([5, 10], 2, tmp_path.name)
    image = np.asarray(Image.open(io.BytesIO(timeline_png(found))).convert("L"))
    side = 64 + GAP
    assert image.shape == (2 * side, 3 * side)
    assert [[int(image[row * side + 32, column * side + 32]) for column in range(3)] for row in range(2)] == [
        [0, 40, 80], [120, 160, 200]
    ]  # fmt: skip


def test_of_many_epochs_twelve_are_shown_from_the_first_to_the_last(tmp_path):
    generated(
        tmp_path, torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1, 1).expand(100, 30, 1, 2, 2).contiguous()
    )
    found = timeline(tmp_path)
    assert len(found.epochs) == 12 and found.epochs[0] == 0 and found.epochs[-1] == 99 and found.total == 100
    assert found.pixels.shape == (12, 20, 1, 2, 2)
    assert [int(row[0, 0, 0, 0]) for row in found.pixels] == found.epochs


def test_a_folder_without_images_has_no_timeline_and_the_page_no_section(tmp_path, report):
    assert timeline(tmp_path) is None
    assert "over time" not in render(report)


def test_the_page_numbers_its_rows_by_epoch_and_fits_its_columns(report):
    pixels = np.zeros((2, 5, 3, 4, 4), dtype=np.uint8)
    page = render(replace(report, timelines=[Timeline("s", pixels, [1, 1200], 7)]))
    assert "<span>1</span><span>1,200</span>" in page and "--k:5" in page
    assert "epochs 1 to 1200, 2 of 7 shown, from the top" in page


GOOD = torch.zeros(2, 3, 1, 4, 4, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("pixels", "header", "said"),
    [
        (GOOD.float(), None, "uint8 (epochs, images, C, H, W)"),
        (GOOD[0], None, "uint8 (epochs, images, C, H, W)"),
        (GOOD[:, :0], None, "uint8 (epochs, images, C, H, W)"),
        (torch.zeros(1, 1, 1, 1, 4096, dtype=torch.uint8), None, "at most"),
        (torch.zeros(1, 1, 99, 1, 1, dtype=torch.uint8), None, "at most"),
        (GOOD, {}, "2 whole numbers"),
        (GOOD, {"epochs": [1]}, "2 whole numbers"),
        (GOOD, {"epochs": [1, True]}, "2 whole numbers"),
        (GOOD, {"epochs": [1, -2]}, "2 whole numbers"),
        (GOOD, {"epochs": "12"}, "2 whole numbers"),
    ],
)
def test_images_that_are_off_are_one_line(tmp_path, pixels, header, said):
    generated(tmp_path, pixels, header)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        timeline(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / FILE)) and "remove that file" in str(caught.value)


def test_another_kind_of_file_or_more_tensors_are_one_line(tmp_path):
    generated(tmp_path, GOOD, kind="shard")
    with pytest.raises(UserError, match=r"shard|generated"):
        timeline(tmp_path)
    write_tensors(tmp_path / FILE, {"pixels": GOOD, "more": GOOD}, {"epochs": [1, 2]}, kind="generated")
    with pytest.raises(UserError, match="got 2 tensors, expected only pixels"):
        timeline(tmp_path)


# -- run.json, which may be anybody's -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [101]}, {"agreement": ["x"]}, {"phases": {"a": -1}}, {"memory_bytes": -5},
        {"phases": {str(i): 1.0 for i in range(13)}}, {"health": [{"classes": 2}]}, {"seconds": [-1]}, {"loss": 5},
        {"rollbacks": [3]},
    ],
)  # fmt: skip
def test_a_history_that_is_off_is_one_line(tmp_path, change):
    (tmp_path / "run.json").write_text(json.dumps({"verb": "distill", "result": {"online": {**HISTORY, **change}}}))
    with pytest.raises(UserError, match=r"run.json is no log of a run: result.online"):
        FinishedRun.of(tmp_path)


def test_a_history_is_read_as_it_was_written(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"verb": "distill", "result": {"online": HISTORY}}))
    found = FinishedRun.of(tmp_path).result.online
    assert found.memory_bytes == 1_234_567 and found.scores == (50, 90, 80, 85)
    assert FinishedRun.of(tmp_path.parent).result.online is None
