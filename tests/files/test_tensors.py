"""Promises of the file format: what is written comes back, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from datafree._core.errors import UserError
from datafree._core.files import read_header, read_tensors, read_weights, sha256_file, write_tensors

GOLDEN = "47b394340f1392a5effa80c6481da5c8cdb0f512e3822ed136a0620e8b999fdf"
DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int32, torch.int64, torch.bool),
]


def plain(path: Path, header: dict | str, data: bytes = b"") -> Path:
    text = header if isinstance(header, str) else json.dumps(header)
    path.write_bytes(struct.pack("<Q", len(text.encode())) + text.encode() + data)
    return path


def entry(shape: list, begin: int, end: int, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_what_is_written_comes_back(record, small):
    tensors, header = read_tensors(record, kind="record")
    assert header == {"layers": ["fc1"], "seed": 3}
    assert list(tensors) == sorted(small)
    for name, tensor in small.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].shape == tensor.shape
        assert torch.equal(tensors[name], tensor)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(tmp_path, dtype):
    tensor = torch.tensor([[0, 1], [1, 1]], dtype=dtype)
    write_tensors(tmp_path / "a", {"x": tensor}, {}, kind="record")
    assert torch.equal(read_tensors(tmp_path / "a", kind="record")[0]["x"], tensor)


def test_strided_and_trained_tensors_come_back_by_value(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    views = {"t": base.t(), "step": base[:, ::2], "same": torch.ones(1).expand(4), "p": torch.nn.Parameter(base)}
    write_tensors(tmp_path / "a", views, {}, kind="record")
    got, _ = read_tensors(tmp_path / "a", kind="record")
    assert all(torch.equal(got[name], views[name]) for name in views)


def test_safetensors_itself_reads_our_files(record, small):
    got = load_file(record)
    assert got.keys() == small.keys()
    assert all(torch.equal(got[name], small[name]) for name in small)


def test_the_same_content_gives_the_golden_bytes_in_any_order(tmp_path, small):
    backwards = dict(reversed(small.items()))
    digests = [
        write_tensors(tmp_path / "a", small, {"layers": ["fc1"], "seed": 3}, kind="record"),
        write_tensors(tmp_path / "b", backwards, {"seed": 3, "layers": ["fc1"]}, kind="record"),
    ]
    assert digests == [GOLDEN, GOLDEN]
    assert sha256_file(tmp_path / "a") == hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest() == GOLDEN


def test_the_header_is_read_without_the_data(record, small, monkeypatch):
    monkeypatch.setattr(torch, "empty", None)
    table, header = read_header(record, kind="record")
    assert table == {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in small.items()}
    assert header["seed"] == 3


@pytest.mark.parametrize("kind", ["record", "weights"])
def test_every_flipped_byte_is_refused(tmp_path, small, kind):
    path = tmp_path / "a"
    write_tensors(path, small, {"seed": 3}, kind=kind)
    data = path.read_bytes()
    accepted = []
    for position in range(len(data)):
        for flip in (1, 0x20, 0x80, 0xFF):
            path.write_bytes(data[:position] + bytes([data[position] ^ flip]) + data[position + 1 :])
            try:
                read_weights(path) if kind == "weights" else read_tensors(path, kind=kind)
            except UserError:
                continue
            accepted.append((position, flip))
    assert accepted == []


@pytest.mark.parametrize("kind", ["record", "weights"])
def test_every_truncation_and_extension_is_refused(tmp_path, small, kind):
    path = tmp_path / "a"
    write_tensors(path, small, {"seed": 3}, kind=kind)
    data = path.read_bytes()
    for text in [*(data[:length] for length in range(len(data))), data + b"\0", data + b" "]:
        path.write_bytes(text)
        with pytest.raises(UserError):
            read_weights(path) if kind == "weights" else read_tensors(path, kind=kind)


def test_another_kind_is_refused_by_both_names(record):
    with pytest.raises(UserError, match="of kind 'record'; expected 'synthetic'"):
        read_tensors(record, kind="synthetic")
    with pytest.raises(UserError, match="of kind 'record'; expected 'weights'"):
        read_weights(record)


def test_a_respelled_header_is_refused_though_its_sha256_fits(record):
    data = record.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length] + b" " * 8
    record.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(UserError, match="not in our spelling"):
        read_tensors(record, kind="record")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype.is_floating_point])
def test_a_number_that_is_not_finite_is_never_written(tmp_path, value, dtype):
    tensors = {"good": torch.zeros(3), "bad": torch.tensor([0.0, value]).to(dtype)}
    with pytest.raises(UserError, match="tensor 'bad' has NaN or infinity"):
        write_tensors(tmp_path / "a", tensors, {}, kind="record")
    assert os.listdir(tmp_path) == []


def test_a_number_that_is_not_finite_is_never_read(tmp_path):
    data = save({"good": torch.zeros(3), "bad": torch.tensor([1.0, float("nan")])})
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UserError, match=r"tensor 'bad' in .* has NaN or infinity"):
        read_weights(tmp_path / "a")


def test_a_truth_value_is_0_or_1(tmp_path):
    with pytest.raises(UserError, match="neither 0 nor 1"):
        read_weights(plain(tmp_path / "a", {"m": entry([2], 0, 2, "BOOL")}, b"\1\2"))


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        ({"x": torch.zeros(1, dtype=torch.complex64)}, "tensor 'x' is torch.complex64"),
        ({"x": torch.zeros(1, dtype=torch.int16)}, "tensor 'x' is torch.int16"),
        ({"x": torch.zeros(1, device="meta")}, "on meta"),
        ({"x": torch.eye(2).to_sparse()}, "torch.sparse_coo"),
        ({"x": [1.0]}, "'x' is list; expected a tensor"),
        ({"../x": torch.zeros(1)}, "it leads outside"),
        ({"a/b/c/d/e": torch.zeros(1)}, "it has 5 components"),
        ({"a//b": torch.zeros(1)}, "it has 0 characters"),
        ({"a b": torch.zeros(1)}, "it has other characters"),
        ({"__metadata__": torch.zeros(1)}, "it is reserved"),
        ({3: torch.zeros(1)}, "it is no string"),
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_writing(tmp_path, tensors, text):
    with pytest.raises(UserError, match=text):
        write_tensors(tmp_path / "a", tensors, {}, kind="record")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "header", [{"x": float("nan")}, {1: 2}, {"x": {2: 3}}, {"x": object()}, {"x": 10**50}, [1], {"x": "y" * (1 << 20)}]
)
def test_a_header_that_would_not_come_back_is_refused(tmp_path, header):
    with pytest.raises(UserError):
        write_tensors(tmp_path / "a", {}, header, kind="record")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"mask": None}, "tensor 'mask' in .* is not expected"),
        ({"masc": (torch.bool, (2,))}, "no tensor 'masc' in .*; nearest: 'mask'"),
        ({"mask": (torch.uint8, (2,))}, "tensor 'mask' in .* has dtype torch.bool; expected torch.uint8"),
        ({"mask": (torch.bool, (3,))}, r"tensor 'mask' in .* has shape \(2,\); expected \(3,\)"),
    ],
)
def test_what_is_not_expected_is_named_before_data_is_read(record, small, change, text, monkeypatch):
    expect = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in small.items()}
    assert read_tensors(record, kind="record", expect=expect)[0].keys() == small.keys()
    expect = {name: value for name, value in {**expect, **change}.items() if value}
    monkeypatch.setattr(torch, "empty", None)
    with pytest.raises(UserError, match=text):
        read_tensors(record, kind="record", expect=expect)


def test_plain_safetensors_are_read_as_safetensors_reads_them(tmp_path):
    state = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).state_dict()
    for metadata in (None, {"format": "pt"}):
        (tmp_path / "a").write_bytes(save(state, metadata))
        got = read_weights(tmp_path / "a")
        assert list(got) == sorted(state)
        assert all(torch.equal(got[name], state[name]) for name in state)


@settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_mutation_gives_anything_but_the_content_or_a_user_error(record, data):
    text = bytearray(record.read_bytes())
    whole = bytes(text)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 40)))
        text[start:stop] = data.draw(
            st.binary(max_size=24) | st.sampled_from([b'"', b"{", b"}", b"9" * 20, b"[[", b","])
        )
    path = record.with_name("mutated")
    path.write_bytes(text)
    for read in (lambda: read_tensors(path, kind="record"), lambda: read_weights(path)):
        try:
            read()
        except UserError:
            continue
        assert bytes(text) == whole
