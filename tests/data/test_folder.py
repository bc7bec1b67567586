import pickle

import numpy as np
import pytest
from PIL import Image

from datafree.data import load, sha256


def save(path, value=0, size=(4, 6), mode="RGB"):
    """A plain image of (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path, lossless=True)
    return path


def greys(dataset):
    return (dataset.pixels(range(len(dataset))).mean((1, 2, 3)) * 255).round().int().tolist()


def test_splits_are_read_from_their_folders_with_the_classes_sorted(tmp_path):
    for split, value in (("train", 10), ("test", 20)):
        for label, step in (("dog", 1), ("cat", 2)):
            save(tmp_path / split / label / "b.png", value + step)
            save(tmp_path / split / label / "a.png", value - step)
    train, test = load(str(tmp_path), "train"), load(str(tmp_path), "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert (train.labels.tolist(), greys(train)) == ([0, 0, 1, 1], [8, 12, 9, 11])
    assert (test.labels.tolist(), greys(test)) == ([0, 0, 1, 1], [18, 22, 19, 21])
    assert (train.name, train.shape) == (str(tmp_path), (3, 6, 4))


def test_without_splits_a_fixed_fifth_of_each_class_is_for_testing(tmp_path):
    for number in range(30):
        save(tmp_path / ("a" if number < 20 else "b") / f"{number:02d}.bmp", number, mode="L")
    train, test = load(str(tmp_path), "train"), load(str(tmp_path), "test")
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([16, 8], [4, 2])
    assert sorted(greys(train) + greys(test)) == list(range(30))
    assert sha256(test) == sha256(load(str(tmp_path), "test"))


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "PNG", "JpG"])
def test_each_format_is_read_whatever_the_case_of_its_suffix(tmp_path, suffix):
    for number in range(5):
        save(tmp_path / "a" / f"{number}.{suffix}", 100)
    assert greys(load(str(tmp_path), "train")) == [100] * 4


def test_hidden_and_other_files_are_no_images(tmp_path):
    for name in ("train/a/1.png", "train/a/._1.png", "train/.hidden/1.png", "train/__MACOSX/1.png"):
        save(tmp_path / name)
    (tmp_path / "train/a/notes.txt").touch()
    (tmp_path / "train/a/folder.png").mkdir()
    dataset = load(str(tmp_path), "train")
    assert (len(dataset), dataset.classes) == (1, ("a",))


def test_all_images_get_the_size_and_channels_of_the_first_of_the_training_images(tmp_path):
    save(tmp_path / "train/a/1.png", 7, (4, 6), "L")
    save(tmp_path / "train/a/2.png", 8, (9, 9))
    save(tmp_path / "test/a/1.png", 9, (30, 5))
    train, test = load(str(tmp_path), "train"), load(str(tmp_path), "test")
    assert train.shape == test.shape == (1, 6, 4)
    assert greys(train) + greys(test) == [7, 8, 9]


def test_size_and_channels_can_be_chosen(tmp_path):
    save(tmp_path / "train/a/1.png", 7, (4, 6), "L")
    assert load(str(tmp_path), "train", size=5, channels=3).pixels([0]).shape == (1, 3, 5, 5)
    assert load(str(tmp_path), "train", size=(2, 3)).pixels([0]).shape == (1, 1, 2, 3)


def test_an_image_is_cropped_in_its_middle_and_keeps_its_aspect(tmp_path):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = 255
    (tmp_path / "train/a").mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / "train/a/1.png")
    assert greys(load(str(tmp_path), "train", size=8)) == [255]


@pytest.mark.parametrize(("mode", "value", "expected"), [("LA", 60, 60), ("RGBA", 60, 60), ("I;16", 60 * 256, 60)])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_alpha_is_dropped_and_16_bits_become_8(tmp_path, mode, value, expected, channels):
    save(tmp_path / "train/a/1.png", value, mode=mode)
    dataset = load(str(tmp_path), "train", channels=channels)
    assert greys(dataset) == [expected]
    assert dataset.shape[0] == channels or (channels is None and dataset.shape[0] == (3 if mode == "RGBA" else 1))


def test_palettes_with_transparency_are_read_without_a_warning(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 90, 90, 90])
    image.save(tmp_path / "train/a/1.png", transparency=b"\x00\x80")
    assert greys(load(str(tmp_path), "train")) == [90]


def test_a_class_that_is_called_train_is_a_class(tmp_path):
    for number in range(5):
        save(tmp_path / "train" / f"{number}.png")
        save(tmp_path / "bus" / f"{number}.png")
    assert load(str(tmp_path), "train").classes == ("bus", "train")


def test_the_folder_can_be_pickled_and_read_elsewhere(tmp_path):
    save(tmp_path / "train/a/1.png", 9)
    assert greys(pickle.loads(pickle.dumps(load(str(tmp_path), "train")))) == [9]


def test_an_empty_class_folder_is_an_error_that_names_it(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    (tmp_path / "train/b").mkdir()
    (tmp_path / "train/b/notes.txt").touch()
    assert f"no image in the class folder '{tmp_path}/train/b'; wanted .png, .jpg" in error(tmp_path)


@pytest.mark.parametrize("file", [None, "1.png"])
def test_a_folder_without_classes_is_an_error(error, tmp_path, file):
    if file:
        save(tmp_path / file)
    assert f"no folder of a class in {str(tmp_path)!r}; wanted <class>/*.png or <split>" in error(tmp_path)


def test_a_split_without_its_folder_is_an_error(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    assert f"no folder of classes in '{tmp_path}/test'; wanted it beside 'train'" in error(tmp_path, "test")


def test_a_class_of_the_test_split_alone_is_an_error(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    save(tmp_path / "test/b/1.png")
    assert f"class 'b' of 'test' is not in '{tmp_path}/train'; wanted it in both" in error(tmp_path, "test")


def test_a_test_split_without_one_of_the_classes_keeps_their_numbers(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "test/b/1.png"):
        save(tmp_path / name)
    assert load(str(tmp_path), "test").labels.tolist() == [1]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
@pytest.mark.parametrize("name", ["1.png", "2.png"])
def test_an_unreadable_image_is_named(error, tmp_path, content, name):
    for other in ("1.png", "2.png", "3.png"):
        save(tmp_path / "train/a" / other)
    (tmp_path / "train/a" / name).write_bytes(content)
    assert f"image '{tmp_path}/train/a/{name}' cannot be read" in error(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_an_image_cut_before_its_last_pixels_is_an_error_and_never_another_traceback(error, tmp_path, suffix):
    path = tmp_path / f"train/a/1.{suffix}"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (9, 9, 3)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    for length in range(0, len(content) - 24, 7):
        path.write_bytes(content[:length])
        assert str(path) in error(tmp_path)


def test_an_image_of_another_format_is_not_read_under_a_false_name(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    Image.new("L", (4, 4)).save(tmp_path / "train/a/1.png", "TIFF")
    assert "cannot be read (not an image); wanted PNG/JPEG/BMP/WEBP" in error(tmp_path)


@pytest.mark.parametrize("most", [35, 20, 5])
def test_an_image_of_more_pixels_than_pillow_allows_is_an_error(error, tmp_path, monkeypatch, most):
    path = save(tmp_path / "train/a/1.png", size=(6, 6))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    message = error(tmp_path)
    assert message.startswith(f"image {str(path)!r} is too large")
    assert f"wanted at most {most} pixels" in message


@pytest.mark.parametrize("channels", [2, "1", 4])
def test_other_channels_than_1_and_3_are_an_error(error, tmp_path, channels):
    save(tmp_path / "train/a/1.png")
    assert error(tmp_path, channels=channels).startswith(f"channels {channels!r} for data set")


def test_an_unknown_split_is_an_error(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    assert f"no split 'valid' in data set {str(tmp_path)!r}; nearest: 'train', 'test'" in error(tmp_path, "valid")


def test_a_folder_that_cannot_be_listed_is_an_error(error, tmp_path, monkeypatch):
    """Simulated, since a test that runs as root may list everything."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert (
        error(tmp_path) == f"{str(tmp_path)!r} cannot be listed (Permission denied); wanted a folder; check its rights"
    )
