import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from datafree._core.errors import UserError
from datafree.data import load, sha256
from datafree.data.zip_members import members, read_member

NAMES = ["Bald", "Attractive", "Male"]
VALUES = {"1.jpg": [-1, 1, 1], "2.jpg": [1, -1, 1], "3.jpg": [-1, 1, -1], "4.jpg": [-1, -1, -1]}
PARTITIONS = {"1.jpg": 0, "2.jpg": 0, "3.jpg": 1, "4.jpg": 2}


def jpeg(value=0, size=(64, 64)):
    stream = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, "JPEG", quality=100)
    return stream.getvalue()


def write(root, archive=True, faces=None, values=VALUES, partitions=PARTITIONS, prefix="img_align_celeba/"):
    """A CelebA of four images, whose grey value is 50 times the number in their name."""
    place = root / "celeba"
    place.mkdir(parents=True, exist_ok=True)
    faces = {name: jpeg(50 * int(name[0])) for name in VALUES} if faces is None else faces
    rows = [f"{name} " + " ".join(f"{value:2d}" for value in row) for name, row in values.items()]
    (place / "list_attr_celeba.txt").write_text("\n".join([str(len(rows)), " ".join(NAMES), *rows]) + "\n")
    (place / "list_eval_partition.txt").write_text("".join(f"{n} {p}\n" for n, p in partitions.items()))
    if archive:
        with zipfile.ZipFile(place / "img_align_celeba.zip", "w", zipfile.ZIP_DEFLATED) as stream:
            for name, content in faces.items():
                stream.writestr(prefix + name, content)
    else:
        (place / "img_align_celeba").mkdir(exist_ok=True)
        for name, content in faces.items():
            (place / "img_align_celeba" / name).write_bytes(content)
    return place


def grey(dataset):
    return (dataset.pixels(range(len(dataset))).mean((1, 2, 3)) * 255).round().tolist()


@pytest.mark.parametrize("archive", [True, False])
def test_zip_and_folder_give_the_partitions_with_their_labels(tmp_path, archive):
    write(tmp_path, archive)
    train, valid, test = (load("celeba", split, data_dir=tmp_path) for split in ("train", "valid", "test"))
    assert [grey(part) for part in (train, valid, test)] == [[50, 100], [150], [200]]
    assert [part.labels.tolist() for part in (train, valid, test)] == [[1, 0], [1], [0]]
    assert train.classes == ("not Attractive", "Attractive")
    assert train.shape == (3, 64, 64)


def test_the_attribute_is_found_by_its_name(tmp_path):
    write(tmp_path)
    bald = load("celeba", "train", data_dir=tmp_path, attribute="Bald")
    assert (bald.classes, bald.labels.tolist()) == (("not Bald", "Bald"), [0, 1])


def test_an_unknown_attribute_gets_the_nearest(error, tmp_path):
    place = write(tmp_path)
    expected = f"no attribute 'Atractive' in '{place}/list_attr_celeba.txt'; nearest: 'Attractive'"
    assert error("celeba", data_dir=tmp_path, attribute="Atractive") == expected


def test_an_aligned_face_is_cropped_to_its_central_square(tmp_path):
    """178x218: rows 20 to 198 stay. Outside them the image is white, inside black."""
    pixels = np.full((218, 178, 3), 255, np.uint8)
    pixels[16:202] = 0  # with some rows to spare, since JPEG blurs
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=100)
    write(tmp_path, faces={name: stream.getvalue() for name in VALUES})
    for size in (64, 178):
        assert load("celeba", "train", data_dir=tmp_path, size=size).pixels([0]).max() < 0.05
    assert load("celeba", "train", data_dir=tmp_path, size=178).shape == (3, 178, 178)


