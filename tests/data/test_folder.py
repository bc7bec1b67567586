import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from datafree.data import load, sha256
from datafree.models.input_spec import InputSpec


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


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "jpe", "jfif", "bmp", "webp", "gif", "tif", "tiff", "ppm", "PNG",
                                    "JpG", "TIF"])  # fmt: skip
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


def test_all_images_get_the_size_of_the_first_training_image_and_colour_where_any_has_it(tmp_path):
    save(tmp_path / "train/a/1.png", 7, (4, 6), "L")
    save(tmp_path / "train/a/2.png", 8, (9, 9))
    save(tmp_path / "test/a/1.png", 9, (30, 5), "L")
    train, test = load(str(tmp_path), "train"), load(str(tmp_path), "test")
    assert train.shape == test.shape == (3, 6, 4)
    assert greys(train) + greys(test) == [7, 8, 9]
    assert train.notes[0] == (
        f"{tmp_path / 'train'}: 2 images; 1 grey, read as colour (all as grey for a network of 1 channel); 1 of another "
        "size than the first, 6 x 4, cropped and resized to it"
    )


def test_files_of_both_kinds_are_read_as_the_network_takes_them_and_others_are_not(tmp_path):
    save(tmp_path / "train/a/1.png", 7, (4, 6), "L")
    save(tmp_path / "train/a/2.png", 8, (4, 6))
    mixed = load(str(tmp_path), "train")
    grey = mixed.scaled_to(InputSpec(shape=(1, 6, 4), classes=("a", "b")))
    assert grey.pixels([0, 1]).shape == (2, 1, 6, 4)
    assert greys(grey) == [7, 8]
    red = Image.new("RGB", (4, 6), (255, 0, 0))
    red.save(tmp_path / "train/a/3.png")
    assert (
        greys(load(str(tmp_path), "train").subset(3).scaled_to(InputSpec(shape=(1, 6, 4), classes=("a", "b"))))[2] == 76
    )
    (tmp_path / "train/a/1.png").unlink()
    colour = load(str(tmp_path), "train")
    assert colour.scaled_to(InputSpec(shape=(1, 6, 4), classes=("a", "b"))).pixels([0]).shape[1] == 3


def test_the_channels_that_were_chosen_are_said_without_an_if(tmp_path):
    save(tmp_path / "train/a/1.png", 40, (4, 6), "L")
    save(tmp_path / "train/a/2.png", 40, (4, 6))
    for channels, words in ((3, "1 grey, read as colour"), (1, "1 in colour, read as grey")):
        assert load(str(tmp_path), "train", channels=channels).notes == (f"{tmp_path / 'train'}: 2 images; {words}",)


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


def test_numeric_class_folders_are_in_the_order_of_their_numbers_and_that_is_said(tmp_path, error):
    for number in range(12):
        save(tmp_path / "train" / str(number) / "1.png", 10 * number + 40, mode="L")
    numbers = load(str(tmp_path), "train")
    assert numbers.classes == tuple(map(str, range(12)))
    assert greys(numbers) == [10 * number + 40 for number in range(12)]
    assert [note for note in numbers.notes if "class" in note] == [
        "class folders are sorted by their numbers (0, 1, 2 ... 11); a network that was trained on them sorted as text "
        "(0, 1, 10, 11 ...) needs these names in that order as its classes"
    ]
    text = load(str(tmp_path), "train", class_order="text")
    assert text.classes == ("0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9")
    assert greys(text)[2] == 140 and not text.notes
    assert "no class order 'size'" in error(tmp_path, class_order="size")


def test_classes_of_the_test_split_have_the_numbers_of_the_training_split(tmp_path):
    for label in ("2", "10", "9"):
        save(tmp_path / "train" / label / "1.png", 90)
    for label in ("10", "9"):
        save(tmp_path / "test" / label / "1.png", 90)
    test = load(str(tmp_path), "test")
    assert test.classes == ("2", "9", "10")
    assert test.labels.tolist() == [1, 2]
    assert test.notes[0] == f"{tmp_path / 'test'}: no folder of 1 of 3 classes ('2')"


