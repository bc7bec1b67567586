import io

import numpy as np
import pytest
import torch
from PIL import Image

from datafree._core.errors import UserError
from datafree.evaluation.report import Grid, grid_of, grid_png
from datafree.evaluation.report.images import GAP, caption

from .conftest import make_grid

SPEC_CLASSES = ("a", "b", "c")


def spec(shape, low=0.0, high=1.0):
    from datafree.models.input_spec import InputSpec

    return InputSpec(shape=shape, low=low, high=high, classes=SPEC_CLASSES)


def opened(grid, scale=None):
    return Image.open(io.BytesIO(grid_png(grid, scale)))


def cell(image, row, k, side, scale):
    """The pixels (in RGBA) that one image covers."""
    tile = side * scale + GAP
    top, left = row * tile + GAP // 2, k * tile + GAP // 2
    return np.asarray(image.convert("RGBA"))[top : top + side * scale, left : left + side * scale]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("scale", [1, 3])
def test_every_pixel_stands_where_the_docstring_says(channels, mode, scale):
    rng = np.random.default_rng(0)
    means, samples = rng.integers(0, 256, (3, channels, 5, 5)), rng.integers(0, 256, (2, 3, channels, 5, 5))
    image = opened(Grid("x", means / 255, samples / 255, 0.0, 1.0), scale)
    assert image.mode == mode
    assert image.size == (3 * (5 * scale + GAP), 3 * (5 * scale + GAP))
    for row, images in enumerate([means, *samples]):
        for k in range(3):
            wanted = np.broadcast_to(images[k], (3, 5, 5)).transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
            wanted = np.where((wanted == 127).all(-1, keepdims=True), 128, wanted)
            got = cell(image, row, k, 5, scale)
            assert (got[..., :3] == wanted).all()
            assert (got[..., 3] == 255).all()


def test_the_gaps_and_classes_without_images_are_transparent():
    grid = make_grid(classes=3, side=4, samples=2, value=127 / 255)
    grid.means[1], grid.samples[:, 1], grid.samples[1, 2, 0, 0, 0] = np.nan, np.nan, np.nan
    image = opened(grid, 2)
    clear = [[bool((cell(image, row, k, 4, 2)[..., 3] == 0).all()) for k in range(3)] for row in range(3)]
    assert clear == [[False, True, False], [False, True, False], [False, True, True]]
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    assert (alpha == 255).sum() == 5 * 8 * 8


def test_pixels_are_clipped_to_the_range_not_stretched():
    grid = make_grid(side=2)
    grid.means[0, 0] = [[-2.0, 3.0], [-1.0, 0.0]]
    image = opened(Grid("x", grid.means, grid.samples, -1.0, 1.0), 1)
    assert cell(image, 0, 0, 2, 1)[..., 0].tolist() == [[0, 255], [0, 128]]


def test_the_clipped_share_counts_all_pixels_of_the_source():
    pixels = torch.full((100, 1, 2, 2), 0.5)
    pixels[:3, 0, 0, 0] = 1.5
    grid = grid_of("x", pixels, torch.arange(100) % 3, 3, spec=spec((1, 2, 2)), note="of noise")
    assert grid.clipped == 3 / 400
    assert caption(grid) == "of noise; 0.75% of the pixels lie outside [0, 1] and are clipped"


def test_the_clipped_share_of_a_grid_made_by_hand_counts_the_pixels_shown():
    grid = make_grid(classes=3, side=2, samples=3)
    grid.samples[0, 0, 0] = -0.5
    assert caption(grid) == "8.33% of the displayed pixels lie outside [0, 1] and are clipped"
    assert caption(make_grid()) == ""


def test_a_share_above_zero_is_never_shown_as_zero():
    pixels = torch.zeros(3, 1, 300, 300)
    pixels[0, 0, 0, 0] = 2.0
    grid = grid_of("x", pixels, torch.arange(3), 3, spec=spec((1, 300, 300)))
    assert caption(grid) == "less than 0.01% of the pixels lie outside [0, 1] and are clipped"


def test_means_are_of_all_images_and_samples_are_images_of_their_class_without_repeats():
    labels = torch.tensor([0, 0, 0, 0, 2, 2])
    pixels = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2) / 8
    grid = grid_of("x", pixels, labels, 3, spec=spec((1, 2, 2)))
    assert grid.means[:, 0, 0, 0].tolist() == pytest.approx([1.5 / 8, np.nan, 4.5 / 8], nan_ok=True)
    drawn = grid.samples[:, :, 0, 0, 0] * 8
    assert len(set(drawn[:, 0])) == 3
    assert set(drawn[:, 0]) <= {0, 1, 2, 3}
    assert np.isnan(drawn[:, 1]).all()
    assert sorted(drawn[:2, 2]) == [4, 5]
    assert np.isnan(drawn[2, 2])


