"""Promises of the conversion: the same weights as torch loads, and no allocation on a stranger's word."""

from __future__ import annotations

import collections
import io
import os
import pickle
import time
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from datafree._core.errors import Notice, UserError
from datafree._core.files import convert_weights, read_header, read_weights
from datafree._core.files.pickle_reader import MAX_STEPS


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def same(got: dict, wanted: dict) -> bool:
    return list(got) == sorted(wanted) and all(torch.equal(got[name], wanted[name]) for name in wanted)


def repack(path: Path, change=lambda _, data: data, method: int = zipfile.ZIP_STORED) -> None:
    """Write the zip again with members changed (None: left out)."""
    with zipfile.ZipFile(path) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(path, "w", method) as target:
        for name, data in members.items():
            if (changed := change(name, data)) is not None:
                target.writestr(name, changed)


def pickled(path: Path, data: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", data)
        file.writestr("x/byteorder", "little")
        for key, storage in storages.items():
            file.writestr(f"x/data/{key[1:]}", storage)
    return path


@pytest.mark.parametrize("nest", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_weights_are_those_that_torch_loads(tmp_path, nest, prefix, protocol):
    state = network().state_dict()
    named = collections.OrderedDict((prefix + name, tensor) for name, tensor in state.items())
    content = {nest: named, "epoch": 3, "optimizer": {"betas": (0.9, 0.999)}, "args": Path("x")} if nest else named
    torch.save(content, tmp_path / "x.pt", pickle_protocol=protocol)
    names = convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert names == sorted(state)
    assert same(read_weights(tmp_path / "x.safetensors"), state)
    assert read_header(tmp_path / "x.safetensors", kind="weights")[1] == {"source": "x.pt"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.bool])
def test_every_dtype_and_view_is_kept(tmp_path, dtype):
    base = torch.arange(24).reshape(4, 6).to(dtype)
    state = {"t": base.t(), "part": base[1:3, ::2], "same": base, "scalar": base[0, 1], "none": base[:0]}
    state["parameter"] = nn.Parameter(torch.ones(2))
    torch.save(state, tmp_path / "x.pt")
    convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    got, wanted = read_weights(tmp_path / "x.safetensors"), torch.load(tmp_path / "x.pt", weights_only=True)
    assert same(got, wanted)
    assert all(got[name].dtype == wanted[name].dtype for name in wanted)


def test_a_deflated_file_is_read_too(tmp_path):
    state = network().state_dict()
    torch.save(state, tmp_path / "x.pt")
    repack(tmp_path / "x.pt", method=zipfile.ZIP_DEFLATED)
    convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert same(read_weights(tmp_path / "x.safetensors"), state)


def refused(tmp_path: Path, path: Path, match: str, most: float = 3.0, **options: int) -> None:
    before = sorted(os.listdir(tmp_path))
    start = time.process_time()
    with pytest.raises(UserError, match=match) as caught:
        convert_weights(path, tmp_path / "out", **options)
    assert time.process_time() - start < most
    assert len(str(caught.value)) < 600
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"w": torch.zeros(1), "n": 3}, "'n' in .* is 'int'; expected a tensor"),
        ({"w": torch.zeros(1), "e": None}, "'e' in .* is 'NoneType'"),
        ({"w": {"x": torch.zeros(1)}}, "'w' in .* is 'dict'"),
        ({"p": Path("x")}, "'p' in .* is 'pathlib PosixPath'"),
        ({3: torch.zeros(1)}, "a key of type int"),
        ({(1, 2): torch.zeros(1)}, "a key of type Opaque"),
        ({"../x": torch.zeros(1)}, "it leads outside"),
        ({"a\nb": torch.zeros(1)}, "not printable"),
        ([torch.zeros(1)], "holds 'list'; expected a state dict"),
        (nn.Linear(1, 1), "holds 'torch.nn.modules.linear Linear'"),
        ({"w": torch.zeros(1, dtype=torch.int16)}, "'torch ShortStorage'; expected one of"),
        ({"w": torch.zeros(1, dtype=torch.complex64)}, "ComplexFloatStorage"),
        ({"w": torch.eye(2).to_sparse()}, "_rebuild_sparse_tensor"),
        ({"w": torch.tensor([float("nan")])}, "tensor 'w' has NaN"),
    ],
)
def test_what_is_no_dense_finite_tensor_is_refused_by_name(tmp_path, content, text):
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", text)