def test_folders_inside_class_folders_are_read_and_what_is_left_out_is_counted(tmp_path):
    for name in ("train/a/1.png", "train/a/more/deep/2.PNG", "train/b/3.tif", "val/a/1.png"):
        save(tmp_path / name, 100)
    for name in (
        "train/a/x.heic",
        "train/a/x.txt",
        "train/a/y.txt",
        "train/a/.DS_Store",
        "train/README",
        "train/l.csv",
    ):
        (tmp_path / name).touch()
    save(tmp_path / "train/loose.png")
    (tmp_path / "train/b/gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "train/b/again").symlink_to(tmp_path / "train/b")
    (tmp_path / "train/c").symlink_to(tmp_path / "train/a")
    save(tmp_path / "train/.ipynb_checkpoints/1.png")
    dataset = load(str(tmp_path), "train")
    assert (dataset.classes, dataset.labels.tolist()) == (("a", "b", "c"), [0, 0, 1, 2, 2])
    assert dataset.notes[0] == f"{tmp_path}: the folders val next to train are not read"
    assert dataset.notes[1] == (
        f"{tmp_path / 'train'}: 5 images; 2 in folders inside the class folders; left out: 1 .csv, 2 .heic, 4 .txt, "
        "1 broken links, 1 cyclic links, 3 hidden, 1 images beside the class folders, 1 without suffix"
    )


def test_two_unicode_forms_of_a_class_are_one_class_and_two_in_one_folder_an_error(tmp_path, error):
    save(tmp_path / "train/caf\u00e9/1.png", 99)
    save(tmp_path / "test/cafe\u0301/1.png", 99)
    assert load(str(tmp_path), "test").classes == load(str(tmp_path), "train").classes == ("caf\u00e9",)
    save(tmp_path / "train/cafe\u0301/1.png", 99)
    assert "in different Unicode forms ('caf" in error(tmp_path)


def test_a_dark_data_set_is_said_to_be(tmp_path):
    save(tmp_path / "train/a/1.png", 1, mode="L")
    note = load(str(tmp_path), "train").notes[-1]
    assert note == f"{tmp_path / 'train'}: the brightest of 1 images reaches 1 of 255; are they scaled?"


def test_control_characters_in_names_are_not_printed(tmp_path):
    save(tmp_path / "train/a/1.png", 99)
    (tmp_path / "train/a/x.\x1b[31m\n").touch()
    assert "1 .\\x1b[31m\\n" in load(str(tmp_path), "train").notes[0]


def test_large_images_are_read_small_and_few_at_a_time(tmp_path, monkeypatch):
    from datafree.data import dataset as module

    save(tmp_path / "train/a/1.png", 50, (800, 400))
    Image.linear_gradient("L").resize((800, 400)).convert("RGB").save(tmp_path / "train/a/2.jpg", quality=95)
    data = load(str(tmp_path), "train")
    full = torch.nn.functional.interpolate(data.pixels([0, 1]), (8, 16), mode="bilinear", antialias=True)
    monkeypatch.setattr(module, "READ_BYTES", 1)
    torch.testing.assert_close(data.pixels([0, 1], (8, 16)), full, rtol=0, atol=0.02)
    torch.testing.assert_close(data.subset(2).pixels([1], (8, 16)), full[1:], rtol=0, atol=0.02)
    assert data._reader((8, 16))[1] == (3, 50, 100)


def test_a_class_that_is_called_train_is_a_class(tmp_path):
    for number in range(5):
        save(tmp_path / "train" / f"{number}.png")
        save(tmp_path / "bus" / f"{number}.png")
    assert load(str(tmp_path), "train").classes == ("bus", "train")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Train", "Test"),
        ("TRAIN", "TEST"),
        ("train", "Test"),
        ("Train", "test"),
        ("training", "testing"),
        ("Training", "test"),
    ],
)
def test_splits_are_known_in_any_case_where_no_class_can_be_meant(tmp_path, first, second):
    for number, label in enumerate("ab"):
        save(tmp_path / first / label / "1.png", 40 + number)
        save(tmp_path / second / label / "1.png", 60 + number)
    train, test = load(str(tmp_path), "train"), load(str(tmp_path), "test")
    assert train.classes == test.classes == ("a", "b")
    assert (greys(train), greys(test)) == ([40, 41], [60, 61])
    assert greys(load(str(tmp_path), "test", labelled=False)) == [60, 61]


def test_a_class_that_is_called_as_a_split_beside_others_is_a_class(tmp_path):
    for name in ("Train/old/1.png", "Train/new/1.png", "bus/1.png", "bus/2.png"):
        save(tmp_path / name)
    assert load(str(tmp_path), "train").classes == ("Train", "bus")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("Train/1.png", "Test/1.png"),
            "(Test, Train), without class folders in 'Test', 'Train'; expected train/<class>/*",
        ),
        (
            ("train/1.png", "test/1.png"),
            "(test, train), without class folders in 'test', 'train'; expected train/<class>/*",
        ),
        (
            ("training/1.png", "validation/1.png"),
            "are named after splits (training, validation), without class folders",
        ),
        (("val/a/1.png", "val/b/1.png"), "are named after splits (val), neither train nor test among them; expected"),
        (("Train/a/1.png", "training/a/1.png"), "folders 'Train', 'training' in"),
    ],
)
def test_splits_are_never_taken_for_classes(error, tmp_path, names, expected):
    for name in names:
        save(tmp_path / name)
    assert expected in error(tmp_path)


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_a_folder_of_validation_images_is_not_tested_on_without_a_word(error, tmp_path, name):
    save(tmp_path / "Train/a/1.png")
    save(tmp_path / name / "a/1.png")
    assert load(str(tmp_path), "train").notes[0] == f"{tmp_path}: the folders {name} next to Train are not read"
    assert f"expected it next to 'Train'; add it, or rename {name!r} to test on it" in error(tmp_path, "test")


