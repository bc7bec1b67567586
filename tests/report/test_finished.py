"""Numbers of a run.json that nobody can sum up or draw are refused in one line."""

from __future__ import annotations

import json

import pytest

from datafree._core.errors import UserError
from datafree.evaluation.report.similarity import similarity_svg
from datafree.evaluation.similarity import Similarity
from datafree.runs.run_reader import FinishedRun

HUGE = 1.7e308
PARTS = {
    "loss": {"curve": {"loss": [HUGE, -HUGE]}},
    "scores": {"curve": {"scores": [HUGE]}},
    "online loss": {"online": {"loss": [-HUGE]}},
    "online seconds": {"online": {"seconds": [1e308, 1e308]}},
    "phases": {"online": {"phases": {"student": 1e308}}},
    "divergence": {"similarity": [{"name": "a", "images": 2, "total": HUGE, "by_layer": {}}]},
    "divergence of a layer": {"similarity": [{"name": "a", "images": 2, "total": 1.0, "by_layer": {"x": HUGE}}]},
    "many data sets": {"similarity": [{"name": "a", "images": 2, "total": 1.0, "by_layer": {}}] * 9000},
}


def test_a_divergence_of_float32s_range_is_drawn():
    similarity_svg([Similarity("a", 2, 3e38, {"x": 3e38}), Similarity("b", 2, 1e100, {"x": -1e100})], "nats")


@pytest.mark.parametrize("result", PARTS.values(), ids=PARTS)
def test_a_number_beyond_what_can_be_drawn_is_refused(tmp_path, result):
    (tmp_path / "run.json").write_text(json.dumps({"verb": "similarity", "result": result}))
    with pytest.raises(UserError) as caught:
        FinishedRun.of(tmp_path)
    assert "\n" not in str(caught.value)
