"""Promises of every condensing method, over all that discovery finds."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.data.condensed import methods
from datafree.data.condensed.methods import Condenser, Job, condense
from datafree.models.input_spec import InputSpec

METHODS = tuple(methods.methods())
SPEC = InputSpec(shape=(1, 8, 8), classes=tuple("abc"))
SMALL = {"dm": {"iterations": 3, "real": 4, "width": 4}}


def test_there_are_three_methods():
    assert set(METHODS) >= {"random", "kmeans", "dm"}


@pytest.fixture(params=METHODS)
def method(request):
    return methods.from_name(request.param, **SMALL.get(request.param, {}))


@pytest.fixture
def data(toy):
    return toy(shape=(1, 8, 8))


def test_it_obeys_its_protocol_and_its_settings_go_through_a_file(method):
    assert isinstance(method, Condenser)
    assert methods.from_dict(method.model_dump(mode="json")) == method
    assert method.summary and method.leakage.endswith(".")


def test_there_are_exactly_as_many_images_of_each_class_in_the_specs_shape(method, data):
    for count in (1, 3):
        made = condense(method, Job(data, SPEC, count))
        assert made.by_class() == [count] * 3
        assert made.pixels.shape == (3 * count, 1, 8, 8) and made.pixels.dtype == torch.float32
        assert torch.equal(made.labels.max(1).values, torch.ones(3 * count))
        assert made.about["leakage"] == method.leakage


def test_images_are_resized_to_the_specs_shape(method, data):
    made = condense(method, Job(data, SPEC.model_copy(update={"shape": (1, 6, 6)}), 2))
    assert made.pixels.shape == (6, 1, 6, 6)


def test_the_same_seed_gives_the_same_images_and_another_seed_others(method, data):
    first, again, other = (condense(method, Job(data, SPEC, 3, seed=seed)).pixels for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_torchs_global_stream_is_left_alone(method, data):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    condense(method, Job(data, SPEC, 1))
    assert torch.equal(torch.rand(3), wanted)


def test_too_few_images_of_a_class_and_other_data_are_refused(method, data, toy):
    with pytest.raises(UserError, match="per_class: got 21, but toy has 20 images of class 'a'; give at most as many"):
        condense(method, Job(data, SPEC, 21))
    with pytest.raises(UserError, match="per_class: got 0, expected at least 1"):
        condense(method, Job(data, SPEC, 0))
    with pytest.raises(UserError, match="toy has 3 channels and 3 classes, expected 1 and 3"):
        condense(method, Job(toy(shape=(3, 8, 8)), SPEC, 1))


def test_the_progress_ends_at_its_total(method, data):
    seen = []
    condense(method, Job(data, SPEC, 1, progress=lambda done, total: seen.append((done, total))))
    assert seen[-1][0] == seen[-1][1] > 0
