import io
import struct
import zipfile

import numpy as np
import pytest

from datafree._core.errors import UserError
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
    assert (
        "has the shape (20, 3, 4, 3), which fits NHWC and NCHW; expected only one; give the layout, from Python"
        in error(name)
    )
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


def test_labels_without_a_zero_are_taken_where_classes_are_named_and_gaps_are_said(tmp_path):
    named = save(tmp_path, images=IMAGES, labels=LABELS + 1, classes=np.array(["none", "a", "b"]))
    assert load(named, "train").classes == ("none", "a", "b")
    gaps = load(save(tmp_path, images=IMAGES, labels=LABELS * 3), "train")
    assert len(gaps.notes) == 2 and gaps.notes[0] == f"{tmp_path / 'a.npz'}: no image has label 1, 2, of 4 classes"
    assert "a fixed fifth of each class, 4 of 20 images, is the test split" in gaps.notes[1]
    assert len(load(named, "all")) == len(load(named, "train")) + len(load(named, "test")) == 20
    assert len(load(save(tmp_path, images=IMAGES, labels=LABELS), "train").notes) == 1


def test_both_splits_have_the_same_classes(tmp_path):
    name = save(tmp_path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2], y_test=np.array([0, 3]))
    assert load(name, "train").classes == load(name, "test").classes == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("arrays", "got"),
    [
        ({"images": IMAGES}, "no array 'labels' in"),
        ({"labels": LABELS}, "no array 'images' in"),
        ({"x_train": IMAGES, "y_train": LABELS}, "no array 'y_test' in"),
        ({}, "which holds nothing; expected images and labels"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "9 labels for 20 images"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1 of image 0 in 'labels'"),
        ({"images": IMAGES, "labels": LABELS * 10**9}, "label 1000000000 of image 1"),
        ({"images": IMAGES, "labels": LABELS.astype(np.uint64) * 2**63}, "label 9223372036854775808 of image 1"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "is float64 (20,); expected integers (N,), class numbers"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "convert it with .astype(int)"),
        ({"images": IMAGES, "labels": np.eye(20, dtype=int)}, "is int64 (20, 20); expected integers (N,)"),
        ({"images": IMAGES, "labels": np.eye(20)}, "take .argmax(1) of one-hot rows"),
        ({"images": IMAGES, "labels": LABELS.astype("M8[D]")}, "is datetime64[D] (20,)"),
        ({"images": IMAGES, "labels": LABELS > 0}, "is bool (20,)"),
        (
            {"images": IMAGES, "labels": LABELS + 1},
            "go from 1 to 2 and none is 0; expected 0 to 1; save labels=labels - 1",
        ),
        ({"images": IMAGES, "labels": LABELS * 3 + 4}, "go from 4 to 7 and none is 0; expected 0 to 3"),
        ({"x_train": IMAGES, "y_train": LABELS + 1, "x_test": IMAGES, "y_test": LABELS[::-1] + 1}, "none is 0"),
        ({"images": (IMAGES > 9).astype("u1"), "labels": LABELS}, "has values up to 1 only, which is nearly black"),
        ({"images": IMAGES // 16, "labels": LABELS}, "has values up to 15 only"),
        ({"images": IMAGES * 0, "labels": LABELS}, "has values up to 0 only"),
        ({"images": IMAGES / 255**2, "labels": LABELS}, "has values up to 0.003922 only"),
        ({"images": IMAGES.astype("u2") * 257, "labels": LABELS}, "is uint16; expected"),
        ({"images": IMAGES.astype("i1"), "labels": LABELS}, "is int8; expected"),
        ({"images": IMAGES.astype(complex), "labels": LABELS}, "is complex128; expected"),
        ({"images": IMAGES / 127.5 - 1, "labels": LABELS}, "has values from -1.0 to 1.0"),
        ({"images": np.zeros(20, [("a", "u1"), ("b", "f4")]), "labels": LABELS}, "expected plain numbers or text"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.array(["a"])}, "label 1 of image 1"),
        ({"images": IMAGES, "labels": LABELS, "classes": np.arange(2)}, "'classes' in"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "no image in split 'train'"),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "no image in split 'train'"),
        ({"images": IMAGES[:, :0], "labels": LABELS}, "has the shape (20, 0, 4, 3)"),
        ({"images": IMAGES[:, :0, :, 0], "labels": LABELS}, "has the shape (20, 0, 4)"),
        ({"images": IMAGES[..., :2], "labels": LABELS}, "has the shape (20, 5, 4, 2); expected NHW, NHWC or NCHW"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, "has the shape (4, 3)"),
        ({"images": IMAGES.astype(int), "labels": LABELS}, "is int64; expected uint8 0 to 255 or float 0 to 1"),
        ({"images": IMAGES > 9, "labels": LABELS}, "is bool; expected"),
        ({"images": IMAGES.astype("U3"), "labels": LABELS}, "is <U3; expected"),
        ({"images": IMAGES.astype("f4"), "labels": LABELS}, "has values from 0.0 to 255.0; expected"),
        ({"images": IMAGES * 1e300, "labels": LABELS}, "has values from 0.0 to 2.55e+302; expected"),
        ({"images": IMAGES / 255 - 0.1, "labels": LABELS}, "has values from -0.1"),
        ({"images": np.where(IMAGES == 7, np.nan, 0), "labels": LABELS}, "has values from nan to nan"),
        ({"images": np.where(IMAGES == 7, np.inf, 0), "labels": LABELS}, "has values from 0.0 to inf"),
    ],
)
def test_arrays_that_are_no_labelled_images_are_an_error(error, tmp_path, arrays, got):
    assert got in error(save(tmp_path, **arrays))


