"""A few images among many: the stated share exactly, all equally often, newly shown and labelled each time."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.data.augmentation import Augmentation
from datafree.distillation.sources import MixedImages, StoredImages

STILL = Augmentation(translate=0, colour=0, bend=0, exposure=0)


def few(network, count=4):
    """Images of one brightness each, 0.01, 0.02, ..., with one white corner."""
    pixels = ((torch.arange(count) + 1.0).view(-1, 1, 1, 1).expand(-1, *network.spec.shape) / 100).clone()
    pixels[:, :, -1, -1] = network.spec.high
    return pixels


def many(network, count=30):
    """Images that no few one is like: brightness 0.5 and up; their targets say which they are."""
    levels = 0.5 + torch.arange(count) / 100
    pixels = levels.view(-1, 1, 1, 1).expand(-1, *network.spec.shape)
    return StoredImages(network.spec, pixels, levels[:, None].expand(-1, len(network.spec.classes)))


def levels(source, seed=0, epoch=0, batch=8):
    return [pixels[:, 0, 0, 0] for pixels, _ in source.epoch(seed, epoch, batch)]


@pytest.mark.parametrize("share", [0.01, 0.1, 1 / 3, 0.5, 0.77, 1.0])
def test_the_share_is_exact_over_an_epoch_and_to_an_image_in_every_batch(tiny, share):
    network = tiny()
    parts = levels(MixedImages(network, few(network), many(network), 400, share, STILL))
    counts = [int((own < 0.5).sum()) for own in parts]
    assert len(parts) == 50 and {len(own) for own in parts} == {8}
    assert sum(counts) == int(400 * share + 1e-9)
    assert all(abs(count - 8 * share) < 1 for count in counts)


@pytest.mark.parametrize("count", [1, 4, 500])
def test_an_epoch_has_its_length_however_few_they_are_and_shows_all_of_them_equally_often(tiny, count):
    network = tiny()
    source = MixedImages(network, few(network, 1).expand(count, -1, -1, -1), None, 103, augmentation=STILL)
    assert len(source) == 103 and len(levels(source)) == 12
    source = MixedImages(network, few(network), many(network, 28), 200, augmentation=STILL)
    shown = torch.cat(levels(source))
    seen = [int((shown - level).abs().lt(1e-6).sum()) for level in (0.01, 0.02, 0.03, 0.04)]
    assert seen == [25] * 4
    rest = shown[shown >= 0.5]
    counts = [int((rest - 0.5 - row / 100).abs().lt(1e-6).sum()) for row in range(28)]
    assert sum(counts) == 100 and set(counts) == {3, 4}


def test_the_same_seed_and_epoch_give_the_same_and_others_do_not(tiny):
    network = tiny()
    source = MixedImages(network, few(network), many(network), 64, augmentation=Augmentation(translate=0.3, exposure=0))
    one, again, epoch, seed = (list(source.epoch(*own, 8)) for own in ((3, 2), (3, 2), (3, 4), (5, 2)))
    for here, there in zip(one, again, strict=True):
        assert torch.equal(here[0], there[0]) and torch.equal(here[1], there[1])
    for other in (epoch, seed):
        assert not torch.equal(torch.cat([own[0] for own in one]), torch.cat([own[0] for own in other]))


def test_targets_are_the_teachers_logits_of_what_is_shown_and_the_others_own(tiny):
    network = tiny()
    pixels, shown = torch.rand(4, *network.spec.shape) * 0.4, []
    for batch, targets in MixedImages(
        network, pixels, many(network), 64, augmentation=Augmentation(translate=0.3, exposure=0)
    ).epoch(0, 0, 8):
        rest = batch[:, 0, 0, 0] >= 0.5
        assert torch.equal(targets[~rest], network.predict(batch[~rest]))
        assert torch.equal(targets[rest], batch[rest][:, 0, 0, :1].expand(-1, len(network.spec.classes)))
        shown.append(batch[~rest])
    assert len(torch.cat(shown).unique(dim=0)) > 4


def test_alone_all_of_it_is_the_few(tiny):
    network = tiny()
    assert all(bool((own < 0.5).all()) for own in levels(MixedImages(network, few(network), None, 64, 0.25, STILL)))


def test_the_teacher_is_left_as_it_was(tiny):
    network = tiny("norm")
    network.module.train()
    before = network.fingerprint()
    list(MixedImages(network, few(network), many(network), 64).epoch(0, 0, 8))
    assert network.module.training and network.fingerprint() == before


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"share": 0.0}, "share: got 0, expected above 0 and at most 1"),
        ({"share": float("nan")}, "share: got nan"),
        ({"images": 0}, "images: got 0, expected at least 1"),
        ({"pixels": torch.zeros(0, 1, 4, 4)}, "pixels: got no image, expected at least one"),
        ({"pixels": torch.zeros(2, 1, 5, 4)}, "images of shape (1, 5, 4), expected (1, 4, 4)"),
        ({"pixels": torch.full((2, 1, 4, 4), 1.5)}, "expected 0 to 1; scale the images first"),
    ],
)
def test_what_does_not_fit_is_refused_before_an_epoch(tiny, changes, text):
    network = tiny()
    with pytest.raises(UserError) as error:
        MixedImages(network, **{"pixels": few(network), "others": None, "images": 8, "share": 0.5, **changes})
    assert text in str(error.value)


def test_images_of_another_range_are_not_mixed_in(tiny):
    other = many(tiny(low=0.0, high=255.0))
    with pytest.raises(UserError, match=r"others: got pixels from 0 to 255, expected 0 to 1, the range of the teacher"):
        MixedImages(tiny(), few(tiny()), other, 8)