def test_a_deflate_bomb_is_refused_before_it_unpacks(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("x/data.pkl", b"\x80\x02}.")
        for number in range(5):
            file.writestr(f"x/data/{number}", bytes(20 << 20))
    refused(tmp_path, tmp_path / "x.pt", "unpacks to 104,857,604; expected at most")


def test_a_shape_that_its_storage_cannot_hold_is_refused(tmp_path):
    for tensor in (torch.zeros(1).expand(1 << 40), torch.zeros(1).expand(1 << 20, 1 << 20), torch.zeros(1).expand(2)):
        torch.save({"w": tensor}, tmp_path / "x.pt")
        refused(tmp_path, tmp_path / "x.pt", "tensor 'w' in .* declares shape .* holds 1 numbers")


def test_tensors_that_share_one_storage_many_times_are_refused(tmp_path):
    base = torch.zeros(1 << 18)
    torch.save({str(number): base for number in range(100)}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "share storages and take 104,857,600 bytes")


def test_the_format_before_torch_1_6_is_refused_with_the_way_out(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path, tmp_path / "x.pt", "before torch 1.6; .* torch.save it again")


def test_a_file_beyond_the_cap_is_refused(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "expected at most 100;", cap=100)


def test_a_storage_that_is_missing_short_or_of_other_byte_order_is_refused(tmp_path):
    changes = [
        (lambda name, data: None if name.endswith("data/0") else data, "storage of tensor 'w' in .* is missing"),
        (lambda name, data: data[:-1] if name.endswith("data/0") else data, "holds 2 numbers"),
        (lambda name, data: b"big" if name.endswith("byteorder") else data, "byte order is b'big'"),
        (lambda name, data: None if name.endswith("data.pkl") else data, "0 members"),
    ]
    for change, text in changes:
        torch.save({"w": torch.ones(3)}, tmp_path / "x.pt")
        repack(tmp_path / "x.pt", change)
        refused(tmp_path, tmp_path / "x.pt", text)


def test_a_directory_of_a_zip_that_is_too_long_is_refused(tmp_path):
    pickled(tmp_path / "x.pt", b"\x80\x02}.", **{f"s{'y' * 60_000}{number}": b"" for number in range(80)})
    refused(tmp_path, tmp_path / "x.pt", "its directory is longer")


def nested(depth: int) -> bytes:
    """Opcodes of a tuple that shares itself twice on each of `depth` levels: its text and its hash take forever."""
    return b")" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(depth))


BOMB = nested(60)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n("
STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQ"
END = b"\x89Ntq\xf0R"


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b".",
            b"\x80\x02",
            b"\x80\x02}",
            b"\x80\x02R.",
            b"\x80\x02t.",
            b"\x80\x02h\x05.",
            b"\xff",
            b"\x80\x02}(u",
        ),
        b"\x80\x02}" + BOMB + b"K\x01s.",
        b"\x80\x02}U\x01a" + BOMB + b"s.",
        b"\x80\x02" + BOMB + b".",
        b"\x80\x04" + BOMB + b"\x8c\x01a\x93.",
        b"\x80\x02}U\x01a" + TENSOR + BOMB + b"K\x00K\x01\x85K\x01\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + BOMB + b"K\x01\x85K\x01\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x00" + BOMB + b"K\x01\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x00K\x01\x85" + BOMB + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x00J\xff\xff\xff\xff\x85K\x01\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x00K\x01\x85J\xff\xff\xff\xff\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x05K\x01\x85K\x01\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x00G" + bytes(8) + b"\x85K\x01\x85" + END + b"s.",
        b"\x80\x02}U\x01a" + TENSOR + b"(U\x07storagectorch\nFloatStorage\n" + BOMB + b"U\x03cpuK\x01tQ" + END + b"s.",
        b"\x80\x02}U\x01aK\x01sU\x01aK\x01s.",
        b"\x80\x02]q\x000h\x00h\x00a.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02L" + b"9" * 100_000 + b"L\n.",
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + bytes(5) + b"\x01\x85R.",
        b"\x80\x02(lp0\n.",
    ],
)
def test_no_pickle_gives_anything_but_a_user_error(tmp_path, data):
    refused(tmp_path, pickled(tmp_path / "x.pt", data, s0=bytes(4)), "x.pt")


def test_the_tensor_that_these_pickles_vary_is_good(tmp_path):
    data = b"\x80\x02}U\x01a" + TENSOR + STORAGE + b"K\x00K\x01\x85K\x01\x85" + END + b"s."
    assert convert_weights(pickled(tmp_path / "x.pt", data, s0=bytes(4)), tmp_path / "out") == ["a"]


def test_a_pickle_of_many_steps_is_stopped(tmp_path):
    refused(tmp_path, pickled(tmp_path / "x.pt", b"\x80\x02" + b"N" * ((16 << 20) - 10)), "steps", most=8)
    assert MAX_STEPS == 1_000_000


def test_every_truncation_and_many_flips_are_refused_or_change_nothing_else(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "x.pt")
    data = (tmp_path / "x.pt").read_bytes()
    texts = [data[:length] for length in range(0, len(data), 7)]
    texts += [data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :] for place in range(0, len(data), 3)]
    for text in texts:
        (tmp_path / "x.pt").write_bytes(text)
        try:
            convert_weights(tmp_path / "x.pt", tmp_path / "out")
        except UserError:
            continue
        assert torch.equal(read_weights(tmp_path / "out")["w"], torch.ones(3))


def test_a_plain_pickle_in_no_zip_is_refused(tmp_path):
    stream = io.BytesIO()
    pickle.dump({"w": 1}, stream)
    (tmp_path / "x.pt").write_bytes(stream.getvalue())
    refused(tmp_path, tmp_path / "x.pt", "is no zip")


@pytest.mark.parametrize("other", ["ema", "model_ema", "teacher", "state_dict"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_two_networks_says_which_was_taken(tmp_path, other, wrapped):
    first, second = network().state_dict(), network().state_dict()
    taken, left = ("state_dict", "model") if other == "state_dict" else ("model", other)
    content = {
        left: {"module": second, "updates": 3} if wrapped and left == other else second,
        taken: first,
        "epoch": 1,
    }
    torch.save(content, tmp_path / "x.pt")
    with pytest.warns(Notice, match=f"the weights under '{taken}' are used, not '{left}'"):
        convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert same(read_weights(tmp_path / "x.safetensors"), first)
