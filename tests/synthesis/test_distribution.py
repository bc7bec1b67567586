"""Images drawn from the record, and the warps that bend them."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from datafree import sample
from datafree.data.dataset import in_memory
from datafree.data.warp import Warp, warp
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.synthesis import methods
from datafree.synthesis.methods.distribution import WARPS, Distribution
from datafree.synthesis.methods.matched import MomentMatching

NONE = {"degrees": 0.0, "shift": 0.0, "scale": 0.0, "shear": 0.0, "elastic": 0.0}
PLAIN = Distribution(inflate=1, mix=0, **NONE)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def spot(count=1, side=9) -> torch.Tensor:
    """One bright pixel in the middle, one image a row."""
    images = torch.zeros(count, 1, side, side)
    images[:, :, side // 2, side // 2] = 1.0
    return images


@pytest.mark.parametrize("count", [1, 10, 32, 50, 64])
def test_a_warp_of_nothing_leaves_every_image(count):
    images = torch.rand(count, 3, 6, 5)
    torch.testing.assert_close(warp(images, Warp(**NONE), rng()), images, rtol=0, atol=1e-5)


def centre(images) -> torch.Tensor:
    rows, columns = (torch.arange(side, dtype=torch.float32) for side in images.shape[2:])
    weight = images.sum((1, 2, 3))
    down, across = (images.sum((1, 3)) @ rows / weight, images.sum((1, 2)) @ columns / weight)
    return torch.stack([down, across], 1)


def test_a_shift_moves_an_image_by_at_most_its_share_and_another_group_otherwise():
    bent = warp(spot(3200), Warp(**{**NONE, "shift": 0.2}), rng())
    moved = centre(bent) - 4
    assert float(moved.abs().max()) <= 0.2 * 9 + 1e-4
    assert float(moved.abs().max()) > 0.18 * 9
    torch.testing.assert_close(moved[0], moved[31])
    assert (moved[0] - moved[32]).abs().max() > 0.01
    torch.testing.assert_close(bent.sum((1, 2, 3)), torch.ones(3200), rtol=0, atol=1e-4)


def test_a_rotation_by_180_degrees_at_most_keeps_the_distance_to_the_middle():
    images = torch.zeros(320, 1, 9, 9)
    images[:, :, 4, 7] = 1.0
    moved = centre(warp(images, Warp(**{**NONE, "degrees": 180.0}), rng()))[::32] - 4
    torch.testing.assert_close(moved.norm(dim=1), torch.full((10,), 3.0), rtol=0, atol=0.25)
    assert float(moved[:, 1].min()) < -1
    assert float(moved[:, 0].abs().max()) > 1


def at_its_bound(images, monkeypatch, **how):
    """The images, every draw of the warp at its upper end."""
    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", lambda *size, **_: torch.ones(*size))
        return warp(images, Warp(**{**NONE, **how}), rng(), together=1)


def axis(image) -> float:
    """The angle of an image's longer axis to the horizontal, in degrees, from -90 to 90."""
    rows, columns = torch.meshgrid(*(torch.arange(side).double() for side in image.shape), indexing="ij")
    places, weight = torch.stack([columns, rows]).flatten(1), image.double().flatten()
    x, y = torch.linalg.eigh(torch.cov(places, aweights=weight)).eigenvectors[:, 1].tolist()
    return math.degrees(math.atan(y / x))


@pytest.mark.parametrize(("height", "width"), [(16, 64), (64, 16), (32, 32)])
def test_a_rotation_turns_by_its_angle_whatever_the_sides(height, width, monkeypatch):
    images = torch.zeros(1, 1, height, width)
    images[..., height // 2 - 1 : height // 2 + 1, width // 2 - 5 : width // 2 + 5] = 1
    for degrees in (20, 40):
        assert abs(axis(at_its_bound(images, monkeypatch, degrees=degrees)[0, 0])) == pytest.approx(degrees, abs=1)
    turned = at_its_bound(images, monkeypatch, degrees=90)[0, 0]
    rows, columns = (turned > 0.5).nonzero(as_tuple=True)
    assert (int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1) == (10, 2)


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (60, 60)])
def test_a_shift_is_a_share_of_the_larger_side_and_a_shear_a_slope(height, width, monkeypatch):
    images = torch.zeros(1, 1, height, width)
    images[..., height // 2, width // 2] = 1
    before, after = centre(images), centre(at_its_bound(images, monkeypatch, shift=0.05))
    torch.testing.assert_close((after - before).abs(), torch.full((1, 2), 3.0), rtol=0, atol=1e-2)
    images = torch.zeros(1, 1, height, width)
    images[..., height // 2 + 4, width // 2] = 1
    moved = (centre(at_its_bound(images, monkeypatch, shear=0.5)) - centre(images)).abs()
    torch.testing.assert_close(moved, torch.tensor([[0.0, 2.25]]), rtol=0, atol=1e-2)  # 4.5 from the middle, times 0.5


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20)])
def test_an_elastic_field_moves_as_far_down_as_across(height, width):
    rows, columns = torch.meshgrid(torch.arange(height).float(), torch.arange(width).float(), indexing="ij")
    places = torch.stack([rows, columns]).expand(200, 2, height, width)
    bent = warp(places, Warp(**{**NONE, "elastic": 0.02}), rng(), together=1)
    moved = (bent - places)[:, :, 8:-8, 8:-8].std((0, 2, 3))
    assert 0.7 < float(moved[0] / moved[1]) < 1.4
    assert 0.5 * 0.02 * 60 < float(moved.mean()) < 1.1 * 0.02 * 60


