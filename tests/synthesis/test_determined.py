"""Layers that determine the pixels: they give back what the input's own record says."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from datafree._core.errors import UserError
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.synthesis.methods.distribution import Distribution
from datafree.synthesis.pixel_moments import ClassCovariances, coarse_images, pixel_moments


def network_of(first: nn.Module, units: int, *, shape=(2, 4, 4), **spec) -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(OrderedDict(first=first, relu=nn.ReLU(), flat=nn.Flatten(), last=nn.Linear(units, 3)))
    return Network(module.eval(), InputSpec(shape=shape, classes=("a", "b", "c"), **spec), "own")


def stacked(covariance: ClassCovariances) -> torch.Tensor:
    return torch.stack([*covariance])


def linear(units=40) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32, units))


FIRSTS = {
    "a linear layer": (linear, 40, "first.1"),
    "a conv layer": (lambda: nn.Conv2d(2, 6, 3, padding=1), 96, "first"),
    "a conv layer without bias": (lambda: nn.Conv2d(2, 9, 2, stride=2, bias=False), 36, "first"),
}


@pytest.mark.parametrize("kind", FIRSTS)
@pytest.mark.parametrize("spec", [{}, {"mean": (0.4, 0.1), "std": (0.3, 2.0)}, {"mean": (0.5,), "std": (0.25,)}])
def test_an_injective_first_layer_gives_back_the_pixels_moments(kind, spec, toy):
    make, units, tap = FIRSTS[kind]
    torch.manual_seed(1)
    network, data = network_of(make(), units, **spec), toy(120, shape=(2, 4, 4))
    moments = Moments(covariance="full")
    itself = pixel_moments(network, record(network, data, [(moments, ("input", tap))]))
    through = pixel_moments(network, record(network, data, [(moments, (tap,))]))
    assert (itself.source, itself.determined, through.source) == ("input", 1.0, tap)
    assert through.determined == 1.0
    torch.testing.assert_close(through.mean, itself.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(stacked(through.covariance), stacked(itself.covariance), rtol=0, atol=1e-5)
    x = data.pixels(range(120)).flatten(1).double()
    for c in range(3):
        own = x[data.labels == c]
        torch.testing.assert_close(itself.mean[c], own.mean(0), rtol=0, atol=1e-6)
        torch.testing.assert_close(itself.covariance[c], own.T.cov(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("own", [Moments(covariance="diagonal"), Moments(covariance="lowrank", rank=4)])
def test_of_a_diagonal_the_pixels_variances_are_as_large_as_they_are(own, toy):
    network, data = network_of(linear(34), 34), toy(300, shape=(2, 4, 4))
    found = pixel_moments(network, record(network, data, [(own, ("first.1",))]))
    variance = stacked(found.covariance).diagonal(dim1=1, dim2=2)
    x = data.pixels(range(300)).flatten(1)
    true = torch.stack([x[data.labels == c].var(0).mean() for c in range(3)])
    torch.testing.assert_close(variance.mean(1).float(), true, rtol=0.3, atol=0)
    assert float(variance.min()) >= -1e-6 and float(variance.max()) <= 0.25


def test_the_range_of_the_pixels_is_scaled_to_zero_and_one(toy):
    network = network_of(linear(), 40, low=-1.0, high=1.0)
    found = pixel_moments(network, record(network, toy(shape=(2, 4, 4)), [(Moments(covariance="full"), ("first.1",))]))
    plain = network_of(linear(), 40)
    wanted = pixel_moments(plain, record(plain, toy(shape=(2, 4, 4)), [(Moments(covariance="full"), ("input",))]))
    torch.testing.assert_close(found.mean, wanted.mean, rtol=0, atol=1e-5)  # the same images, from -1 to 1 for one
    torch.testing.assert_close(stacked(found.covariance), stacked(wanted.covariance), rtol=0, atol=1e-5)


def test_pooled_covariances_serve_every_class(toy):
    network = network_of(linear(), 40)
    made = record(network, toy(shape=(2, 4, 4)), [(Moments(covariance="full", pooled=True), ("first.1",))])
    found = pixel_moments(network, made)
    assert found.mean.shape == (3, 32)
    assert torch.equal(found.covariance[0], found.covariance[2])


def refused(network, data, tap, **settings) -> str:
    made = record(network, data, [(Moments(covariance="full", **settings), (tap,))])
    with pytest.raises(UserError) as caught:
        Distribution().bind(network, made)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_first_layer_that_loses_the_image_is_refused(toy):
    data = toy(shape=(2, 4, 4))
    text = refused(network_of(linear(8), 8), data, "first.1")
    assert text == (
        "layer 'first.1' determines 25 % of the pixel directions, expected at least 50 %; "
        "use the method 'all', or ask the publisher to add moments of the input: datafree record moments --taps input --add"
    )
    half = network_of(linear(16), 16)
    assert pixel_moments(half, record(half, data, [(Moments(covariance="full"), ("first.1",))])).determined == 0.5


def test_a_layer_that_does_not_see_the_image_is_refused(toy):
    network = network_of(nn.Sequential(nn.Flatten(), nn.Tanh(), nn.Linear(32, 40)), 40)
    assert "layer 'first.2' does not get the image itself" in refused(network, toy(shape=(2, 4, 4)), "first.2")


def test_a_linear_layer_along_one_side_of_the_image_is_refused(toy):
    network = network_of(nn.Linear(4, 5), 40)
    assert "layer 'first' is neither a 2-d convolution nor a linear map" in refused(
        network, toy(shape=(2, 4, 4)), "first"
    )


def test_channel_means_and_later_layers_are_refused(toy):
    network, data = network_of(nn.Conv2d(2, 6, 3, padding=1), 96), toy(shape=(2, 4, 4))
    assert "holds channel means, which do not determine pixels" in refused(network, data, "first", conv="channels")
    assert refused(network, data, "last") == (
        "the record has no moments of the input or of the first layer, so it does not determine the pixels; "
        "use the method 'all' or 'top', or ask the publisher to add moments of the input: datafree record moments --taps "
        "input --add"
    )


def test_large_images_say_whether_the_input_was_recorded_and_how(toy):
    network, data = network_of(nn.Conv2d(2, 3, 3, stride=2), 3), toy(shape=(2, 4, 4))
    pooled = record(network, data, [(Moments(conv="channels"), ("input",)), Moments()])
    with pytest.raises(UserError) as caught:
        coarse_images(network, pooled)
    assert str(caught.value) == (
        "entry 'input' holds channel means, which do not determine pixels; use the method 'all', or ask the publisher for a "
        "new record, of units: datafree record moments TEACHER --data DATA --taps input --covariance lowrank --conv units "
        "--replace"
    )
    with pytest.raises(
        UserError, match="images of 32 numbers, but no low-rank moments of the input in the record; use"
    ):
        coarse_images(network, record(network, data, [Moments()]))
    units = record(network, data, [(Moments(covariance="lowrank", conv="units"), ("input",))])
    assert coarse_images(network, units).mean.shape == (3, 32)


@pytest.mark.parametrize("kind", ["full", "lowrank", "shrunk", "diagonal", "none"])
@pytest.mark.parametrize("downsample", [1, 2])
@pytest.mark.parametrize("pooled", [False, True])
def test_the_covariance_of_a_class_is_that_of_its_entry(kind, downsample, pooled, toy):
    network = network_of(linear(), 40, low=-1.0, high=1.0)
    settings = Moments(covariance=kind, rank=3, downsample=downsample, pooled=pooled, conv="units")
    entry = (of_input := record(network, toy(shape=(2, 4, 4)), [(settings, ("input",))])).entries["input"]
    pixels = pixel_moments(network, of_input)
    matrix = torch.eye(32, dtype=torch.float64)
    if downsample == 2:
        corners = torch.eye(8, dtype=torch.float64).view(8, 2, 2, 2)
        matrix = interpolate(corners, size=(4, 4), mode="bilinear", align_corners=False).flatten(1).T
    for c in range(3):
        group, unit = 0 if pooled else c, 1 / 2
        expected = torch.zeros(32, 32, dtype=torch.float64)
        if "factor" in entry.summary:
            factor = entry.summary["factor"][group].double()
            expected += matrix @ factor @ factor.T @ matrix.T
        if "variance" in entry.summary:
            expected += matrix @ torch.diag(entry.summary["variance"][group].double()) @ matrix.T
        torch.testing.assert_close(pixels.covariance[c], expected * unit**2, rtol=1e-9, atol=1e-12)
    assert len(pixels.covariance) == len(pixels.covariance[0:3]) == 3
    with pytest.raises(IndexError):
        pixels.covariance[3]


@pytest.mark.parametrize("downsample", [1, 2])
def test_large_images_are_drawn_on_the_record_s_grid_and_then_enlarged(downsample, toy):
    network = network_of(linear(), 40, low=-1.0, high=1.0)
    settings = Moments(covariance="lowrank", rank=3, downsample=downsample, conv="units", pooled=True)
    of_input = record(network, toy(shape=(2, 4, 4)), [(settings, ("input",))])
    images, exact = coarse_images(network, of_input), pixel_moments(network, of_input)
    assert images.factor.shape == (3, 32 // downsample**2, 3) and images.factor.stride(0) == 0  # one for all classes
    labels = torch.full((50_000,), 1)
    drawn = images.latent(labels, torch.ones(50_000), torch.Generator().manual_seed(0))
    assert drawn.shape == (50_000, 32)
    torch.testing.assert_close(drawn.mean(0).double(), exact.mean[1], rtol=0, atol=5e-3)
    variance = of_input.entries["input"].summary["variance"][0].double()
    if downsample == 1:  # the directions alone: without the variance outside of them
        expected = exact.covariance[1] - torch.diag(variance) / 2**2
        torch.testing.assert_close(drawn.T.cov().double(), expected, rtol=0, atol=2e-3)
