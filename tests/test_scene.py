"""Maps become images of things on a ground: where things are not there is the ground, whatever the numbers drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datafree.scene import compose, drawn_numbers
from datafree.spec import InputSpec


def spec(*shape: int, **own) -> InputSpec:
    return InputSpec(shape=shape, classes=("a", "b"), **own)


def maps(of: InputSpec, count: int = 256) -> Tensor:
    channels, height, width = of.shape
    return torch.randn(count, 1 + channels, height, width, generator=torch.Generator().manual_seed(1))


def drawn(of: InputSpec, count: int = 256) -> Tensor:
    return torch.randn(count, drawn_numbers(of), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (1, 8, 8), (2, 5, 9), (3, 1, 1)])
@pytest.mark.parametrize("ground", ["dark", "bright", "any"])
def test_pixels_are_in_range_and_a_gradient_reaches_the_maps(shape, ground):
    own = spec(*shape)
    given = maps(own).requires_grad_()
    pixels = compose(given, drawn(own), ground, own)
    assert pixels.shape == (256, *shape) and pixels.isfinite().all()
    assert own.low <= float(pixels.detach().min()) <= float(pixels.detach().max()) <= own.high
    pixels.square().sum().backward()
    assert given.grad is not None and given.grad.isfinite().all()
    assert min(shape[1:]) == 1 or float(given.grad.abs().max()) > 0


@pytest.mark.parametrize(("ground", "ends"), [("dark", (0.0, 0.0)), ("bright", (1.0, 1.0)), ("any", (0.0, 1.0))])
def test_where_there_is_no_silhouette_there_is_the_ground(ground, ends):
    own = spec(1, 16, 16)
    given, numbers = maps(own), drawn(own)
    given[:, 0, :8], given[:, 0, 8:] = -5.0, 5.0  # things in the lower half
    numbers[:, :6] = torch.tensor([9.0, 0, 0, 9.0, 0, 0])  # of the finest grain
    numbers[:, 6:9] = torch.tensor([1.0, 3.0, 0.5])  # not mirrored, sharp, a little more than half of the image
    pixels = compose(given, numbers, ground, own)
    behind = pixels[:, 0, :7].flatten(1)
    assert float(behind.std(1).max()) < 1e-3, "the ground has no texture"
    assert (float(behind.min()), float(behind.max())) == pytest.approx(ends, abs=1e-3)
    at_an_end = ((behind.mean(1) < 1e-3) | (behind.mean(1) > 1 - 1e-3)).float().mean()
    assert 0.35 < float(at_an_end) < 0.65 or ground != "any"
    assert float(pixels[:, 0, 9:].flatten(1).std(1).mean()) > 0.05, "things have one"


@pytest.mark.parametrize(("symmetry", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_a_share_of_the_images_are_their_own_mirror_images(symmetry, low, high):
    own = spec(3, 12, 12)
    pixels = compose(maps(own), drawn(own), "any", own, symmetry)
    same = (pixels - pixels.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert low <= float(same.float().mean()) <= high


def test_grain_goes_from_single_pixels_to_a_quarter_of_the_image():
    own = spec(1, 32, 32)
    assert drawn_numbers(own) == 2 * 4 + 5 + 2
    numbers = drawn(own)
    rough = []
    for level in range(4):
        numbers[:, :8] = 0.0
        numbers[:, [level, 4 + level]] = 9.0
        pixels = compose(maps(own), numbers, "dark", own)
        rough.append(float((pixels.diff(dim=3).abs().mean((1, 2, 3)) / pixels.std((1, 2, 3))).mean()))
    assert rough == sorted(rough, reverse=True) and rough[0] > 4 * rough[3]


def test_the_range_is_the_specs_and_a_colour_is_not_always_grey():
    own = spec(3, 8, 8)
    pixels = compose(maps(own), drawn(own), "dark", own)
    hue = pixels.mean((2, 3))
    assert float((hue.amax(1) - hue.amin(1)).mean()) > 0.05
    wide = own.model_copy(update={"low": -1.0, "high": 3.0})
    assert torch.allclose(compose(maps(own), drawn(own), "dark", wide), 4 * pixels - 1, atol=1e-5)
