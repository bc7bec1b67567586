import io
import struct
import zipfile

import numpy as np
import pytest

from datafree.data import load, sha256

IMAGES = np.random.RandomState(0).randint(0, 256, (20, 5, 4, 3)).astype(np.uint8)  # NHWC
LABELS = np.arange(20) % 2


def save(folder, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return str(folder / "a.npz")


def bytes_of(dataset):
    return dataset.read(np.arange(len(dataset)))


def test_an_own_split_is_kept(tmp_path):
    name = save(tmp_path, x_train=IMAGES[:12], y_train=LABELS[:12], x_test=IMAGES[12:], y_test=LABELS[12:])
    train, test = load(name, "train"), load(name, "test")
    assert np.array_equal(bytes_of(train), IMAGES[:12].transpose(0, 3, 1, 2))
    assert np.array_equal(bytes_of(test), IMAGES[12:].transpose(0, 3, 1, 2))
    assert (train.labels.tolist(), test.labels.tolist()) == (LABELS[:12].tolist(), LABELS[12:].tolist())
    assert (train.name, train.shape) == (name, (3, 5, 4))


def test_without_a_split_a_fixed_fifth_of_each_class_is_for_testing(tmp_path):
    name = save(tmp_path, images=IMAGES, labels=LABELS)
    train, test = load(name, "train"), load(name, "test")
    assert (train.labels.bincount().tolist(), test.labels.bincount().tolist()) == ([8, 8], [2, 2])
    both = np.concatenate([bytes_of(train), bytes_of(test)]).transpose(0, 2, 3, 1)
    assert {image.tobytes() for image in both} == {image.tobytes() for image in IMAGES}


def test_every_layout_and_compression_gives_the_same_data_set(tmp_path):
    plain = sha256(load(save(tmp_path, images=IMAGES, labels=LABELS), "train"))
    assert plain == sha256(load(save(tmp_path, images=IMAGES.transpose(0, 3, 1, 2), labels=LABELS), "train"))
    assert plain == sha256(load(save(tmp_path, images=np.asfortranarray(IMAGES), labels=LABELS[:, None]), "train"))
    assert plain == sha256(load(save(tmp_path, images=IMAGES.astype(">f8") / 255, labels=LABELS.astype("u1")), "train"))
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    assert plain == sha256(load(str(tmp_path / "a.npz"), "train"))


def test_grey_images_need_no_channel_axis(tmp_path):
    dataset = load(save(tmp_path, images=IMAGES[..., 0], labels=LABELS), "train")
    assert dataset.shape == (1, 5, 4)
    narrow = save(tmp_path, images=IMAGES[:, :3, :3, 0], labels=LABELS)
    assert load(narrow, "train").shape == load(narrow, "train", layout="NHWC").shape == (1, 3, 3)


def test_a_shape_that_fits_two_layouts_needs_the_option(error, tmp_path):
    name = save(tmp_path, images=IMAGES[:, :3], labels=LABELS)  # (20, 3, 4, 3)
    assert "has the shape (20, 3, 4, 3), NHWC as well as NCHW; wanted one; pass the option layout" in error(name)
    assert load(name, "train", layout="NHWC").shape == (3, 3, 4)
    assert load(name, "train", layout="NCHW").shape == (3, 4, 3)
    assert "no layout 'HWC'" in error(name, layout="HWC")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_byte_they_came_from(tmp_path, dtype):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16).repeat(5, 0)
    name = save(tmp_path, images=(values / 255).astype(dtype), labels=np.zeros(5, int))
    assert np.array_equal(bytes_of(load(name, "train"))[:, 0], values[:4])


def test_classes_are_numbered_unless_they_are_named(tmp_path):
    assert load(save(tmp_path, images=IMAGES, labels=LABELS * 2), "train").classes == ("0", "1", "2")
    named = save(tmp_path, images=IMAGES, labels=LABELS, classes=np.array(["no", "yes", "perhaps"]))
    assert load(named, "train").classes == ("no", "yes", "perhaps")