def test_a_face_of_the_wanted_size_is_not_resampled(tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    write(tmp_path, faces={name: stream.getvalue() for name in VALUES})
    decoded = np.asarray(Image.open(stream)).transpose(2, 0, 1)
    assert np.array_equal(load("celeba", "train", data_dir=tmp_path).read(np.array([0]))[0], decoded)


@pytest.mark.parametrize("size", [0, -1, "64", 1 << 20, True, (1, 2, 3)])
def test_a_size_that_is_none_is_an_error(error, tmp_path, size):
    write(tmp_path)
    assert error("celeba", data_dir=tmp_path, size=size).startswith(f"size: got {size!r}, expected")


def test_a_listed_image_that_is_missing_is_named(error, tmp_path):
    write(tmp_path, faces={name: jpeg() for name in list(VALUES)[:2]})
    assert "image '3.jpg' of list_attr_celeba.txt is not in img_align_celeba.zip" in error("celeba", data_dir=tmp_path)


def test_an_image_without_attributes_is_named(error, tmp_path):
    write(tmp_path, faces={name: jpeg() for name in [*VALUES, "5.jpg"]})
    assert "image '5.jpg' of img_align_celeba.zip is not in list_attr_celeba.txt" in error("celeba", data_dir=tmp_path)


def test_lists_of_different_images_are_an_error(error, tmp_path):
    write(tmp_path, partitions={"1.jpg": 0})
    assert "image '2.jpg' of list_attr_celeba.txt is not in list_eval_p" in error("celeba", data_dir=tmp_path)
    write(tmp_path, partitions={**PARTITIONS, "9.jpg": 0})
    assert "image '9.jpg' of list_eval_partition.txt is not in list_attr" in error("celeba", data_dir=tmp_path)


def test_a_list_cannot_name_a_file_elsewhere(error, tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    values, partitions = {"../../secret.jpg": [1, 1, 1], **VALUES}, {"../../secret.jpg": 0, **PARTITIONS}
    write(tmp_path, archive=False, values=values, partitions=partitions)
    assert "image '../../secret.jpg' of list_attr_celeba.txt is not in" in error("celeba", data_dir=tmp_path)


def test_a_path_that_escapes_the_zip_writes_nothing(tmp_path):
    write(tmp_path, prefix="../../escaped/")
    before = sorted(tmp_path.rglob("*"))
    assert grey(load("celeba", "train", data_dir=tmp_path)) == [50, 100]
    assert sorted(tmp_path.rglob("*")) == before


def test_two_images_of_one_name_are_an_error(error, tmp_path):
    place = write(tmp_path)
    with zipfile.ZipFile(place / "img_align_celeba.zip", "a") as stream:
        stream.writestr("other/1.jpg", jpeg())
    assert "holds 5 images with 4 names" in error("celeba", data_dir=tmp_path)


def test_neither_zip_nor_folder_is_an_error_that_names_both(error, tmp_path):
    place = write(tmp_path)
    (place / "img_align_celeba.zip").unlink()
    expected = f"no file '{place}/img_align_celeba.zip' and no folder '{place}/img_align_celeba'; copy or download"
    assert expected in error("celeba", data_dir=tmp_path)


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_a_missing_list_is_named(error, tmp_path, file):
    place = write(tmp_path)
    (place / file).unlink()
    assert f"no file '{place / file}'" in error("celeba", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new", "got"),
    [
        ("list_attr_celeba.txt", "4.jpg -1 -1 -1\n", "", "holds 3 rows; expected a line with their number"),
        ("list_attr_celeba.txt", "4\n", "", "; expected one of "),
        ("list_attr_celeba.txt", "4.jpg -1 -1 -1", "4.jpg -1 -1", "has a bad row for '4.jpg'"),
        ("list_attr_celeba.txt", "4.jpg -1 -1 -1", "4.jpg -1 0 -1", "has a bad row for '4.jpg'"),
        ("list_attr_celeba.txt", "4.jpg", "3.jpg", "lists an image twice"),
        (
            "list_eval_partition.txt",
            "4.jpg 2",
            "4.jpg 3",
            "has a bad row for '4.jpg'; expected a file and 1 values of 0, 1",
        ),
        ("list_eval_partition.txt", "4.jpg 2", "4.jpg", "has a bad row for '4.jpg'"),
    ],
)
def test_a_damaged_list_is_an_error_that_names_it(error, tmp_path, file, old, new, got):
    path = write(tmp_path) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    message = error("celeba", data_dir=tmp_path)
    assert got in message
    assert str(path) in message


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\0\n\n", b"1\n"])
def test_a_list_that_is_no_list_is_an_error(error, tmp_path, content):
    place = write(tmp_path)
    (place / "list_attr_celeba.txt").write_bytes(content)
    assert "list_attr_celeba.txt" in error("celeba", data_dir=tmp_path)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("content", [b"", b"no image", jpeg()[:-300]])
def test_an_unreadable_jpeg_is_named_when_it_is_read(error, tmp_path, archive, content):
    write(tmp_path, archive, faces={**{name: jpeg() for name in VALUES}, "2.jpg": content})
    message = error("celeba", data_dir=tmp_path)
    assert "2.jpg' cannot be read" in message
    assert "1.jpg" not in message


def test_a_split_without_images_is_an_error(error, tmp_path):
    write(tmp_path, partitions=dict.fromkeys(VALUES, 0))
    assert "no image in split 'valid' of data set 'celeba'" in error("celeba", "valid", data_dir=tmp_path)


def test_a_truncated_zip_is_an_error_that_names_it(error, tmp_path):
    path = write(tmp_path) / "img_align_celeba.zip"
    path.write_bytes(path.read_bytes()[:-40])
    assert f"{str(path)!r} cannot be read (File is not a zip file)" in error("celeba", data_dir=tmp_path)


def test_a_damaged_member_is_an_error_that_names_it(error, tmp_path):
    path = write(tmp_path) / "img_align_celeba.zip"
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    assert "'img_align_celeba/1.jpg'" in error("celeba", data_dir=tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_is_read_as_zipfile_reads_it(tmp_path, method):
    contents = {"a": b"", "b/c": bytes(range(256)) * 99, "d": b"x"}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as stream:
        for name, content in contents.items():
            stream.writestr(name, content)
    found = {member.filename: read_member(tmp_path / "a.zip", member) for member in members(tmp_path / "a.zip")}
    assert found == contents


def test_a_member_longer_than_the_directory_says_is_not_unpacked_further(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as stream:
        stream.writestr("bomb", bytes(1 << 24))
    (member,) = members(tmp_path / "a.zip")
    member.file_size = 10
    with pytest.raises(UserError, match="length or checksum is wrong"):
        read_member(tmp_path / "a.zip", member)
    member.file_size = 1 << 30
    with pytest.raises(UserError, match="too large"):
        read_member(tmp_path / "a.zip", member)


def test_a_second_reading_and_a_subset_give_the_same_images(tmp_path):
    write(tmp_path)
    dataset = load("celeba", "train", data_dir=tmp_path)
    assert sha256(dataset) == sha256(dataset.subset(2)) == sha256(load("celeba", "train", data_dir=tmp_path))
    assert dataset.read(np.zeros(0, np.int64)).shape == (0, 3, 64, 64)