GREY = IMAGES[..., 0]


@pytest.mark.parametrize(
    ("images", "advice", "after"),
    [
        (GREY[:, :4].reshape(20, 16), "reshape its rows to images, with .reshape(-1, 4, 4)", lambda x: x.reshape(-1, 4, 4)),
        (IMAGES[:, :4].reshape(20, 48), "with .reshape(-1, 3, 4, 4) if they are", lambda x: x.reshape(-1, 3, 4, 4)),
        (GREY.reshape(20, 20), "with .reshape(-1, height, width)", lambda x: x.reshape(-1, 5, 4)),
        (GREY[:, 0, 0], "save the pixels of the images, not one number per image", None),
        (IMAGES[..., [0, 1, 2, 2]], "drop the fourth channel, transparency, with [..., :3]", lambda x: x[..., :3]),
        (IMAGES.repeat(2, 2).transpose(0, 3, 1, 2)[:, [0, 1, 2, 2]], "with [:, :3]", lambda x: x[:, :3]),
        (IMAGES[..., :2], "take one of its two channels, with [..., :1]", lambda x: x[..., :1]),
        (IMAGES.transpose(0, 3, 1, 2)[:, :2], "take one of its two channels, with [:, :1]", lambda x: x[:, :1]),
        (IMAGES[..., [0, 1, 2, 2, 2, 2]], "take 1 or 3 of its channels", lambda x: x[..., :3]),
        (IMAGES.transpose(1, 2, 3, 0), "with .transpose(3, 0, 1, 2) if they are last", lambda x: x.transpose(3, 0, 1, 2)),
        (IMAGES.transpose(3, 1, 2, 0), "with .transpose(3, 0, 1, 2) if they are last", lambda x: x.transpose(3, 0, 1, 2)),
        (IMAGES[:, None], "save one picture per image", lambda x: x[:, 0]),
        (GREY[:, None, None], "save one picture per image", lambda x: x[:, 0]),
        (IMAGES[:, :0], "save images with pixels: an axis has length 0", None),
        (np.where(IMAGES == 7, np.nan, 0.5), "remove images with NaN or infinity", lambda x: np.nan_to_num(x)),
        (np.where(IMAGES == 7, np.inf, 0.5), "remove images with NaN or infinity", lambda x: x.clip(0, 1)),
        (IMAGES / 127.5 - 1, "save (it + 1) / 2, if it goes from -1 to 1", lambda x: ((x + 1) / 2).clip(0, 1)),
        (IMAGES.astype("f4"), "divide it by 255", lambda x: x / 255),
        ((IMAGES / 255 - 0.5) * 4, "undo its normalisation", lambda x: x / 4 + 0.5),
        (IMAGES > 9, "save it as .astype(np.uint8) * 255", lambda x: x.astype(np.uint8) * 255),
        (IMAGES.astype(int), "save it as .astype(np.uint8)", lambda x: x.astype(np.uint8)),
        (IMAGES.astype("u2") * 257, "divide it by its largest possible value, 65535", lambda x: x / 65535),
        (IMAGES.astype("i2") - 128, "add and scale, so that its possible values", lambda x: (x + 128).astype("u1")),
    ],
)  # fmt: skip
def test_the_advice_on_a_shape_or_a_scale_makes_the_file_readable(error, tmp_path, images, advice, after):
    message = error(save(tmp_path, images=images, labels=LABELS))
    assert advice in message.rpartition("; ")[2]
    if after is not None:
        assert len(load(save(tmp_path, images=after(images), labels=LABELS), "train")) == 16