def test_both_splits_have_the_same_classes(tmp_path):
    name = save(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=np.array([0, 3]))
    assert load(name, "train").classes == load(name, "test").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("arrays", "got"),
    [
        ({"images": IMAGES}, "no array 'labels' in"),
        ({"labels": LABELS}, "no array 'images' in"),
        ({"x_train": IMAGES, "y_train": LABELS}, "no array 'y_test' in"),
        ({}, "which holds nothing; wanted images and labels"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "9 labels for 20 images"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1 of image 0 in 'labels'"),
        ({"images": IMAGES, "labels": LABELS * 10**9}, "label 1000000000 of image 1"),
        ({"images": IMAGES, "labels": LABELS.astype(np.uint64) * 2**63}, "label 9223372036854775808 of image 1"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "is float64 (20,); wanted integers (N,)"),
        ({"images": IMAGES, "labels": np.eye(20, dtype=int)}, "is int64 (20, 20); wanted integers (N,)"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a"])}, "label 1 of image 1"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.arange(2)}, "'classes' in"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "no image in split 'train'"),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "no image in split 'train'"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "has the shape (20, 0, 4, 3)"),
        ({"images": IMAGES[:, :0, :, 0], "labels": LABELS}, "has the shape (20, 0, 4)"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "has the shape (20, 5, 4, 2); wanted NHW, NHWC or NCHW"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, "has the shape (4, 3)"),
        ({"images": IMAGES.astype(int), "labels": LABELS}, "is int64; wanted uint8 0 to 255 or float 0 to 1"),
        ({"images": IMAGES > 9, "labels": LABELS}, "is bool; wanted"),
        ({"images": IMAGES.astype("U3"), "labels": LABELS}, "is <U3; wanted"),
        ({"images": IMAGES.astype("f4"), "labels": LABELS}, "has values from 0.0 to 255.0; wanted"),
        ({"images": IMAGES * 1e300, "labels": LABELS}, "has values from 0.0 to 2.55e+302; wanted"),
        ({"images": IMAGES / 255 - 0.1, "labels": LABELS}, "has values from -0.1"),
        ({"images": np.where(IMAGES == 7, np.nan, 0), "labels": LABELS}, "has values from nan to nan"),
        ({"images": np.where(IMAGES == 7, np.inf, 0), "labels": LABELS}, "has values from 0.0 to inf"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_an_error(error, tmp_path, arrays, got):
    assert got in error(save(tmp_path, **arrays))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("key", ["images", "labels", "classes"])
def test_a_pickle_is_refused_and_never_run(error, tmp_path, key):
    trap = np.array([Trap(tmp_path / "ran")] * 20, dtype=object)
    name = save(tmp_path, **{"images": IMAGES, "labels": LABELS, key: trap})
    assert f"{key!r} in {name!r} holds Python objects (a pickle), which are never loaded" in error(name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no zip", b"\x80\x04N."])
def test_a_file_that_is_no_zip_is_an_error(error, tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    assert "cannot be read (File is not a zip file); wanted a whole .npz file" in error(tmp_path / "a.npz")


def test_a_header_that_claims_more_than_there_is_is_an_error_before_memory_is_taken(error, tmp_path):
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    name = save(tmp_path, labels=LABELS)
    with zipfile.ZipFile(name, "a") as archive:
        archive.writestr("images.npy", stream.getvalue())
    assert "holds 0 bytes for 3298534883328" in error(name)


def test_no_damage_of_any_byte_gives_another_error_than_ours(tmp_path):
    """Each byte of a small file is changed in turn: it still loads, or a UserError says why not."""
    from datafree.errors import UserError

    name = save(tmp_path, images=IMAGES[:5, :2, :2, 0], labels=LABELS[:5])
    content = (tmp_path / "a.npz").read_bytes()
    refused = 0
    for place in range(len(content)):
        (tmp_path / "a.npz").write_bytes(content[:place] + bytes([content[place] ^ 0x81]) + content[place + 1 :])
        try:
            load(name, "train")
        except UserError:
            refused += 1
    assert refused > len(content) / 2


def test_an_encrypted_array_is_an_error(error, tmp_path):
    name = save(tmp_path, images=IMAGES, labels=LABELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        place = content.find(signature)
        while place >= 0:
            struct.pack_into("<H", content, place + offset, 1)
            place = content.find(signature, place + 4)
    (tmp_path / "a.npz").write_bytes(content)
    assert "cannot be read" in error(name)
