"""Images whose labels do not count: folders with or without class folders, and arrays with or without labels."""

import numpy as np
import pytest
from PIL import Image

from datafree._core.errors import UserError
from datafree.data import load


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)


def greys(split, root):
    data = load(str(root), split, labelled=False)
    return sorted((data.pixels(range(len(data))).mean((1, 2, 3)) * 255).round().int().tolist())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("names", [("1.png", "2.png"), ("1.png", "more/2.png"), ("1.png", "a/b/2.png")])
def test_images_in_the_folder_itself_are_all_read_for_either_split(tmp_path, names, split):
    for value, name in enumerate(names):
        save(tmp_path / name, 100 + value)
    assert greys(split, tmp_path) == [100, 101]


def test_flat_folders_of_splits_are_each_read_for_their_own(tmp_path):
    save(tmp_path / "train" / "1.png", 100)
    save(tmp_path / "test" / "1.png", 200)
    assert (greys("train", tmp_path), greys("test", tmp_path)) == ([100], [200])


def test_flat_folders_of_splits_are_known_in_any_case(tmp_path):
    save(tmp_path / "Training" / "1.png", 100)
    save(tmp_path / "TEST" / "1.png", 200)
    assert (greys("train", tmp_path), greys("test", tmp_path)) == ([100], [200])


def test_class_folders_are_split_as_with_labels(tmp_path):
    for value in range(10):
        save(tmp_path / "ab"[value % 2] / f"{value}.png", 100 + value)
    for split in ("train", "test"):
        data = load(str(tmp_path), split)
        assert greys(split, tmp_path) == sorted((data.pixels(range(len(data))).mean((1, 2, 3)) * 255).round().tolist())


@pytest.mark.parametrize("name", ["train", "test"])
def test_a_class_that_is_called_as_a_split_is_a_class_as_with_labels(tmp_path, name):
    for value in range(15):
        save(tmp_path / ("bus", "car", name)[value % 3] / f"{value}.png", 100 + value)
    for split, count in (("train", 12), ("test", 3)):
        data = load(str(tmp_path), split)
        own = sorted((data.pixels(range(len(data))).mean((1, 2, 3)) * 255).round().int().tolist())
        assert greys(split, tmp_path) == own and len(own) == count
        assert data.classes == tuple(sorted(("bus", "car", name)))


def test_a_flat_split_beside_one_with_classes_and_another_folder_is_a_split(tmp_path):
    for value, place in enumerate(("train/a", "train/b", "test", "extra")):
        save(tmp_path / place / "1.png", 100 + value)
    assert (greys("train", tmp_path), greys("test", tmp_path)) == ([100, 101], [102])


def test_a_folder_with_one_split_is_read_for_the_other(tmp_path):
    save(tmp_path / "train" / "a" / "1.png", 100)
    assert greys("test", tmp_path) == [100]


def test_test_classes_that_training_lacks_do_not_matter(tmp_path):
    save(tmp_path / "train" / "a" / "1.png", 100)
    save(tmp_path / "test" / "b" / "1.png", 200)
    assert greys("test", tmp_path) == [200]
    with pytest.raises(UserError, match="class 'b' of 'test' is not in"):
        load(str(tmp_path), "test")


def test_a_flat_folder_where_labels_count_is_one_line_that_says_what_it_holds(tmp_path):
    save(tmp_path / "1.png", 100)
    with pytest.raises(UserError, match="which holds 1 image and no folder; expected <class>"):
        load(str(tmp_path), "train")


IMAGES = np.full((10, 4, 4), 200, np.uint8)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "labels",
    [{}, {"labels": np.arange(10) + 1}, {"labels": np.eye(10)}, {"labels": np.zeros(3, int)}],
    ids=["none", "from 1", "one-hot", "too few"],
)
def test_arrays_need_no_labels(tmp_path, labels, split):
    np.savez(tmp_path / "d.npz", images=IMAGES, **labels)
    assert len(load(str(tmp_path / "d.npz"), split, labelled=False)) == 10
    with pytest.raises(UserError):
        load(str(tmp_path / "d.npz"), split)


def test_arrays_with_labels_are_split_as_with_labels(tmp_path):
    np.savez(tmp_path / "d.npz", images=IMAGES, labels=np.arange(10) % 2)
    assert [len(load(str(tmp_path / "d.npz"), own, labelled=False)) for own in ("train", "test")] == [8, 2]


def test_training_images_alone_are_read_for_either_split(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=IMAGES)
    assert [len(load(str(tmp_path / "d.npz"), own, labelled=False)) for own in ("train", "test")] == [10, 10]


@pytest.mark.parametrize("third", ["unlabeled", "annotations"])
def test_a_folder_beside_both_splits_is_no_class(tmp_path, third):
    save(tmp_path / "train" / "1.png", 100)
    save(tmp_path / "test" / "1.png", 200)
    (tmp_path / third).mkdir()
    if third == "unlabeled":
        save(tmp_path / third / "1.png", 150)
    else:
        (tmp_path / third / "a.json").write_text("{}")
    assert (greys("train", tmp_path), greys("test", tmp_path)) == ([100], [200])
