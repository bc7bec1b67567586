import pickle
from functools import partial

import numpy as np
import pytest
import torch

from datafree._core.errors import UserError
from datafree.data import Dataset, sha256
from datafree.data.dataset import in_memory


def made(labels, images=None, classes=("a", "b", "c")):
    labels = np.asarray(labels)
    images = np.arange(len(labels) * 12, dtype=np.uint8).reshape(-1, 3, 2, 2) if images is None else images
    return in_memory("made", "train", classes, labels, images)


def read_none(indices):
    return np.zeros((len(indices), 1, 2, 2), np.uint8)


def test_pixels_are_the_bytes_over_255():
    images = np.array([[[[0, 51], [102, 255]]]], np.uint8)
    pixels = made([0], images).pixels([0])
    assert pixels.dtype == torch.float32
    torch.testing.assert_close(pixels, torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]]))


def test_pixels_come_in_the_order_of_the_indices_whatever_their_type():
    dataset = made([0, 1, 2])
    expected = torch.stack([dataset.pixels([2])[0], dataset.pixels([0])[0]])
    for indices in ([2, 0], (2, 0), np.array([2, 0]), torch.tensor([2, 0]), range(2, -1, -2)):
        assert torch.equal(dataset.pixels(indices), expected)


def test_no_indices_give_no_images():
    dataset = made([0, 1])
    assert dataset.pixels([]).shape == (0, 3, 2, 2)
    assert dataset.pixels([], (5, 6)).shape == (0, 3, 5, 6)


@pytest.mark.parametrize("indices", [[-1], [3], [0.5], [True, False, True], [[0]]])
def test_indices_that_are_no_positions_are_refused(indices):
    with pytest.raises(IndexError, match="expected"):
        made([0, 1, 2]).pixels(indices)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (2, 2)])
def test_resizing_keeps_a_constant_image_and_the_range(size):
    constant = made([0], np.full((1, 3, 2, 2), 77, np.uint8)).pixels([0], size)
    torch.testing.assert_close(constant, torch.full((1, 3, *size), 77 / 255))
    extremes = made([0], np.array([0, 255] * 6, np.uint8).reshape(1, 3, 2, 2)).pixels([0], size)
    assert extremes.min() >= 0
    assert extremes.max() <= 1


def test_halving_the_size_averages_instead_of_skipping():
    stripes = np.tile(np.array([0, 255], np.uint8), (1, 1, 16, 8))
    torch.testing.assert_close(made([0], stripes).pixels([0], (8, 2))[..., 1:-1, :].mean(), torch.tensor(0.5))


def test_a_size_of_zero_is_an_error():
    with pytest.raises(UserError, match="size \\(0, 4\\)"):
        made([0]).pixels([0], (0, 4))


def test_a_subset_is_the_same_each_time_and_another_for_another_seed():
    dataset = made(np.arange(300) % 3)
    assert torch.equal(dataset.subset(30).pixels(range(30)), dataset.subset(30, seed=0).pixels(range(30)))
    assert not torch.equal(dataset.subset(30).pixels(range(30)), dataset.subset(30, seed=1).pixels(range(30)))


@pytest.mark.parametrize("count", [1, 2, 7, 50, 99, 100])
def test_each_class_keeps_its_share_in_a_subset_to_within_one(count):
    labels = np.repeat([0, 1, 2], [70, 25, 5])
    subset = made(labels).subset(count)
    assert len(subset) == count
    exact = np.array([70, 25, 5]) * count / 100
    assert (np.abs(np.bincount(subset.labels, minlength=3) - exact) < 1).all()


def test_images_of_a_subset_keep_their_labels_and_order_also_in_a_subset_of_a_subset():
    images = np.arange(90, dtype=np.uint8).reshape(90, 1, 1, 1)
    inner = made(np.arange(90) % 3, images).subset(40, seed=5).subset(11, seed=6)
    values = (inner.pixels(range(11)).flatten() * 255).round().long()
    assert torch.equal(values % 3, inner.labels)
    assert torch.equal(values, values.unique(sorted=True))


