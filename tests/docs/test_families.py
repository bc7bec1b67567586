"""The page of a family names every member that discovery finds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from datafree.data import registry
from datafree.data.condensed import methods as condensing
from datafree.distillation import replay
from datafree.models import zoo
from datafree.records import presets, statistics
from datafree.synthesis import methods
from datafree.synthesis.losses import alignment

DOCS = Path(__file__).resolve().parents[2] / "docs"
FAMILIES = {
    "synthesis.md": methods.methods(),
    "statistics.md": statistics.kinds(),
    "replay.md": replay.kinds(),
    "alignment.md": alignment.kinds(),
    "condensed.md": condensing.methods(),
    "data.md": registry.names(),
    "records.md": presets.PRESETS,
}


@pytest.mark.parametrize(("page", "members"), FAMILIES.items(), ids=list(FAMILIES))
def test_a_page_names_every_member(page, members: Iterable[str]):
    text = (DOCS / page).read_text(encoding="utf-8")
    names = list(members)
    assert len(names) >= 3
    assert [name for name in names if f"`{name}`" not in text] == []


def test_the_page_of_the_models_names_the_zoo():
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    general = {"hinton800": "`hintonN`", "resnet20": "`resnetN`", "resnet44": "`resnetN`"}
    assert [name for name in zoo.names() if general.get(name, f"`{name}`") not in text] == []
