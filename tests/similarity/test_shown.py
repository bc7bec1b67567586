"""Images shown as in training: moved on black, mirrored; and the likeness of data that is shown so."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datafree._core.errors import UserError
from datafree.data.augmentation import mirrored, shifted
from datafree.evaluation.similarity import similarity
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_shifted_image_is_a_crop_of_the_padded_one():
    pixels = torch.rand(40, 2, 5, 7, generator=rng())
    moved = shifted(pixels, 2, rng(1), border=0.25)
    wide = nn.functional.pad(pixels, (2, 2, 2, 2), value=0.25)
    seen = set()
    for one, own in zip(wide, moved, strict=True):
        places = [(y, x) for y in range(5) for x in range(5) if torch.equal(one[:, y : y + 5, x : x + 7], own)]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) > 10 and torch.equal(shifted(pixels, 2, rng(1), border=0.25), moved)
    assert shifted(pixels, 0, rng()) is pixels


def test_a_mirrored_image_is_itself_or_its_mirror():
    pixels = torch.rand(60, 1, 4, 4, generator=rng())
    found = mirrored(pixels, rng(2))
    turned = [torch.equal(own, one.flip(2)) for one, own in zip(pixels, found, strict=True)]
    assert all(torch.equal(own, one) or flag for one, own, flag in zip(pixels, found, turned, strict=True))
    assert 15 < sum(turned) < 45


@pytest.fixture
def shown_in_training():
    """A batch norm that has seen images moved by up to 3 pixels on black."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=None), nn.Flatten(), nn.Linear(144, 3))
    pixels, draw = 0.5 + 0.5 * torch.rand(400, 1, 8, 8, generator=rng()), rng(3)
    with torch.no_grad():
        for _ in range(20):
            layers(shifted(pixels, 3, draw))
    return Network(layers.eval(), InputSpec(shape=(1, 8, 8), classes=("a", "b", "c")), "own"), pixels


def test_data_shown_as_in_training_is_the_most_alike(shown_in_training):
    network, pixels = shown_in_training
    plain = similarity(network, {"data": pixels})[0].total
    shown = similarity(network, {"data": pixels}, shift=3)[0].total
    assert shown < plain / 50
    assert similarity(network, {"data": pixels}, shift=3)[0].total == shown
    assert similarity(network, {"data": pixels}, shift=3, seed=1)[0].total != shown


def test_the_order_of_the_sources_changes_no_number(shown_in_training):
    network, pixels = shown_in_training
    first, second = {"one": pixels[:200]}, {"two": pixels[200:]}
    found = [similarity(network, given, shift=3, flip=True) for given in (first | second, second | first)]
    assert found[0] == found[1]
    assert similarity(network, second, shift=3, flip=True) == [own for own in found[0] if own.name == "two"]


def test_images_in_another_range_are_moved_on_black_too(shown_in_training):
    network, pixels = shown_in_training
    spec = network.spec.model_copy(update={"low": -1.0, "mean": (-1.0,), "std": (2.0,)})
    other = Network(network.module, spec, "own")
    found, wanted = (
        similarity(own, {"data": x}, shift=3)[0].total for own, x in ((other, 2 * pixels - 1), (network, pixels))
    )
    assert found == pytest.approx(wanted, rel=1e-3)


@pytest.mark.parametrize("shift", [-1, 8, 40000])
def test_images_are_not_moved_out_of_sight(shift, shown_in_training):
    network, pixels = shown_in_training
    with pytest.raises(UserError) as caught:
        similarity(network, {"data": pixels}, shift=shift)
    assert str(caught.value) == (
        f"shift: got {shift}, expected at least 0 and less than the 8 pixels of an image's side; give a number of pixels"
    )
    assert similarity(network, {"data": pixels}, shift=7)
