import gzip
import lzma

import numpy as np
import pytest

from datafree.data import load

OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


def records(*labels, seed=0):
    """Records of one label each, or of a (coarse, fine) pair, and their images (n, 3, 32, 32)."""
    images = np.random.RandomState(seed).randint(0, 256, (len(labels), 3, 32, 32)).astype(np.uint8)
    return b"".join(bytes(np.atleast_1d(label).tolist()) + i.tobytes() for label, i in zip(labels, images)), images


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    with OPENERS.get(path.suffix, open)(path, "wb") as stream:
        stream.write(content)
    return path


@pytest.mark.parametrize("suffix", OPENERS)
@pytest.mark.parametrize("folder", ["cifar-10-batches-bin", "."])
def test_cifar10_reads_labels_and_planes_plain_or_compressed(tmp_path, suffix, folder):
    content, images = records(3, 9, 0)
    write(tmp_path / folder / f"test_batch.bin{suffix}", content)
    dataset = load("cifar10", "test", data_dir=tmp_path)
    assert dataset.labels.tolist() == [3, 9, 0]
    assert [dataset.classes[label] for label in (3, 9, 0)] == ["cat", "truck", "airplane"]
    assert dataset.shape == (3, 32, 32)
    assert np.array_equal(dataset.read(np.array([2, 0])), images[[2, 0]])


def test_the_training_batches_that_are_there_are_read_in_order(tmp_path):
    first, second = records(1, 2, seed=1), records(3, seed=2)
    write(tmp_path / "cifar-10-batches-bin/data_batch_5.bin.gz", second[0])
    write(tmp_path / "cifar-10-batches-bin/data_batch_2.bin", first[0])
    dataset = load("cifar10", "train", data_dir=tmp_path)
    assert dataset.labels.tolist() == [1, 2, 3]
    assert np.array_equal(dataset.read(np.arange(3)), np.concatenate([first[1], second[1]]))


def test_without_a_training_batch_the_error_names_the_first(error, tmp_path):
    write(tmp_path / "cifar-10-batches-bin/test_batch.bin", records(1)[0])
    assert f"no file '{tmp_path}/cifar-10-batches-bin/data_batch_1.bin'" in error("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(("split", "file"), [("train", "train.bin"), ("test", "test.bin.xz")])
def test_cifar100_has_fine_and_coarse_labels(tmp_path, split, file):
    content, images = records((4, 0), (1, 1), (13, 99))
    write(tmp_path / "cifar-100-binary" / file, content)
    fine = load("cifar100", split, data_dir=tmp_path)
    coarse = load("cifar100", split, data_dir=tmp_path, labels="coarse")
    assert [fine.classes[label] for label in fine.labels] == ["apple", "aquarium_fish", "worm"]
    names = [coarse.classes[label] for label in coarse.labels]
    assert names == ["fruit_and_vegetables", "fish", "non-insect_invertebrates"]
    assert (len(set(fine.classes)), len(set(coarse.classes))) == (100, 20)
    assert np.array_equal(fine.read(np.arange(3)), images)


def test_other_labels_than_fine_and_coarse_are_an_error(error, tmp_path):
    expected = "no labels 'corse' in data set 'cifar100'; nearest: 'coarse'"
    assert error("cifar100", data_dir=tmp_path, labels="corse") == expected


@pytest.mark.parametrize(("length", "got"), [(3072, "3072"), (3074, "3074"), (0, "0")])
def test_a_file_that_ends_within_a_record_is_an_error_that_names_it(error, tmp_path, length, got):
    path = write(tmp_path / "cifar-10-batches-bin/data_batch_1.bin", bytes(length))
    expected = f"{str(path)!r} holds {got} bytes; expected complete records of 3073; copy or download it again"
    assert error("cifar10", data_dir=tmp_path) == expected


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_truncated_archive_is_an_error_that_names_it(error, tmp_path, suffix):
    path = write(tmp_path / f"cifar-10-batches-bin/data_batch_1.bin{suffix}", records(1, 2)[0])
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{str(path)!r} cannot be read (Compressed file ended" in error("cifar10", data_dir=tmp_path)


def test_a_batch_of_more_than_the_official_records_is_an_error(error, tmp_path):
    write(tmp_path / "cifar-10-batches-bin/data_batch_1.bin.gz", bytes(10_000 * 3073 + 1))
    assert "holds more than 30730000 bytes; expected at most 10000 records of 3073" in error(
        "cifar10", data_dir=tmp_path
    )


def test_a_label_outside_the_classes_is_an_error_that_names_the_file(error, tmp_path):
    path = write(tmp_path / "cifar-10-batches-bin/data_batch_1.bin", records(0, 10)[0])
    assert f"label 10 of image 1 in {str(path)!r}; expected 0 to 9" in error("cifar10", data_dir=tmp_path)
    path = write(tmp_path / "cifar-100-binary/train.bin", records((20, 99), (3, 100))[0])
    assert f"label 100 of image 1 in {str(path)!r}; expected 0 to 99" in error("cifar100", data_dir=tmp_path)
    message = error("cifar100", data_dir=tmp_path, labels="coarse")
    assert f"label 20 of image 0 in {str(path)!r}; expected 0 to 19" in message
