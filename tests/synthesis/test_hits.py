"""Images that do not show their classes are flagged wherever the set is used; a record's units do not drown the class."""

from __future__ import annotations

import json

import pytest
import torch

from datafree.models.network import Network
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.synthesis.methods import from_name, methods
from datafree.synthesis.synthetic_set import SyntheticSet, synthesize


@pytest.fixture(scope="module")
def recorded(teacher, digits):
    return record(teacher, digits, [Moments(conv="units")])


def hits(network: Network, made) -> float:
    return float((network.predict(made.pixels).argmax(1) == made.labels).double().mean())


def test_few_steps_from_a_record_already_show_the_class(teacher, recorded):
    assert hits(teacher, from_name("bns-inception", steps=60).bind(teacher, recorded).chunk(0, 0, 64)) > 0.9
    assert hits(teacher, from_name("bns-inception", steps=5, classes=0.0).bind(teacher, recorded).chunk(0, 0, 64)) < 0.5


def test_beside_batch_norms_the_class_has_a_weight_of_one(normed):
    made = [
        from_name("bns-inception", steps=2, **own).bind(normed, None).chunk(0, 0, 8).pixels
        for own in ({}, {"classes": 1.0})
    ]
    assert torch.equal(*made)


def test_the_methods_without_a_class_are_known():
    assert {name for name, own in methods().items() if not getattr(own, "targeted", True)} == {"gaussian", "bns"}


def test_a_set_near_chance_says_so_and_any_other_does_not(teacher, recorded, tmp_path):
    poor = synthesize(
        teacher,
        recorded,
        from_name("bns-inception", steps=1, classes=0.0),
        tmp_path / "poor",
        images=64,
        chunk=64,
        workers=1,
    )
    about = json.loads((tmp_path / "poor" / "set.json").read_text())
    assert about["hits"] == pytest.approx(hits_of(poor), abs=1e-6)
    assert poor.warning() is not None
    assert "near chance (10.0 %): its images do not show their classes" in poor.warning()
    good = synthesize(
        teacher, recorded, from_name("inception", steps=40), tmp_path / "good", images=64, chunk=64, workers=1
    )
    assert hits_of(good) > 0.9 and good.warning() is None
    plain = synthesize(teacher, None, from_name("gaussian"), tmp_path / "noise", images=64, chunk=64, workers=1)
    assert plain.warning() is None


def test_a_set_of_an_earlier_version_without_the_share_opens_without_a_warning(teacher, recorded, tmp_path):
    made = synthesize(
        teacher, recorded, from_name("bns-inception", steps=1, classes=0.0), tmp_path, images=8, chunk=8, workers=1
    )
    older = SyntheticSet(made.folder, {key: own for key, own in made.about.items() if key != "hits"})
    assert older.warning() is None


def test_two_classes_are_not_near_chance_when_most_are_right(teacher, tmp_path):
    spec = teacher.spec.model_copy(update={"classes": ("a", "b")})
    about = {"method": {"method": "top"}, "images": 1000, "spec": spec.model_dump(mode="json")}
    for share, near in ((0.5, True), (0.54, True), (0.6, False), (1.0, False)):
        assert (SyntheticSet(tmp_path, about | {"hits": share}).warning() is not None) == near


def hits_of(made: SyntheticSet) -> float:
    _, labels, logits = made.load()
    return float((logits.argmax(1) == labels).double().mean())
