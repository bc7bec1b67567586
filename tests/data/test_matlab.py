"""MATLAB files from strangers: what scipy wrote is read as scipy reads it; anything else is one line, never a crash."""

from __future__ import annotations

import random
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from datafree._core.errors import UserError
from datafree.data import load
from datafree.data.matlab import matrices

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 3)).astype(np.uint8)


def saved(path, compressed: bool, **arrays) -> bytes:
    scipy.io.savemat(path / "x.mat", arrays, do_compression=compressed)
    return (path / "x.mat").read_bytes()


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_arrays_of_every_number_format_come_as_scipy_reads_them(tmp_path, kind, compressed):
    values = np.arange(24).reshape(2, 3, 4).astype(kind)
    content = saved(tmp_path, compressed, other={"a": 1}, x=values, text="abc", y=values[:1, :1, 0])
    found = matrices(content, ("x", "y", "text", "other"))
    expected = scipy.io.loadmat(tmp_path / "x.mat")
    for name in ("x", "y"):
        assert found[name].kind == kind and found[name].shape == expected[name].shape
        assert np.array_equal(found[name].values(), expected[name]) and found[name].values().dtype == kind
    assert (found["text"].kind, found["other"].kind) == ("char", "struct")


def respoilt(content: bytes, change) -> bytes:
    """The file with `change` done to every array's own bytes, which are then compressed again where they were."""
    at, parts = 128, [content[:128]]
    while at < len(content):
        kind, size = struct.unpack_from("<II", content, at)
        own = content[at + 8 : at + 8 + size]
        own = zlib.compress(change(zlib.decompress(own))) if kind == 15 else change(own)
        parts.append(struct.pack("<II", kind, len(own)) + own)
        at += 8 + size
    return b"".join(parts)


MEMBERS = {
    "a count of dimensions beyond the array": (12 + 8, b"\xff\xff\xff\x7f"),
    "a negative side": (32 - 8, b"\xff\xff\xff\xff"),
    "a huge side": (32 - 8, b"\xff\xff\xff\x7f"),
    "another type of its dimensions": (24 - 8, b"\x09"),
    "an unknown class": (8, b"\xee"),
    "complex numbers": (9, b"\x08"),
}


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("member", MEMBERS)
def test_counts_and_types_beyond_the_file_are_refused(tmp_path, member, compressed):
    at, new = MEMBERS[member]
    content = saved(tmp_path, compressed, X=IMAGES, y=np.ones((3, 1), np.uint8))

    def change(own: bytes) -> bytes:
        start = at + (8 if compressed else 0)
        return own[:start] + new + own[start + len(new) :]

    refused(tmp_path, respoilt(content, change))


def refused(folder, content: bytes) -> None:
    (folder / "SVHN").mkdir(exist_ok=True)
    (folder / "SVHN" / "train_32x32.mat").write_bytes(content)
    with pytest.raises(UserError) as caught:
        load("svhn", "train", data_dir=folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("compressed", [True, False])
def test_a_thousand_changes_of_the_arrays_heads_are_refused_or_harmless(tmp_path, compressed):
    """Of those that scipy's reader met, one in a hundred ended the process."""
    content, rng = saved(tmp_path, compressed, X=IMAGES, y=np.ones((3, 1), np.uint8)), random.Random(0)

    def change(own: bytes) -> bytes:
        spoilt = bytearray(own)
        for _ in range(rng.randint(1, 3)):
            spoilt[rng.randrange(min(64, len(spoilt)))] = rng.choice([0, 1, 2, 4, 9, 14, 15, 127, 128, 255])
        return bytes(spoilt)

    outcomes = set()
    for _ in range(500):
        try:
            found = matrices(respoilt(content, change), ("X", "y"))
            outcomes |= {own.values().shape for own in found.values() if own.kind == "uint8" and own.nbytes < 1 << 20}
        except (ValueError, zlib.error):
            outcomes.add("refused")
    assert {"refused", IMAGES.shape} <= outcomes


@pytest.mark.parametrize("label", [-1, 11, 0.5, np.nan, np.inf, 1e300])
def test_labels_that_are_no_digits_are_refused(tmp_path, label):
    refused(tmp_path, saved(tmp_path, True, X=IMAGES, y=np.array([[1], [2], [label]])))


def test_an_array_that_is_there_twice_or_ends_early_is_refused(tmp_path):
    content = saved(tmp_path, True, X=IMAGES, y=np.ones((3, 1), np.uint8))
    refused(tmp_path, content + content[128:])
    refused(tmp_path, respoilt(content, lambda own: own[:-9]))
    refused(tmp_path, respoilt(content, lambda own: own + bytes(1 << 20)))
    refused(tmp_path, content + bytes(8_000_000))
    refused(tmp_path, content[:126] + b"MI" + content[128:])