UNIT = IMAGES / 255
CLIP = "save it as .clip(0, 1), if a resize made it overshoot"
BYTES = "save (it / 255).clip(0, 1), if it goes from 0 to 255 and a resize made it overshoot"
ODD = "save it as .clip(0, 255).astype(np.uint8), if a resize made it overshoot"


def reaching(images, *ends):
    """The images, where some black pixel has the first end as its value and some white one the last."""
    images = images.copy()
    for end in ends:
        black = end <= (float(images.min()) + float(images.max())) / 2
        images.flat[(np.argmin if black else np.argmax)(images)] = end
    return images


@pytest.mark.parametrize(
    ("images", "advice", "after"),
    [
        (reaching(UNIT, -1e-9), CLIP, lambda x: x.clip(0, 1)),
        (reaching(UNIT, 1.0001), CLIP, lambda x: x.clip(0, 1)),
        (reaching(UNIT, -0.08, 1.13), CLIP, lambda x: x.clip(0, 1)),
        (reaching(UNIT, -0.25, 1.25), CLIP, lambda x: x.clip(0, 1)),
        (reaching(UNIT.astype("f2"), -0.001, 1.002), CLIP, lambda x: x.clip(0, 1)),
        (reaching(UNIT * 255, 255.3), BYTES, lambda x: (x / 255).clip(0, 1)),
        (reaching(UNIT * 255, -1e-6), BYTES, lambda x: (x / 255).clip(0, 1)),
        (reaching(UNIT * 255, -20, 290), BYTES, lambda x: (x / 255).clip(0, 1)),
        (UNIT * 2, "divide it by its largest possible value", lambda x: x / 2),
        (UNIT * 16, "divide it by its largest possible value", lambda x: x / 16),
        (reaching(UNIT * 16, -1e-6), "divide it by its largest possible value and clip it, with .clip(0, 1)",
         lambda x: (x / 16).clip(0, 1)),
        (UNIT * 65535, "divide it by its largest possible value, 4095 or 65535 for instance", lambda x: x / 65535),
        (UNIT - 0.5, "add 0.5, if it goes from -0.5 to 0.5", lambda x: x + 0.5),
        (UNIT * 2 - 1, "save (it + 1) / 2, if it goes from -1 to 1", lambda x: (x + 1) / 2),
        (reaching(UNIT * 2 - 1, -1.04, 1.03), "save ((it + 1) / 2).clip(0, 1), if it goes from -1 to 1 and a resize made it "
         "overshoot", lambda x: ((x + 1) / 2).clip(0, 1)),
        ((UNIT - 0.13) / 0.31, "undo its normalisation", lambda x: x * 0.31 + 0.13),
        (UNIT * 255 - 120, "undo its normalisation", lambda x: (x + 120) / 255),
        (reaching(IMAGES.astype("i2"), -3, 258), ODD, lambda x: x.clip(0, 255).astype(np.uint8)),
        (reaching(IMAGES.astype("u2"), 260), f"{ODD}; else divide it by its largest possible value, 4095 or 65535",
         lambda x: x.clip(0, 255).astype(np.uint8)),
    ],
)  # fmt: skip
def test_the_advice_on_a_range_brings_the_images_back(error, tmp_path, images, advice, after):
    before = images.copy()
    assert f"; {advice}" in error(save(tmp_path, images=images, labels=LABELS))
    both = [load(save(tmp_path, images=own, labels=LABELS), "train") for own in (after(images), IMAGES)]
    one, other = (bytes_of(own).astype(int) for own in both)
    assert np.abs(one - other).max() <= 1
    assert np.array_equal(images, before)


