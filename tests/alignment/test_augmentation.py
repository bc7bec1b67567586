"""Differentiable augmentation: exact where nothing is interpolated, alive where a gradient has to pass."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.data.augmentation import Augmentation, cut, exposed, shifted, tinted
from datafree.models.input_spec import InputSpec

COLOUR = InputSpec(shape=(3, 8, 8), classes=("a", "b"))
GREY = InputSpec(shape=(1, 8, 8), classes=("a", "b"))
ALL = Augmentation(translate=0.25, cutout=0.5, colour=1.0)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def images(channels=3, count=6):
    return torch.rand(count, channels, 8, 8, generator=rng(9))


def test_a_translation_moves_whole_pixels_on_black():
    x = images(1)
    found = shifted(x, 2, rng())
    moves = set()
    for own, moved in zip(x, found):
        fits = []
        for down in range(-2, 3):
            for right in range(-2, 3):
                wanted = torch.zeros_like(own)
                rows, columns = slice(max(0, down), 8 + min(0, down)), slice(max(0, right), 8 + min(0, right))
                from_rows, from_columns = (
                    slice(max(0, -down), 8 - max(0, down)),
                    slice(max(0, -right), 8 - max(0, right)),
                )
                wanted[:, rows, columns] = own[:, from_rows, from_columns]
                if torch.equal(wanted, moved):
                    fits.append((down, right))
        assert len(fits) == 1
        moves |= set(fits)
    assert len(moves) > 2


def test_translation_is_a_share_of_the_smaller_side():
    x = torch.zeros(400, 1, 8, 20)
    x[:, :, 4, 10] = 1
    found = Augmentation(translate=0.25, colour=0, bend=0, exposure=0).show(x, GREY, rng()).nonzero()
    assert (found[:, 2].min(), found[:, 2].max(), found[:, 3].min(), found[:, 3].max()) == (2, 6, 8, 12)


def test_a_cut_is_one_rectangle_of_the_given_share_and_leaves_the_rest():
    x = images() + 1
    found = cut(x, 0.5, rng())
    gone = found == 0
    assert torch.equal(found[~gone], x[~gone])
    for own in gone.any(1):
        rows, columns = own.any(1).sum(), own.any(0).sum()
        assert int(own.sum()) == rows * columns and 2 <= rows <= 4 and 2 <= columns <= 4
    assert torch.equal(gone[:, 0], gone[:, 2])


def test_tints_of_strength_0_change_nothing_and_a_grey_image_keeps_its_tone():
    assert torch.allclose(tinted(images(), 0.0, rng()), images(), atol=1e-7)
    assert torch.equal(Augmentation(translate=0, colour=1, bend=0, exposure=0).show(images(1), GREY, rng()), images(1))
    assert not torch.allclose(
        Augmentation(translate=0, colour=1, bend=0, exposure=0).show(images(), COLOUR, rng()), images(), atol=0.05
    )


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.0, 255.0), (-123.7, 151.1), (0.25, 0.5)])
@pytest.mark.parametrize("how", [{"translate": 0.3}, {"translate": 0, "cutout": 0.5}])
def test_what_comes_in_and_what_is_cut_out_is_black_in_any_range(how, low, high):
    spec = COLOUR.model_copy(update={"low": low, "high": high})
    own = Augmentation(**how, colour=0, bend=0, exposure=0)
    found, first = own.show(torch.full((6, 3, 8, 8), high), spec, rng()), own.show(images() * 0 + 1, COLOUR, rng())
    assert bool((first == 0).any())
    torch.testing.assert_close(found, low + (high - low) * first)


@pytest.mark.parametrize("how", [ALL, Augmentation(), Augmentation(cutout=0.5)])
def test_one_stream_gives_one_showing_and_the_next_another(how):
    found = [how.show(images(), COLOUR, rng(seed)) for seed in (0, 0, 1)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert len(how.show(images()[:1].repeat(20, 1, 1, 1), COLOUR, rng()).unique(dim=0)) > 10


def test_a_gradient_passes_to_every_image():
    x = images().double().requires_grad_()
    (gradient,) = torch.autograd.grad(ALL.show(x, COLOUR, rng()).square().sum(), x)
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0.1).all()
    assert torch.autograd.gradcheck(lambda own: ALL.show(own, COLOUR, rng()), (x,), fast_mode=True)


def test_all_0_is_no_augmentation():
    assert torch.equal(
        Augmentation(translate=0, cutout=0, colour=0, bend=0, exposure=0).show(images(), COLOUR, rng()), images()
    )


def test_a_share_beyond_the_image_is_refused():
    with pytest.raises(UserError, match="translate: got 1"):
        Augmentation(translate=1.0)


def test_a_share_of_1_exposes_every_grey_image_within_the_range_and_0_and_colours_none():
    grey = InputSpec(shape=(1, 8, 8), classes=("a", "b"), low=-1.0, high=3.0)
    x = images(1, 200) * 4 - 1
    how = {"translate": 0, "colour": 0, "bend": 0}
    found = Augmentation(**how, exposure=1).show(x, grey, rng())
    assert float(found.min()) >= -1 and float(found.max()) <= 3
    assert bool((found - x).flatten(1).abs().amax(1).gt(0.01).all())
    half = Augmentation(**how, exposure=0.5).show(x, grey, rng())
    assert 60 < int((half != x).flatten(1).any(1).sum()) < 140
    assert torch.equal(Augmentation(**how, exposure=0).show(x, grey, rng()), x)
    assert torch.equal(Augmentation(**how, exposure=1).show(images(), COLOUR, rng()), images())


def test_an_exposure_keeps_the_order_of_an_images_pixels():
    x = images(1)
    found = exposed(x, 1.0, rng(), GREY).flatten(1)
    assert torch.equal(found.sort().values, found.gather(1, x.flatten(1).argsort()))


def test_every_image_is_bent_in_its_own_way_and_of_what_is_steady_none():
    x = images(1)[:1].expand(6, -1, -1, -1)
    found = Augmentation(translate=0, colour=0, exposure=0).show(x, GREY, rng())
    assert len({tuple(own.flatten().tolist()) for own in found}) == 6
    assert torch.equal(Augmentation(translate=0, colour=0).steady().show(x, GREY, rng()), x)
    assert Augmentation(translate=0.3).show(x[:0], GREY, rng()).shape == (0, 1, 8, 8)