def test_a_draw_depends_on_the_seed_and_on_nothing_of_the_other_classes():
    pixels = torch.arange(200.0).view(200, 1, 1, 1) / 200
    labels = torch.arange(200) % 2

    def draw(seed, keep=200):
        return grid_of("x", pixels[:keep], labels[:keep], 3, seed=seed, spec=spec((1, 1, 1))).samples[:, 0].flatten()

    assert draw(0).tolist() == draw(0).tolist()
    assert draw(0).tolist() != draw(1).tolist()
    assert draw(0, 199).tolist() == draw(0).tolist()


def test_images_that_are_not_finite_are_left_out_and_counted():
    pixels = torch.full((4, 1, 2, 2), 0.5)
    pixels[0, 0, 0, 0], pixels[1, 0, 1, 1] = torch.nan, torch.inf
    grid = grid_of("x", pixels, torch.tensor([0, 0, 0, 1]), 3, spec=spec((1, 2, 2)), note="n")
    assert grid.note == "n; 2 of 4 images are omitted because they are not finite"
    assert (grid.means[:2] == 0.5).all()


def test_20_of_100_classes_are_drawn():
    assert opened(make_grid(classes=100, channels=3, side=32), 1).size == (20 * (32 + GAP), 3 * (32 + GAP))


@pytest.mark.parametrize(("side", "shown"), [(1, 64), (8, 64), (28, 56), (32, 64), (64, 64), (96, 96), (224, 75)])
def test_images_of_any_size_become_cells_of_a_similar_size(side, shown):
    assert opened(make_grid(classes=1, side=side, samples=0)).size == (shown + GAP, shown + GAP)


def test_large_images_are_averaged_over_blocks_and_over_what_is_left_at_the_edge():
    means = np.zeros((1, 1, 97, 97))
    means[0, 0, :2, :2] = [[1, 1], [0, 0]]
    means[0, 0, 96, 96] = 1
    got = cell(opened(Grid("x", means, np.zeros((0, *means.shape)), 0.0, 1.0)), 0, 0, 49, 1)[..., 0]
    assert got[0, 0] == 128
    assert got[48, 48] == 255
    assert (got > 0).sum() == 2


def test_other_channels_than_1_or_3_are_merged_and_that_is_said():
    grid = make_grid(channels=2)
    grid.means[0, 0], grid.means[0, 1] = 0.0, 1.0
    assert cell(opened(grid, 1), 0, 0, 4, 1)[0, 0].tolist() == [128, 128, 128, 255]
    assert caption(grid) == "grey is the mean of 2 channels"


@pytest.mark.parametrize(
    ("pixels", "labels", "text"),
    [
        (torch.zeros(2, 1, 3, 3), torch.tensor([0, 1]), "images: got shape (1, 3, 3), expected (1, 2, 2)"),
        (torch.zeros(2, 1, 2, 2), torch.tensor([0, 3]), "labels: got 0 to 3, expected 0 to 2; give class numbers"),
        (torch.zeros(2, 1, 2, 2), torch.tensor([-1, 0]), "labels: got -1 to 0, expected 0 to 2; give class numbers"),
        (torch.zeros(2, 1, 2, 2), torch.tensor([0]), "labels: got (1,) of torch.int64 for 2 images"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2), "labels: got (2,) of torch.float32 for 2 images"),
    ],
)
def test_images_or_labels_that_do_not_fit_are_refused(pixels, labels, text):
    with pytest.raises(UserError) as error:
        grid_of("x", pixels, labels, 3, spec=spec((1, 2, 2)))
    assert text in str(error.value)


def test_means_and_samples_that_do_not_fit_each_other_are_refused():
    with pytest.raises(UserError, match=r"grid 'x': got means \(3, 1, 4, 4\) and samples \(2, 2, 1, 4, 4\)"):
        grid_png(Grid("x", make_grid().means, make_grid(classes=2).samples, 0.0, 1.0))
    with pytest.raises(UserError, match="scale: got 0, expected at least 1"):
        grid_png(make_grid(), 0)


def test_the_same_grid_gives_the_same_png():
    assert grid_png(make_grid()) == grid_png(make_grid())