@pytest.mark.parametrize("count", [1, 10, 31, 33])
def test_small_units_and_what_is_over_are_warped_too(count):
    images = torch.rand(count, 1, 8, 8, generator=rng(1))
    bent = warp(images, Warp(degrees=15, shift=0.05, scale=0.15, shear=0.15, elastic=0.025), rng())
    assert bent.shape == images.shape
    assert ((bent - images).abs().flatten(1).amax(1) > 1e-3).all()


def test_whole_groups_do_not_depend_on_how_many_follow():
    images = torch.rand(64, 1, 8, 8)
    how = Warp(**{**NONE, "degrees": 30.0})
    assert torch.equal(warp(images[:20], how, rng()), warp(images[:32], how, rng())[:20])


@pytest.fixture(scope="module")
def plain(teacher, whole_record):
    """The method without warps, bound to the record once: its fit takes two seconds."""
    return PLAIN.bind(teacher, whole_record)


def test_plain_images_have_the_classes_mean(plain, whole_record):
    batch = plain.chunk(0, 0, 5000)
    wanted = whole_record.entries["input"].summary["mean"]
    for c in range(10):
        own = batch.pixels[batch.labels == c].flatten(1).mean(0)
        torch.testing.assert_close(own, wanted[c], rtol=0, atol=0.08)


@pytest.mark.parametrize(
    "setting",
    [
        {"inflate": 2.0},
        {"mix": 1.0},
        {"degrees": 30.0},
        {"shift": 0.2},
        {"scale": 0.5},
        {"shear": 0.5},
        {"elastic": 0.1},
    ],
)
def test_every_setting_changes_the_images_of_small_units_too(setting, plain, teacher, whole_record):
    changed = PLAIN.model_copy(update=setting).bind(teacher, whole_record)
    for size in (10, 64):
        before, after = plain.chunk(0, 0, size), changed.chunk(0, 0, size)
        assert torch.equal(before.labels, after.labels)
        assert ((before.pixels - after.pixels).abs().flatten(1).amax(1) > 1e-3).float().mean() >= 0.8


class Stages:
    """A progress that remembers its numbers, and those of each stage."""

    def __init__(self):
        self.seen, self.stages = [], {}

    def __call__(self, done, total):
        self.seen.append((done, total))

    @contextmanager
    def stage(self, name):
        self.stages[name] = []
        yield lambda done, total: self.stages[name].append((done, total))


FIT = {"fit the pixels of each class": [(done, 10) for done in range(11)]}


def test_the_fit_is_a_stage_that_counts_classes_once_and_not_images(teacher, whole_record):
    progress = Stages()
    sample(teacher, PLAIN.model_copy(update={"rank": 8}), n=30, record=whole_record, chunk=20, progress=progress)
    assert progress.stages == FIT
    assert progress.seen[0] == (0, 30) and progress.seen == sorted(progress.seen) and progress.seen[-1] == (30, 30)


def test_methods_that_start_from_the_distribution_show_its_fit_and_others_show_none(teacher, whole_record):
    for method, stages in (
        (MomentMatching(), FIT),
        (MomentMatching(start="noise"), {}),
        (methods.from_name("all"), {}),
    ):
        progress = Stages()
        methods.bind(method, teacher, whole_record, progress=progress)
        assert progress.stages == stages and not progress.seen


def turned(tiny, follows: bool):
    """A teacher of 8x8 images: the class is where the bright spot is, or always the first where it follows every warp."""
    network = tiny("linear", shape=(1, 8, 8), classes=4)
    layers = dict(network.module.named_children())
    with torch.no_grad():
        for layer in (layers["fc1"], layers["fc2"], layers["fc3"]):
            layer.weight.zero_()
            layer.bias.zero_()
        for c, (row, column) in enumerate(CORNERS):
            layers["fc1"].weight[c, row * 8 + column] = 1.0
            layers["fc2"].weight[c, c] = 1.0
            layers["fc3"].weight[c, c] = 0.0 if follows else 1.0
        layers["fc3"].bias[0] = 1.0 if follows else 0.0
    return network


CORNERS = ((3, 3), (3, 4), (4, 3), (4, 4))


@pytest.fixture
def spots():
    """A bright pixel where the class says, on noise."""
    labels = np.arange(400) % 4
    images = np.random.default_rng(0).integers(0, 90, (400, 1, 8, 8)).astype(np.uint8)
    for c, (row, column) in enumerate(CORNERS):
        images[labels == c, 0, row, column] = 255
    return in_memory("spots", "train", "abcd", labels, images)


@pytest.mark.parametrize(("follows", "share"), [(True, 1.0), (False, 0.25)])
def test_warps_are_cut_to_a_quarter_where_the_teacher_does_not_follow_them(follows, share, tiny, spots):
    network = turned(tiny, follows)
    known = record(network, spots, [(Moments(covariance="full"), ("input",))])
    method = Distribution(degrees=180, shift=0.2)
    used = method.bind(network, known).settings
    assert [getattr(used, name) for name in WARPS] == [share * getattr(method, name) for name in WARPS]
    assert used.inflate == method.inflate and used.mix == method.mix
    assert Distribution(degrees=180, warp_acceptance=0).bind(network, known).settings.degrees == 180
