"""Batch-moment matching brings a batch's own statistics nearer to the record's."""

from __future__ import annotations

import pytest
import torch

from datafree import presets, synthesis
from datafree import taps as tap_names
from datafree.data import load
from datafree.errors import UserError
from datafree.models import new_model
from datafree.network import frozen
from datafree.records import record
from datafree.spec import InputSpec
from datafree.terms import View


@pytest.fixture(scope="module")
def published():
    data = load("digits", "train")
    spec = InputSpec(shape=data.shape, classes=data.classes)
    network = new_model("hinton32", spec, seed=0)
    return network, record(network, data, [*presets.paper_row("all", network), *presets.best(network)])


def distance(maker, pixels, labels):
    objective = maker.objective
    with torch.no_grad(), frozen(maker.teacher.module), tap_names.watch(maker.teacher, objective.taps) as seen:
        logits = maker.teacher.logits(pixels)
        return float(objective(View(pixels, labels, logits, {**seen, tap_names.INPUT: pixels}))[0]) / len(pixels)


@pytest.mark.parametrize("start", ["noise", "distribution"])
def test_more_steps_match_the_moments_better(published, start):
    values = []
    for steps in (1, 60):
        maker = synthesis.named("matched", start=start, steps=steps, learning_rate=0.02).on(*published)
        made = maker.unit(0, 0, 128)
        values.append(distance(maker, made.pixels, made.labels))
    assert values[1] < 0.6 * values[0]


def test_units_go_through_the_classes_in_turn(published):
    maker = synthesis.named("matched", steps=1, classes=2).on(*published)
    seen = [sorted(set(maker.unit(index, 0, 8).labels.tolist())) for index in range(6)]
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [0, 1]]


def test_no_record_is_one_line(published):
    with pytest.raises(UserError, match="method 'matched' needs a record, got none"):
        synthesis.named("matched").on(published[0], None)