def test_the_folder_can_be_pickled_and_read_elsewhere(tmp_path):
    save(tmp_path / "train/a/1.png", 9)
    assert greys(pickle.loads(pickle.dumps(load(str(tmp_path), "train")))) == [9]


def test_an_empty_class_folder_is_an_error_that_names_it(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    (tmp_path / "train/b").mkdir()
    (tmp_path / "train/b/notes.txt").touch()
    assert f"no image in the class folder '{tmp_path}/train/b', which holds 1 .txt; expected .png, .jpg" in error(
        tmp_path
    )


@pytest.mark.parametrize("file", [None, "1.png"])
def test_a_folder_without_classes_is_an_error(error, tmp_path, file):
    if file:
        save(tmp_path / file)
    held = "which holds 1 image and no folder" if file else "which has no folder in it"
    assert f"no class folder in {str(tmp_path)!r}, {held}; expected <class>/*.png or <split>" in error(tmp_path)


def test_an_unfinished_output_folder_is_no_image_folder(error, tmp_path):
    (tmp_path / ".datafree.json").touch()
    assert "which holds output of datafree, unfinished or of another kind; expected" in error(tmp_path)


def test_a_split_without_its_folder_is_an_error(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    assert f"no class folders in '{tmp_path}/test'; expected it next to 'train'" in error(tmp_path, "test")


def test_a_class_of_the_test_split_alone_is_an_error(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    save(tmp_path / "test/b/1.png")
    assert f"class 'b' of 'test' is not in '{tmp_path}/train'; expected it in both" in error(tmp_path, "test")


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
    Image.new("L", (4, 4)).save(tmp_path / "train/a/1.png", "TGA")
    assert "cannot be read (not an image); expected PNG/JPEG/BMP/WEBP/GIF/TIFF/PPM" in error(tmp_path)


@pytest.mark.parametrize("most", [35, 20, 5])
def test_an_image_of_more_pixels_than_pillow_allows_is_an_error(error, tmp_path, monkeypatch, most):
    path = save(tmp_path / "train/a/1.png", size=(6, 6))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    message = error(tmp_path)
    assert message.startswith(f"image {str(path)!r} is too large")
    assert f"expected at most {most} pixels" in message


@pytest.mark.parametrize("channels", [2, "1", 4])
def test_other_channels_than_1_and_3_are_an_error(error, tmp_path, channels):
    save(tmp_path / "train/a/1.png")
    assert error(tmp_path, channels=channels).startswith(f"channels: got {channels!r} for data set")


def test_an_unknown_split_is_an_error(error, tmp_path):
    save(tmp_path / "train/a/1.png")
    assert f"no split 'valid' in data set {str(tmp_path)!r}; expected one of 'train', 'test'" in error(
        tmp_path, "valid"
    )


def test_a_folder_that_cannot_be_listed_is_an_error(error, tmp_path, monkeypatch):
    """Simulated, since a test that runs as root may list everything."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    assert (
        error(tmp_path)
        == f"{str(tmp_path)!r} cannot be listed (Permission denied); expected a readable folder; check its permissions"
    )


@pytest.mark.parametrize("place", ["a", "", "a/deep"])
@pytest.mark.parametrize("name", ["loop.png", "loop"])
def test_a_link_to_itself_is_left_out_and_counted(tmp_path, place, name):
    for label in ("a", "a/deep", "b"):
        (tmp_path / label).mkdir(exist_ok=True)
        Image.new("L", (8, 8), 200).save(tmp_path / label / "0.png")
    link = tmp_path / place / name
    link.symlink_to(link)
    dataset = load(str(tmp_path), "train")
    assert dataset.classes == ("a", "b")
    assert len(dataset) + len(load(str(tmp_path), "test")) == 3


@pytest.mark.skipif(os.name == "nt", reason="links and devices of POSIX")
def test_a_link_to_a_folder_above_its_class_brings_in_no_other_class(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/3.png"):
        save(tmp_path / "own" / name, 100)
    (tmp_path / "own/a/up").symlink_to("..")
    (tmp_path / "own/b/top").symlink_to(tmp_path)
    (tmp_path / "own/b/zero.png").symlink_to("/dev/zero")
    dataset = load(str(tmp_path / "own"), "all")
    assert dataset.labels.tolist() == [0, 1, 1]
    assert "left out: 2 cyclic links, 1 pipes or devices" in dataset.notes[0]
