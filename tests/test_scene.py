"""Maps become drawings, or things on a ground: where things are not there is the ground, whatever the numbers drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from datafree.models.input_spec import InputSpec
from datafree.synthesis.scene import Scene, _resized


def spec(*shape: int, **own) -> InputSpec:
    return InputSpec(shape=shape, classes=("a", "b"), **own)


def maps(of: InputSpec, scene: Scene, count: int = 256) -> Tensor:
    return torch.randn(count, scene.maps(of), *of.shape[1:], generator=torch.Generator().manual_seed(1))


def drawn(of: InputSpec, scene: Scene, count: int = 256) -> Tensor:
    return torch.randn(count, scene.numbers(of), generator=torch.Generator().manual_seed(2))


def made(of: InputSpec, scene: Scene) -> Tensor:
    return scene.compose(maps(of, scene), drawn(of, scene), of)


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 28, 28), (1, 8, 8), (2, 5, 9), (3, 1, 1)])
@pytest.mark.parametrize("ground", ["dark", "bright", "any"])
@pytest.mark.parametrize("kind", ["things", "drawings"])
def test_pixels_are_in_range_and_a_gradient_reaches_the_maps(shape, ground, kind):
    own, scene = spec(*shape), Scene(kind, ground)
    given = maps(own, scene).requires_grad_()
    pixels = scene.compose(given, drawn(own, scene), own)
    assert pixels.shape == (256, *shape) and pixels.isfinite().all()
    assert own.low <= float(pixels.detach().min()) <= float(pixels.detach().max()) <= own.high
    pixels.square().sum().backward()
    assert given.grad is not None and given.grad.isfinite().all()
    assert min(shape[1:]) == 1 or float(given.grad.abs().max()) > 0


@pytest.mark.parametrize(("ground", "ends"), [("dark", (0.0, 0.0)), ("bright", (1.0, 1.0)), ("any", (0.0, 1.0))])
def test_where_there_is_no_silhouette_there_is_the_ground(ground, ends):
    own, scene = spec(1, 16, 16), Scene("things", ground)
    given, numbers = maps(own, scene), drawn(own, scene)
    given[:, 0, :8], given[:, 0, 8:] = -5.0, 5.0  # things in the lower half
    numbers[:, :6] = torch.tensor([9.0, 0, 0, 9.0, 0, 0])  # of the finest grain
    numbers[:, 6:9] = torch.tensor([1.0, 3.0, 0.5])  # not mirrored, sharp, a little more than half of the image
    pixels = scene.compose(given, numbers, own)
    behind = pixels[:, 0, :7].flatten(1)
    assert float(behind.std(1).max()) < 1e-3, "the ground has no texture"
    assert (float(behind.min()), float(behind.max())) == pytest.approx(ends, abs=1e-3)
    at_an_end = ((behind.mean(1) < 1e-3) | (behind.mean(1) > 1 - 1e-3)).float().mean()
    assert 0.35 < float(at_an_end) < 0.65 or ground != "any"
    assert float(pixels[:, 0, 9:].flatten(1).std(1).mean()) > 0.05, "things have one"


@pytest.mark.parametrize(("symmetry", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_a_share_of_the_things_are_their_own_mirror_images(symmetry, low, high):
    own = spec(3, 12, 12)
    pixels = made(own, Scene("things", "any", symmetry))
    same = (pixels - pixels.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert low <= float(same.float().mean()) <= high


def test_things_are_drawn_to_the_middle_of_an_image_of_any_shape():
    own, scene = spec(1, 24, 32), Scene("things", "dark", centre=6.0)
    middle, corners = torch.zeros(24, 32), torch.zeros(24, 32)
    middle[8:16, 11:21], corners[:4, :4] = 1, 1
    corners = corners + corners.flip(0) + corners.flip(1) + corners.flip(0, 1)
    plain, centred = (
        [float((pixels[:, 0].mean(0) * part).sum() / part.sum()) for part in (middle, corners)]
        for pixels in (made(own, Scene("things", "dark")), made(own, scene))
    )
    assert 0.8 < plain[0] / plain[1] < 1.25 and centred[0] > 4 * centred[1]
    assert scene.numbers(own) == Scene("things").numbers(own) + 3
    mirrored = made(own, Scene("things", "dark", 1.0, 6.0))
    assert torch.allclose(mirrored, mirrored.flip(3), atol=1e-5)


def test_grain_goes_from_single_pixels_to_a_quarter_of_the_image():
    own, scene = spec(1, 32, 32), Scene("things", "dark")
    assert scene.numbers(own) == 2 * 4 + 5 + 2
    numbers = drawn(own, scene)
    rough = []
    for level in range(4):
        numbers[:, :8] = 0.0
        numbers[:, [level, 4 + level]] = 9.0
        pixels = scene.compose(maps(own, scene), numbers, own)
        rough.append(float((pixels.diff(dim=3).abs().mean((1, 2, 3)) / pixels.std((1, 2, 3))).mean()))
    assert rough == sorted(rough, reverse=True) and rough[0] > 4 * rough[3]


def test_a_colour_is_not_always_grey():
    hue = made(spec(3, 8, 8), Scene("things", "dark")).mean((2, 3))
    assert float((hue.amax(1) - hue.amin(1)).mean()) > 0.05


@pytest.mark.parametrize("kind", ["things", "drawings"])
def test_the_range_is_the_specs(kind):
    own, scene = spec(3, 8, 8), Scene(kind, "dark")
    wide = own.model_copy(update={"low": -1.0, "high": 3.0})
    assert torch.allclose(made(wide, scene), 4 * made(own, scene) - 1, atol=1e-5)


def test_drawings_are_from_grey_to_black_and_white():
    pixels = made(spec(1, 16, 16), Scene("drawings", "dark"))
    ends = ((pixels < 0.02) | (pixels > 0.98)).float().mean((1, 2, 3))
    assert float(ends.min()) < 0.3 and float(ends.max()) > 0.9
    others = made(spec(1, 16, 16), Scene("drawings", "dark", 1.0, 6.0))
    assert torch.equal(pixels, others), "symmetry and centre are of things"


@pytest.mark.parametrize(("old", "new"), [((32, 32), (16, 16)), ((7, 7), (14, 9)), ((5, 9), (3, 5)), ((1, 2), (4, 4))])
def test_resizing_by_products_is_bilinear(old, new):
    maps = torch.randn(3, 2, *old, dtype=torch.double, requires_grad=True)
    made, wanted = _resized(maps, new), interpolate(maps, size=new, mode="bilinear")
    torch.testing.assert_close(made, wanted)
    sought = torch.randn_like(wanted)
    torch.testing.assert_close(torch.autograd.grad(made, maps, sought), torch.autograd.grad(wanted, maps, sought))


def test_things_are_made_of_maps_in_half_precision_too():
    scene, of = Scene("things"), spec(1, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = scene.compose(maps(of, scene).bfloat16(), drawn(of, scene), of).float()
    assert (narrow - made(of, scene)).abs().mean() < 0.02
