import itertools
import math
import re
import xml.etree.ElementTree as ET

import matplotlib
import pytest

from datafree.evaluation.report import Line, curves_svg, numbers, tradeoff_svg
from datafree.evaluation.report.page import __file__ as page_file
from datafree.evaluation.report.svg import COLOURS, STYLES, spread

POINTS = [("top", 880.0, 0.51, 77.3), ("pairs", 1.5e6, 0.83, 92.5), ("nothing", 0.0, float("nan"), 11.2)]


def texts(svg):
    return ["".join(text.itertext()).strip() for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def papers():
    with open(page_file.replace("page.py", "page.css")) as file:
        return re.findall(r"--paper: (#[0-9a-f]{6})", file.read())


def test_every_line_colour_stands_out_on_the_light_and_the_dark_page():
    assert len(papers()) == 2
    assert min(contrast(colour, paper) for colour in COLOURS for paper in papers()) >= 3


def test_text_and_axes_take_the_page_colour():
    for svg in (curves_svg([Line("a", [1.0, 2.0], "u")]), tradeoff_svg(POINTS)):
        root = ET.fromstring(svg)
        assert root.get("class") == "datafree-plot"
        for text in root.iter("{http://www.w3.org/2000/svg}text"):
            assert "fill: currentColor" in text.get("style", "")
        assert "#010203" not in svg


def test_one_panel_for_each_unit_and_each_line_named_at_its_end():
    lines = [Line("a", [1.0, 2.0], "loss"), Line("b", [50.0, 60.0], "accuracy, %"), Line("c", [1.0, 1.5], "loss")]
    found = texts(curves_svg(lines))
    assert [text for text in found if text in {"a", "b", "c"}] == ["a", "c", "b"]
    assert [text for text in found if text in {"loss", "accuracy, %"}] == ["loss", "accuracy, %"]
    assert found.count("epoch") == 2


def test_a_name_has_the_same_look_in_every_panel_and_20_names_have_20_looks():
    def strokes(line):
        svg = curves_svg([*(Line(f"n{i}", [1.0, 2.0], "one") for i in range(20)), line])
        return re.findall(r'style="fill: none; (stroke[^"]*stroke-width: 1.5[^"]*)"', svg)

    drawn = strokes(Line("n7", [3.0, 4.0], "two"))
    assert len(drawn) == 42
    assert len(set(drawn)) == 20 == len(COLOURS) * len(STYLES)
    assert drawn[-1] == drawn[-2] == drawn[7]


def test_names_reach_the_svg_as_they_are():
    name = "$\\frac{1}$ <b> & @0@ 漢字"
    assert name in texts(curves_svg([Line(name, [1.0], "u")]))
    assert f"{name} · 0.50" in texts(tradeoff_svg([(name, 10.0, 0.5, 1.0)]))


def test_long_names_are_shortened():
    assert "n" * 33 + "…" in texts(curves_svg([Line("n" * 100, [1.0], "u")]))
    assert "…" + "n" * 29 + "/set" in texts(curves_svg([Line("n" * 100 + "/set", [1.0], "u")]))
    assert "n" * 29 + "… · 0.50" in texts(tradeoff_svg([("n" * 100, 10.0, 0.5, 1.0)]))


def test_a_wide_range_of_positive_values_is_drawn_on_a_log_scale_and_that_is_said():
    assert "loss (log scale)" in texts(curves_svg([Line("a", [1000.0, 1.0], "loss")]))
    assert "loss" in texts(curves_svg([Line("a", [1000.0, 0.0], "loss")]))


@pytest.mark.parametrize("values", [[], [math.nan, math.inf]])
def test_lines_without_a_finite_value_draw_nothing(values):
    assert curves_svg([Line("a", values, "loss")]) == ""


@pytest.mark.parametrize("values", [[1.0], [math.nan, 2.0, math.nan, math.inf], [0.0, 0.0], [1e-38, 3e38], [-5.0, 5.0]])
def test_any_values_with_a_finite_one_draw_a_named_line(values):
    assert "a" in texts(curves_svg([Line("a", values, "loss")]))


def test_no_points_draw_nothing():
    assert tradeoff_svg([]) == ""
    assert tradeoff_svg([("a", 10.0, 0.5, math.nan)]) == ""


def test_bytes_stand_on_a_log_axis_with_a_place_for_no_record():
    found = texts(tradeoff_svg(POINTS))
    assert found[:5] == ["0", "1 kB", "10 kB", "100 kB", "1 MB"]
    assert {"top · 0.51", "pairs · 0.83", "nothing"} <= set(found)


@pytest.mark.parametrize("sizes", [[0.0], [5.0], [1e3, 1e3], [1500.0, 1600.0], [1.0, 1e12], [0.0, 1e9]])
def test_any_sizes_give_an_axis_with_ticks(sizes):
    svg = tradeoff_svg([(f"p{i}", size, 0.6, 50.0) for i, size in enumerate(sizes)])
    assert [text for text in texts(svg) if re.fullmatch(r"0|[\d.]+ [kMGT]?B", text)]


def test_unmeasured_leakage_is_hollow():
    svg = tradeoff_svg([("a", 10.0, math.nan, 1.0)])
    assert "fill-opacity: 0" in svg or "fill: none; stroke: currentColor; stroke-width: 0.8" in svg


def test_plots_do_not_depend_on_the_readers_matplotlib_settings():
    lines = [Line("a", [1.0, 2.0], "u")]
    before = curves_svg(lines), tradeoff_svg(POINTS)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "path", "lines.linewidth": 9, "axes.grid": False}):
        assert (curves_svg(lines), tradeoff_svg(POINTS)) == before
        assert matplotlib.rcParams["font.size"] == 20


@pytest.mark.parametrize(
    "expected", [[0.5] * 4, [0.9, 0.95, 1.0], [0.0, 0.0, 1.0], [0.3], [], [0.1 * i for i in range(30)]]
)
def test_spread_places_keep_their_order_distance_and_bounds(expected):
    gap = 0.15
    places = spread(expected, gap, 0.0, 1.0)
    order = sorted(range(len(expected)), key=lambda i: expected[i])
    apart = [places[b] - places[a] for a, b in itertools.pairwise(order)]
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in places if len(expected) * gap <= 1)
    assert all(d >= min(gap, 1 / max(len(expected) - 1, 1)) - 1e-9 for d in apart)


def test_spread_leaves_places_alone_that_are_far_enough_apart():
    assert spread([0.9, 0.1, 0.5], 0.2, 0.0, 1.0) == [0.9, 0.1, 0.5]


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (numbers.size(0), "0 B"),
        (numbers.size(999), "999 B"),
        (numbers.size(1000), "1.0 kB"),
        (numbers.size(999_960), "1.0 MB"),
        (numbers.size(3.2e15), "3,200.0 TB"),
        (numbers.duration(0.349), "0.35 s"),
        (numbers.duration(59.96), "1 min 00 s"),
        (numbers.duration(3599.9), "1 h 00 min"),
        (numbers.duration(None), "not measured"),
        (numbers.percent(92.466), "92.47"),
        (numbers.percent(None), "not measured"),
        (numbers.count(None), "not measured"),
        (numbers.spread(0.5, 1), ""),
        (numbers.spread(None, 2), "sd not measured, n = 2"),
        (numbers.factor(10, None), ""),
        (numbers.factor(10, 10), ""),
        (numbers.share(0.99999), "more than 99.99%"),
        (numbers.setting(1e-3), "0.001"),
    ],
)
def test_numbers_read_as_promised(got, expected):
    assert got == expected