def test_a_layout_that_a_shape_is_not_of_is_advised_against(error, tmp_path):
    assert "it is not NCHW: do not give a layout" in error(save(tmp_path, images=IMAGES, labels=LABELS), layout="NCHW")


def test_a_suffix_in_capitals_is_read(tmp_path):
    save(tmp_path, images=IMAGES, labels=LABELS)
    (tmp_path / "a.npz").rename(tmp_path / "A.NPZ")
    assert len(load(str(tmp_path / "A.NPZ"), "train")) == 16


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("key", ["x_train", "x_test"])
def test_a_file_of_two_data_sets_is_refused(error, tmp_path, key, labelled):
    name = save(tmp_path, images=IMAGES, labels=LABELS, **{key: IMAGES, key.replace("x", "y"): LABELS})
    for split in ("train", "test"):
        assert f"holds both 'images' and {key!r}, expected images and labels, or" in error(
            name, split, labelled=labelled
        )


@pytest.mark.parametrize("key", ["images", "labels", "classes"])
def test_an_array_that_is_there_under_both_its_names_is_refused(error, tmp_path, key):
    name = save(tmp_path, images=IMAGES, labels=LABELS, classes=np.array(["a", "b"]))
    with zipfile.ZipFile(name, "a") as archive:
        archive.writestr(key, archive.read(f"{key}.npy"))
    assert f"{key!r} in {name!r} occurs 2 times; expected once" in error(name)


def test_an_array_without_the_suffix_in_the_zip_is_read_as_numpy_does(tmp_path):
    name = save(tmp_path, images=IMAGES, labels=LABELS)
    with zipfile.ZipFile(name) as old, zipfile.ZipFile(tmp_path / "b.npz", "w") as new:
        for key in ("images", "labels"):
            new.writestr(key, old.read(f"{key}.npy"))
    assert sha256(load(str(tmp_path / "b.npz"), "train")) == sha256(load(name, "train"))


def test_labels_that_start_at_1_are_shifted_in_every_array_and_classes_are_for_measuring_alone(error, tmp_path):
    name = save(tmp_path, x_train=IMAGES, y_train=LABELS + 1, x_test=IMAGES, y_test=LABELS + 1)
    expected = (
        "save y_train=y_train - 1 and y_test=y_test - 1; or, to evaluate a network with 3 classes, save an array "
        "`classes` with their names"
    )
    assert error(name).endswith(expected)


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
    assert "cannot be read (File is not a zip file); expected a complete .npz file" in error(tmp_path / "a.npz")


def test_a_header_that_claims_more_than_there_is_is_an_error_before_memory_is_taken(error, tmp_path):
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    name = save(tmp_path, labels=LABELS)
    with zipfile.ZipFile(name, "a") as archive:
        archive.writestr("images.npy", stream.getvalue())
    assert "holds 0 bytes for 3298534883328" in error(name)


def crafted(folder, header, values=b"", *, version=(1, 0), **zipped):
    """A file whose images.npy has that text as its header."""
    name, text = save(folder, labels=LABELS), header.encode("latin1")
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    with zipfile.ZipFile(name, "a", **zipped) as archive:
        archive.writestr("images.npy", b"\x93NUMPY" + bytes(version) + size + text + values)
    return name