def test_no_count_gives_all_and_the_full_count_the_same_images():
    dataset = made(np.arange(9) % 3)
    assert dataset.subset(None) is dataset
    assert sha256(dataset.subset(9)) == sha256(dataset)


@pytest.mark.parametrize("count", [0, -1, 4])
def test_a_subset_that_cannot_be_is_an_error(count):
    with pytest.raises(UserError, match=f"a subset of {count} images .* expected 1 to 3"):
        made([0, 1, 2]).subset(count)


def test_the_chosen_images_never_change():
    """Golden values: a run.json written today must name the same images with every later version."""
    labels = np.arange(30) % 3
    values = made(labels, np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1)).subset(6, seed=3).read(np.arange(6))
    assert values.flatten().tolist() == [5, 13, 15, 18, 22, 26]


def test_a_dataset_survives_pickling():
    dataset = made(np.arange(9) % 3).subset(4)
    assert sha256(pickle.loads(pickle.dumps(dataset))) == sha256(dataset)


def test_the_hash_sees_each_pixel_each_label_and_the_shape():
    images = np.zeros((4, 3, 2, 2), np.uint8)
    other = images.copy()
    other[3, 2, 1, 1] = 1
    hashes = [
        sha256(made([0, 1, 2, 0], images)),
        sha256(made([0, 1, 2, 0], other)),
        sha256(made([0, 1, 2, 1], images)),
        sha256(made([0, 1, 2, 0], images.reshape(4, 3, 4, 1))),
    ]
    assert len(set(hashes)) == 4
    assert all(len(text) == 64 for text in hashes)


def test_the_hash_reads_every_image_once_in_parts_of_bounded_memory():
    parts = []

    def read(indices):
        parts.append(indices)
        return np.zeros((len(indices), 1, 256, 256), np.uint8)

    labels = torch.zeros(1500, dtype=torch.int64)
    data = Dataset("large", "train", ("a",), labels, (1, 256, 256), read)
    assert sha256(data) == sha256(data)
    assert np.concatenate(parts).tolist() == list(range(1500))
    assert max(map(len, parts)) * 256 * 256 <= 1 << 25


def test_another_label_is_another_data_set():
    labels = torch.zeros(123_457, dtype=torch.int64)
    last = labels.clone()
    last[77] = 1
    sets = [Dataset("large", "train", ("a", "b"), own, (1, 2, 2), partial(read_none)) for own in (labels, last)]
    assert sha256(sets[0]) != sha256(sets[1])


def test_an_empty_data_set_is_an_error():
    with pytest.raises(UserError, match="no image in split 'train' of data set 'made'; expected at least one"):
        made(np.zeros(0, np.int64))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_an_error_that_names_the_image(label):
    with pytest.raises(UserError, match=f"label {label} of image 1 in data set 'made'; expected 0 to 2"):
        made([0, label, 1])


def test_labels_of_another_type_are_an_error():
    with pytest.raises(UserError, match=r"torch\.int32 \(2,\) on cpu; expected torch\.int64"):
        Dataset("made", "train", ("a",), torch.zeros(2, dtype=torch.int32), (1, 2, 2), read_none)


def test_other_numbers_of_labels_than_of_images_are_an_error():
    with pytest.raises(UserError, match="2 labels for 3 images"):
        made([0, 1], np.zeros((3, 1, 2, 2), np.uint8))


@pytest.mark.parametrize("place", [0, 1, 2, 1499, 2998, 2999])
def test_one_other_pixel_in_one_of_many_images_is_another_data_set(place):
    images, labels = np.zeros((3000, 1, 2, 2), np.uint8), np.arange(3000) % 2
    other = images.copy()
    other[place, 0, 1, 1] = 1
    same, changed = (in_memory("toy", "train", "ab", labels, own) for own in (images, other))
    assert sha256(same) == sha256(in_memory("toy", "train", "ab", labels, images.copy()))
    assert sha256(same) != sha256(changed)
