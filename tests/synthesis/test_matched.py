"""Batch-moment matching brings a batch's own statistics nearer to the record's."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.data import load
from datafree.models import hooks as tap_names
from datafree.models.input_spec import InputSpec
from datafree.models.network import frozen
from datafree.records import presets
from datafree.records.record import record
from datafree.releases.load import new_model
from datafree.synthesis import methods
from datafree.synthesis.losses import View
from datafree.synthesis.methods import chunk_labels
from datafree.synthesis.synthetic_set import synthesize


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
        maker = methods.from_name("matched", start=start, steps=steps, learning_rate=0.02).bind(*published)
        made = maker.chunk(0, 0, 128)
        values.append(distance(maker, made.pixels, made.labels))
    assert values[1] < 0.6 * values[0]


@pytest.mark.parametrize("images", [10, 100, 256, 1000, 1281, 2600])
def test_a_set_of_any_size_has_all_classes_alike(images):
    size = methods.from_name("matched").chunk_size(10, images)
    assert size <= 1280
    units = [chunk_labels(index, size, 10) for index in range(-(-images // size))]
    counts = torch.cat(units)[:images].bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 1
    assert min(int(own.bincount(minlength=10).min()) for own in units) >= 25, "statistics want more than a few images"


def test_every_unit_and_every_cut_of_it_has_all_classes_alike(published):
    labels = methods.from_name("matched", steps=1, classes=3).bind(*published).chunk(0, 0, 47).labels
    for cut in (10, 30, 47):
        counts = labels[:cut].bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= 1


def test_a_unit_is_a_batch_for_each_few_classes(published):
    maker = methods.from_name("matched", steps=40, learning_rate=0.02).bind(*published)
    before = methods.from_name("matched", steps=1, learning_rate=1e-9).bind(*published)
    made, drawn = maker.chunk(0, 0, 640), before.chunk(0, 0, 640)
    for first in range(0, 10, 2):
        rows = made.labels // 2 == first // 2
        after, start = (distance(maker, own.pixels[rows], own.labels[rows]) for own in (made, drawn))
        assert after < 0.8 * start


def test_a_set_says_nothing_of_units_and_is_balanced_and_grows_in_the_units_it_has(published, tmp_path):
    method = methods.from_name("matched", steps=1, start="noise")
    for images in (300, 301):
        made = synthesize(*published, method, tmp_path / "set", images=images, workers=1)
        assert made.about["unit"] == 300
        assert sorted(set(made.load()[1].bincount(minlength=10).tolist())) in ([30], [30, 31])


def test_no_record_is_one_line(published):
    with pytest.raises(UserError, match="method 'matched' needs a record, got none"):
        methods.from_name("matched").bind(published[0], None)
