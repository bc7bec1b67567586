import subprocess
import sys

import pytest

import datafree.data
from datafree.data import load, names

FILES = ("mnist", "fashion-mnist", "cifar10", "cifar100", "svhn", "celeba")


def test_the_built_in_names():
    assert names() == ("digits", *FILES)


def test_names_are_listed_without_importing_torch():
    program = "import sys, datafree.data; datafree.data.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_the_module_has_what_it_promises_and_nothing_else():
    assert all(hasattr(datafree.data, name) for name in datafree.data.__all__)
    assert not hasattr(datafree.data, "datasets")


def test_an_unknown_name_gets_the_nearest(error):
    assert error("mnits") == "no data set 'mnits' in the data sets, and no such folder or .npz file; nearest: 'mnist'"
    assert "'fashion-mnist'" in error("FashionMNIST")


@pytest.mark.parametrize("name", ["./missing", "a/b", "missing.npz"])
def test_a_path_that_does_not_exist_is_called_one(error, name):
    assert error(name).startswith(f"no data set {name!r}: no such file or folder; expected")


@pytest.mark.parametrize("name", ["", "\0", "x" * 5000])
def test_an_impossible_name_is_an_unknown_one(error, name):
    assert error(name).startswith("no data set")


def test_another_kind_of_file_is_an_error(error, tmp_path):
    (tmp_path / "a.csv").touch()
    assert "another kind of file; expected a folder of images or a file that ends in .npz" in error(tmp_path / "a.csv")


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("split", ["tset", "", "Train"])
def test_every_source_refuses_an_unknown_split(error, name, split, tmp_path):
    text = error(name, split, data_dir=tmp_path)
    assert f"no split {split!r} in data set {name!r}; " in text and ("'train'" in text or "'test'" in text)


@pytest.mark.parametrize("name", names())
def test_every_source_refuses_an_unknown_option(error, name):
    assert error(name, colour=1).startswith("no option 'colour'")


def test_a_misspelt_option_gets_the_nearest(error):
    assert error("celeba", atribute="Male") == "no option 'atribute' in data set 'celeba'; nearest: 'attribute'"


@pytest.mark.parametrize("name", FILES)
def test_without_a_folder_the_error_says_how_to_give_one_and_what_it_holds(error, name):
    message = error(name)
    assert message.startswith(f"no folder for data set {name!r}; give `data_dir` or set DATAFREE_DATA to a folder with")
    assert any(file in message for file in ("ubyte", ".bin", ".mat", "list_attr_celeba.txt"))


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_is_missing_or_empty_is_named_with_the_expected_file(error, name, tmp_path):
    assert f"no folder {str(tmp_path / 'no')!r} for data set {name!r}; expected" in error(
        name, data_dir=tmp_path / "no"
    )
    assert error(name, data_dir=tmp_path).startswith(f"no file '{tmp_path}/")


def test_the_environment_gives_the_folder_and_the_argument_wins(error, monkeypatch, tmp_path):
    monkeypatch.setenv("DATAFREE_DATA", str(tmp_path / "environment"))
    assert f"no folder '{tmp_path}/environment'" in error("mnist")
    assert f"no folder '{tmp_path}/argument'" in error("mnist", data_dir=tmp_path / "argument")
    monkeypatch.setenv("DATAFREE_DATA", "")
    assert "no folder for data set" in error("mnist")


def test_the_digits_need_no_folder_and_split_1297_to_500_without_overlap():
    train, test = load("digits", "train"), load("digits", "test")
    assert (len(train), len(test), train.shape) == (1297, 500, (1, 8, 8))
    assert train.classes == tuple("0123456789")
    assert abs(test.labels.bincount() / 500 - train.labels.bincount() / 1297).max() < 1 / 500
    images = [tuple(image.flatten().tolist()) for part in (train, test) for image in part.pixels(range(len(part)))]
    assert len(set(images)) == 1797


def test_the_digits_reach_from_0_to_1():
    pixels = load("digits", "train").pixels(range(1297))
    assert pixels.min() == 0
    assert pixels.max() == 1
    assert len(pixels.unique()) == 17
