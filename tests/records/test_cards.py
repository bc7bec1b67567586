"""A card shows what files and users name as text: no name is read as Markdown or HTML, and readable names stay."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from torch import nn

from datafree._core.text import markdown
from datafree.data.condensed.condensed_set import Condensed, card
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases.release import model_card

HOSTILE = [
    "<script>alert(1)</script>", "[x](http://evil.example)", "![i](x)", "`code`", "``", "a|b", "# head", "*b*", "_i_",
    "__b__", "http://evil.example", "WWW.evil.example", "<!-- ", "&lt;b&gt;", "a\n\n# head", "a\r\nb", "\x1b[2J",
    "\u202egnp", "~~s~~",
    "\\", "x`", "mailto:a@b", "```\nfence", " ", "", "$x$", "a@b.example", "a\u2028b", "]]>", "{{x}}", "=", "a`|`b",
]  # fmt: skip
PLAIN = [
    "cat",
    "größe",
    "кот",
    "猫",
    "class_1",
    "T-shirt/top",
    "n01440764 tench",
    "don't",
    "10 %",
    "a, b",
    "net.py:build",
]


def rest(line: str) -> str:
    """A line without its code spans, by CommonMark's rule: as many backticks close as open."""
    return re.sub(r"(?<!`)(`+)(?!`)(.*?)(?<!`)\1(?!`)", "", line)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_markup_is_within_a_code_span_and_on_one_line(text):
    for options in ({}, {"code": True}, {"cell": True}):
        shown = markdown(text, **options)
        assert shown.isprintable() and "\n" not in shown
        assert rest(f"x {shown} y") == "x  y"
        if "cell" in options:
            assert not re.search(r"(?<!\\)\|", shown)


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_name_stays(text):
    assert markdown(text) == text


def test_no_card_has_markup_from_names(tiny):
    names = tuple(name for name in HOSTILE if name)
    images = torch.zeros(len(names), 1, 4, 4)
    spec = InputSpec(shape=(1, 4, 4), classes=names)
    few = Condensed(images, torch.eye(len(names)), spec, {"<b>": {"<i>": ["`", "|x|"]}, "leakage": "<script>\n# no"})
    network = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, len(names))).eval(), spec, "x.py:<img src=x>")
    for text in (card(few), model_card(network, None, "from <b> on\n\n# data")):
        assert text.count("\n# ") == 0 and sum(line.startswith("#") for line in text.splitlines()) <= 2
        for line in text.splitlines():
            assert "<" not in rest(line) and "](" not in rest(line) and "://" not in rest(line)
    assert "classes: a, b, c." in model_card(tiny(), None, "")


def test_a_paragraph_of_a_card_does_not_continue_a_list(tiny):
    custom = Network(tiny().module, tiny().spec, "x.py:build")
    lines = model_card(custom, None, "").splitlines()
    after = [line for before, line in pairwise(lines) if before.startswith("- ")]
    assert len(after) >= 4
    assert all(line.startswith("- ") or not line for line in after)
