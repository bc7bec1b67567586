import gzip
import lzma
import struct
import tracemalloc

import numpy as np
import pytest

from datafree.data import load

OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}
CLOTHES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
FOLDERS = {"mnist": "MNIST/raw", "fashion-mnist": "FashionMNIST/raw"}


def idx(array):
    return struct.pack(">BBBB" + "I" * array.ndim, 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


IMAGES = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 1, 4, 1, 9], np.uint8)


def write(folder, stem="train", suffix="", images=None, labels=None):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (("images-idx3", images or idx(IMAGES)), ("labels-idx1", labels or idx(LABELS))):
        with OPENERS[suffix](folder / f"{stem}-{file}-ubyte{suffix}", "wb") as stream:
            stream.write(content)
    return folder


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("directly", [False, True])
@pytest.mark.parametrize(("split", "stem"), [("train", "train"), ("test", "t10k")])
def test_idx_files_are_read_from_either_place_plain_or_compressed(tmp_path, name, suffix, directly, split, stem):
    write(tmp_path if directly else tmp_path / FOLDERS[name], stem, suffix)
    dataset = load(name, split, data_dir=tmp_path)
    assert (dataset.name, dataset.split, dataset.shape, len(dataset)) == (name, split, (1, 4, 3), 5)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert np.array_equal(dataset.read(np.arange(5))[:, 0], IMAGES)


def test_the_classes_have_names(tmp_path):
    write(tmp_path)
    assert load("mnist", "train", data_dir=tmp_path).classes == tuple("0123456789")
    assert load("fashion-mnist", "train", data_dir=str(tmp_path)).classes == tuple(CLOTHES.split(","))


def test_images_of_one_place_are_not_mixed_with_labels_of_another(error, tmp_path):
    write(tmp_path)
    write(tmp_path / "MNIST/raw")
    (tmp_path / "MNIST/raw/train-labels-idx1-ubyte").unlink()
    expected = f"no file '{tmp_path}/MNIST/raw/train-labels-idx1-ubyte', nor with .gz or .xz; copy or download it there"
    assert error("mnist", data_dir=tmp_path) == expected


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("cut", [1, 30])
def test_a_truncated_file_is_an_error_that_names_it(error, tmp_path, suffix, cut):
    path = write(tmp_path, suffix=suffix) / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:-cut])
    assert f"{str(path)!r} " in error("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_file_that_is_not_compressed_though_its_name_says_so_is_an_error(error, tmp_path, suffix):
    path = write(tmp_path, suffix=suffix) / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(idx(IMAGES))
    assert f"{str(path)!r} cannot be read" in error("mnist", data_dir=tmp_path)


def test_a_flipped_bit_in_a_compressed_file_is_an_error(error, tmp_path):
    path = write(tmp_path, suffix=".gz") / "train-images-idx3-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the CRC-32
    path.write_bytes(content)
    assert "CRC check failed" in error("mnist", data_dir=tmp_path)


def test_another_magic_number_is_an_error_that_shows_both(error, tmp_path):
    write(tmp_path, images=idx(LABELS))
    assert "starts with 0x00000801; expected 0x00000803" in error("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(("content", "got"), [(b"", "starts with 0x;"), (idx(IMAGES)[:9], "ends after 9 bytes")])
def test_a_file_without_a_whole_header_is_an_error(error, tmp_path, content, got):
    write(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    assert got in error("mnist", data_dir=tmp_path)


@pytest.mark.parametrize(("change", "got"), [(lambda c: c[:-1], "holds 59"), (lambda c: c + b"x", "holds more")])
def test_another_length_than_the_header_says_is_an_error(error, tmp_path, change, got):
    write(tmp_path, images=change(idx(IMAGES)))
    assert f"{got} bytes of values; expected 60 for its shape (5, 4, 3)" in error("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (1 << 20, 1 << 10, 2), (1, 0, 3)])
def test_a_header_that_claims_too_much_or_nothing_is_an_error(error, tmp_path, shape):
    write(tmp_path, images=struct.pack(">BBBBIII", 0, 0, 8, 3, *shape))
    assert "claims the shape" in error("mnist", data_dir=tmp_path)


def test_a_decompression_bomb_is_read_no_further_than_its_header_says(error, tmp_path):
    """128 MiB of zeros in 130 kB; a reader without a limit would hold all of them."""
    write(tmp_path, suffix=".gz", images=idx(IMAGES) + bytes(1 << 27))
    tracemalloc.start()
    message = error("mnist", data_dir=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "holds more bytes of values; expected 60" in message
    assert peak < 1 << 24


def test_a_label_outside_the_classes_is_an_error_that_names_the_file(error, tmp_path):
    write(tmp_path, labels=idx(np.array([0, 1, 10, 2, 3], np.uint8)))
    expected = f"label 10 of image 2 in '{tmp_path}/train-labels-idx1-ubyte'; expected 0 to 9; correct the labels"
    assert error("mnist", data_dir=tmp_path) == expected


def test_other_numbers_of_labels_than_of_images_are_an_error(error, tmp_path):
    write(tmp_path, labels=idx(LABELS[:4]))
    assert "4 labels for 5 images in split 'train' of data set 'mnist'" in error("mnist", data_dir=tmp_path)


def test_no_images_are_an_error(error, tmp_path):
    write(tmp_path, images=idx(IMAGES[:0]), labels=idx(LABELS[:0]))
    assert "no image in split 'train'" in error("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_what_unpacks_to_many_times_its_file_is_refused(error, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr("datafree.data.find_files.FREE", 1000)
    zeros = np.zeros((400, 28, 28), np.uint8)
    write(tmp_path, suffix=suffix, images=idx(zeros), labels=idx(np.zeros(400, np.uint8)))
    size = (tmp_path / f"train-images-idx3-ubyte{suffix}").stat().st_size
    assert f"unpacks to more than {50 * size + 1000:,} bytes; expected the file" in error("mnist", data_dir=tmp_path)