LIE = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}\n".format


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (9, 9)])
@pytest.mark.parametrize(
    "header",
    [
        "", "(", "{", "None", "[]", "1" * 5000, "{}", "(" * 3000, "-" * 9000 + "1", "\x00", "{'descr': 1}",
        LIE("'|u1'", "(4, 4,"), LIE("'|u1'", "4"), LIE("'|u1'", "(4.0,)"), LIE("'|u1'", "('4',)"), LIE("'|u1'", "(None,)"),
        LIE("'|u1'", "(-1, -1)"), LIE("'|u1'", "(True, True)"), LIE("'|u1'", str((1 << 62, 1 << 62))),
        LIE("'|u1'", str((1 << 32, 1 << 32))), LIE("'|u1'", str((0, 1 << 63))), LIE("'|u1'", str((1,) * 70)),
        LIE("'|u1'", "()"), LIE("'|u1'", f"({'1,' * 3000})"), LIE("'x9'", "(4,)"), LIE("'|O'", "(4,)"),
        LIE("'|V0'", "(4,)"), LIE("'|V8'", "(0,)"), LIE("'<U99999999999'", "(0,)"), LIE("'|S0'", "(9,)"),
        LIE("('|u1', (4, 4))", "(0,)"), LIE("[('a', '|u1')]", "(0,)"), LIE("[('a', 'O')]", "(0,)"), LIE("{}", "(0,)"),
        LIE("[]", "(0,)"), LIE("('|u1', (-1,))", "(0,)"), LIE("'|u1'", "(0,)").replace("False", "'no'"),
        LIE("'|u1'", "(0,)").replace("'shape'", "b'shape'"), LIE("'|u1'", "(0,)").replace("}", ", 'more': 1}"),
    ],
)  # fmt: skip
def test_a_header_that_lies_is_one_line_and_takes_no_memory(error, tmp_path, header, version):
    name = crafted(tmp_path, header, b"\1" * 16, version=version)
    assert "images" in error(name)


def test_what_unpacks_to_many_times_its_file_is_refused_before_it_is_unpacked(error, tmp_path, monkeypatch):
    from datafree.data import arrays

    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((40, 1500, 1500), np.uint8), labels=np.arange(40) % 2)
    monkeypatch.setattr(arrays.npy, "read_array", None)
    size = (tmp_path / "a.npz").stat().st_size
    got = f"'images' in '{tmp_path}/a.npz' unpacks to 90,000,128 bytes, from a file of {size:,}; expected at most"
    assert got in error(tmp_path / "a.npz")


def test_a_member_that_is_longer_than_its_directory_says_is_refused(error, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    place = content.find(b"PK\1\2")
    struct.pack_into("<I", content, place + 24, 500)
    (tmp_path / "a.npz").write_bytes(content)
    assert "cannot be read (Bad CRC-32 for file 'images.npy')" in error(tmp_path / "a.npz")


def test_more_than_memory_a_double_member_another_packing_and_a_long_list_are_refused(error, tmp_path, monkeypatch):
    name = save(tmp_path, images=IMAGES, labels=LABELS)
    with monkeypatch.context() as patch:
        patch.setattr("datafree._core.memory.available", lambda: 2000)
        assert "needs 2,656 bytes; expected at most the 2,000 of free memory" in error(name)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(name, "a") as archive:
        archive.writestr("images.npy", b"")
    assert "'images' in" in error(name) and "occurs 2 times" in error(name)
    packed = crafted(tmp_path, LIE("'|u1'", "(0,)"), compression=zipfile.ZIP_BZIP2)
    assert "uses compression method 12" in error(packed)
    with zipfile.ZipFile(name, "w") as archive:
        for number in range(5000):
            archive.writestr(str(number), b"")
    assert "lists 5,000 members" in error(name)


def test_no_damage_of_any_byte_gives_another_error_than_ours(tmp_path):
    """Each byte of a small file is changed in turn: it still loads, or a UserError says why not."""
    from datafree._core.errors import UserError

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


@pytest.mark.parametrize("order", ["<", ">"])
def test_letters_beyond_unicode_are_refused(tmp_path, order):
    """Python has no text of them: str() of such an array is a SystemError."""
    names = np.array(["ab", "c"], f"{order}U2")
    names.view(f"{order}u4")[1] = 0x110000
    np.savez(tmp_path / "d.npz", images=np.full((4, 4, 4), 200, np.uint8), labels=np.arange(4) % 2, classes=names)
    with pytest.raises(UserError, match=r"'classes' in .* holds characters beyond Unicode; expected text"):
        load(str(tmp_path / "d.npz"), "train")
