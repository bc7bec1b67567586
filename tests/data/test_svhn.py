import numpy as np
import pytest
import scipy.io

from datafree._core.errors import UserError
from datafree.data import load


def write(path, images, labels, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"X": images, "y": np.array(labels, np.uint8)[:, None], **more}, do_compression=True)
    return path


@pytest.fixture
def images():
    return np.random.RandomState(0).randint(0, 256, (32, 32, 3, 3)).astype(np.uint8)


@pytest.mark.parametrize("folder", ["SVHN", "."])
def test_images_are_turned_and_label_10_is_the_digit_0(tmp_path, images, folder):
    write(tmp_path / folder / "test_32x32.mat", images, [10, 9, 1])
    dataset = load("svhn", "test", data_dir=tmp_path)
    assert dataset.labels.tolist() == [0, 9, 1] and dataset.classes == tuple("0123456789")
    assert dataset.shape == (3, 32, 32)
    assert np.array_equal(dataset.read(np.array([2]))[0], images[..., 2].transpose(2, 0, 1))


def test_a_file_that_is_cut_off_anywhere_is_one_line(tmp_path, images, error):
    path = write(tmp_path / "SVHN" / "train_32x32.mat", images, [1, 2, 3])
    content = path.read_bytes()
    for length in (0, 3, 50, 128, 140, 500, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert f"'{path}' " in error("svhn", data_dir=tmp_path)


@pytest.mark.parametrize("flipped", range(0, 4000, 97))
def test_a_file_with_a_wrong_byte_is_one_line_or_whole(tmp_path, images, flipped):
    path = write(tmp_path / "SVHN" / "train_32x32.mat", images, [1, 2, 3])
    content = bytearray(path.read_bytes())
    content[flipped] ^= 0xFF
    path.write_bytes(bytes(content))
    said = []
    try:
        assert len(load("svhn", "train", data_dir=tmp_path)) == 3
    except UserError as error:
        said.append(str(error))
    assert not any("\n" in line for line in said)


def test_other_arrays_and_labels_are_refused(tmp_path, images, error):
    path = tmp_path / "SVHN" / "train_32x32.mat"
    write(path, images[:16], [1, 2, 3])
    assert "holds X of (16, 32, 3, 3) (uint8)" in error("svhn", data_dir=tmp_path)
    write(path, images, [1, 2])
    assert "y of (2, 1); expected uint8 X of (32, 32, 3, n), y of (n, 1)" in error("svhn", data_dir=tmp_path)
    write(path, images, [1, 0, 2])
    assert "label 10 of image 1" in error("svhn", data_dir=tmp_path)
    scipy.io.savemat(path, {"Z": images})
    assert "holds X of () (none)" in error("svhn", data_dir=tmp_path)


def test_what_unpacks_to_many_times_its_file_is_refused(tmp_path, monkeypatch, error):
    path = write(tmp_path / "SVHN" / "train_32x32.mat", np.zeros((32, 32, 3, 200), np.uint8), [1] * 200)
    monkeypatch.setattr("datafree.data.find_files.FREE", 1000)
    assert "unpacks to 614,400 bytes; expected at most" in error("svhn", data_dir=tmp_path)
    assert path.stat().st_size < 5000
