"""Data sets ranked by similarity to the training data: order, sums, a network left as found, bad input."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from datafree import Similarity, similarity
from datafree._core.errors import UserError
from datafree._core.seeds import stream
from datafree.data import load
from datafree.data.augmentation import mirrored, shifted
from datafree.evaluation.similarity import layer_matches
from datafree.models.network import Network
from datafree.records.divergence import statistics, stored_statistics
from datafree.records.record import record
from datafree.records.statistics.moments import Moments

FORMS = ("forward", "reverse", "l2")


def state(network: Network):
    parts = list(network.module.modules())
    hooks = [len(p._forward_hooks) + len(p._forward_pre_hooks) + len(p._backward_hooks) for p in parts]
    return network.fingerprint(), hooks, [p.training for p in parts], [p.requires_grad for p in parts[0].parameters()]


def upside_down(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.flip(2)


def noise(count: int, shape) -> torch.Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", FORMS)
def test_training_data_come_first_and_noise_last(form, normed, digits):
    train = digits.subset(497)
    pixels = train.pixels(range(497))
    given = {
        "noise": noise(497, digits.shape),
        "turned": upside_down(pixels),
        "train": train,
        "test": load("digits", "test"),
    }
    found = similarity(normed, given, form=form)
    assert [own.name for own in found][-1] == "noise"
    assert {own.name for own in found[:2]} == {"train", "test"}
    assert [own.total for own in found] == sorted(own.total for own in found)
    assert found[-1].total > 10 * found[0].total
    assert {own.name: own.images for own in found} == {"noise": 497, "turned": 497, "train": 497, "test": 500}


@pytest.mark.parametrize("form", FORMS)
def test_layers_come_in_order_and_add_up_to_the_total(form, normed, digits):
    (own,) = similarity(normed, {"some": digits.subset(100)}, form=form)
    assert isinstance(own, Similarity)
    assert list(own.by_layer) == ["bn1", "bn2"]
    assert own.total == pytest.approx(sum(own.by_layer.values()), rel=1e-12)
    assert min(own.by_layer.values()) >= 0


def test_the_forms_differ_and_forward_is_the_default(normed, digits):
    some = {"some": digits.subset(100)}
    totals = {form: similarity(normed, some, form=form)[0].total for form in FORMS}
    assert len(set(totals.values())) == 3
    assert similarity(normed, some)[0].total == totals["forward"]


def test_a_data_set_and_its_pixels_are_equally_like_and_order_changes_nothing(normed, digits):
    some = digits.subset(200)
    pixels = some.pixels(range(200))
    mixed = pixels[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    values = [
        own.total for own in similarity(normed, {"a": some, "b": pixels, "c": mixed, "d": pixels.repeat(2, 1, 1, 1)})
    ]
    assert max(values) == pytest.approx(min(values), rel=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_the_network_is_left_as_found_even_where_a_set_is_refused(training, tiny):
    network = tiny("norm")
    network.module.train(training)
    network.module.conv.weight.requires_grad_(False)
    before = state(network)
    similarity(network, {"a": noise(20, (1, 4, 4))})
    assert state(network) == before
    with pytest.raises(UserError):
        similarity(network, {"a": noise(20, (1, 4, 4)), "b": 2 * noise(20, (1, 4, 4))})
    assert state(network) == before


def test_without_batch_norm_a_publishers_record_is_gone_by(teacher, whole_record, digits):
    given = {"noise": noise(400, digits.shape), "train": digits.subset(400)}
    found = similarity(teacher, given, whole_record)
    assert [own.name for own in found] == ["train", "noise"]
    assert (
        list(found[0].by_layer)
        == [own.tap for own in stored_statistics(teacher, whole_record)]
        == ["fc1", "fc2", "fc3"]
    )
    assert found[1].total > 10 * found[0].total


def test_what_is_matched_is_told_in_stored_standard_deviations_by_layer(normed, digits):
    layers, pixels = stored_statistics(normed), digits.subset(200).pixels(range(200))
    measured = statistics(normed, pixels, layers)
    own = layer_matches(normed, "some", pixels, layers)
    for layer, mean, spread in zip(layers, own.mean, own.spread, strict=True):
        m, s2 = measured[layer.tap]
        sigma = (layer.variance.double() + layer.epsilon).sqrt()
        assert mean == pytest.approx(float(((m - layer.mean) / sigma).square().mean().sqrt()))
        assert spread == pytest.approx(float(((s2 + layer.epsilon).sqrt() / sigma - 1).square().mean().sqrt()))
    exact = [replace(one, mean=measured[one.tap][0], variance=measured[one.tap][1]) for one in layers]
    same = layer_matches(normed, "same", pixels, tuple(exact))
    assert max(*same.mean, *same.spread) < 1e-9
    beyond = layer_matches(normed, "beyond", 3 * pixels, layers)
    assert min(beyond.mean) > max(own.mean)
    with pytest.raises(UserError, match="NaN"):
        layer_matches(normed, "nan", torch.nan * pixels, layers)


def test_layers_are_matched_by_the_same_augmented_images_as_in_similarity(normed, digits):
    layers, pixels = stored_statistics(normed), digits.subset(100).pixels(range(100))
    bright = normed.spec.model_copy(update={"border": (1.0,)})
    plain, dark, light = (
        layer_matches(normed, "some", pixels, layers, **options)
        for options in ({}, {"shift": 3, "flip": True}, {"shift": 3, "flip": True, "spec": bright})
    )
    assert len({plain.mean, dark.mean, light.mean}) == 3
    rng = stream(0, "shown", 0)
    augmented = mirrored(shifted(pixels, 3, rng, normed.spec.border_colour(pixels)), rng)
    assert layer_matches(normed, "some", augmented, layers).mean == pytest.approx(dark.mean)


def test_progress_ends_at_the_whole(normed, digits):
    calls = []
    similarity(normed, {"a": digits.subset(10), "b": digits.subset(20)}, progress=lambda *own: calls.append(own))
    assert calls[0] == (1000, 2000)
    assert calls[-1] == (2000, 2000)


def test_bad_input_is_one_line(teacher, normed, digits, tiny, toy):
    with pytest.raises(UserError) as caught:
        similarity(teacher, {"some": digits.subset(10)})
    assert (
        "record: got no record, expected statistics of the training data, since hinton32 has no batch norm; give"
        in str(caught.value)
    )
    network = tiny("linear")
    means = record(network, toy(), [(Moments(covariance="none"), ("input",))])
    with pytest.raises(UserError, match="record: got a record without variances, expected statistics"):
        similarity(network, {"some": toy()}, means)
    for few in (digits.subset(1), noise(1, digits.shape), noise(0, digits.shape)):
        with pytest.raises(UserError) as caught:
            similarity(normed, {"few": few})
        assert str(caught.value) == f"few has {len(few)} images, expected at least 2; give more"
    for pixels, text in [
        (noise(5, (1, 6, 8)), r"images of shape (1, 6, 8), expected (1, 8, 8)"),
        (noise(5, (3, 8, 8)), r"images of shape (3, 8, 8), expected (1, 8, 8)"),
        (noise(5, digits.shape) - 1, "expected 0 to 1; scale the images first"),
        (noise(5, digits.shape) * torch.nan, "images with NaN or infinity"),
    ]:
        with pytest.raises(UserError) as caught:
            similarity(normed, {"whole": digits.subset(10), "some": pixels})
        assert text in str(caught.value)
        assert str(caught.value).startswith("some: ")
        assert "\n" not in str(caught.value)


class Standardising(torch.nn.Module):
    """Standardises each image by itself, so that a blank one gives 0 / 0."""

    def __init__(self, inner: torch.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner((x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True))


def test_images_that_give_no_number_are_refused_by_the_name_of_their_source(normed, digits):
    own, blank = Network(Standardising(normed.module), normed.spec, "own"), digits.pixels(range(20)).clone()
    blank[[3, 8]] = 0.25
    text = "activations of layer 'inner.bn1' of own are not finite on 2 images, the first of them image 3 (counted from 0); "
    with pytest.raises(UserError) as caught:
        similarity(own, {"good": digits.subset(20), "blanks": blank})
    assert str(caught.value).startswith(f"blanks: {text}")
    with pytest.raises(UserError) as caught:
        layer_matches(own, "blanks", blank, stored_statistics(own))
    assert str(caught.value).startswith(text)


def test_a_divergence_that_no_number_can_hold_is_refused(normed, digits, monkeypatch):
    monkeypatch.setattr("datafree.evaluation.similarity.divergence", lambda *_: torch.tensor([torch.inf]))
    with pytest.raises(UserError, match="some: its divergence at layer 'bn1' is inf, expected a number; leave it out"):
        similarity(normed, {"some": digits.subset(10)})
