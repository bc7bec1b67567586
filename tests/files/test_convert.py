"""Promises of the conversion: the same weights as torch loads, and no allocation on a stranger's word."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datafree._core.errors import Notice, UserError
from datafree._core.files import convert_weights, read_header, read_weights
from datafree._core.files.pickle_reader import MAX_STEPS
from datafree._core.files.state_dicts import KEYS
from datafree._core.files.torch_legacy import MAGIC


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


def refused(tmp_path: Path, path: Path, match: str, most: float = 3.0, **options: Any) -> None:
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
        ({"v": torch.zeros(1), "w": {"x": torch.zeros(1)}}, "'w' in .* is 'dict'"),
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


def save_old(content: object, path: Path) -> None:
    """In the format before torch 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("nested", [False, True])
def test_the_weights_of_a_file_from_before_torch_1_6_are_those_that_torch_loads(tmp_path, nested):
    state, base = network().state_dict(), torch.arange(24).reshape(4, 6)
    for number, dtype in enumerate(
        (torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8, torch.bool)
    ):
        state[f"view {number}"], state[f"part {number}"] = base.to(dtype).t(), base.to(dtype)[1:3, ::2]
    skipped = {"lr": torch.ones(2, dtype=torch.complex64), "short": torch.ones(3, dtype=torch.int16)}
    save_old({"optimizer": skipped, "model": state, "epoch": 3} if nested else state, tmp_path / "x.pth")
    names = convert_weights(tmp_path / "x.pth", tmp_path / "x.safetensors")
    assert names == sorted(state)
    assert same(read_weights(tmp_path / "x.safetensors"), state)


def test_an_ordered_dict_of_python_2_has_its_items_as_an_argument(tmp_path):
    item = b"](U\x01a" + TENSOR + STORAGE + b"K\x00K\x01\x85K\x01\x85" + END + b"e"
    data = b"\x80\x02ccollections\nOrderedDict\n](" + item + b"e\x85R."
    assert convert_weights(pickled(tmp_path / "x.pt", data, s0=bytes(4)), tmp_path / "out") == ["a"]


def test_a_whole_network_from_before_torch_1_6_is_refused_by_name(tmp_path):
    save_old(nn.Linear(1, 1), tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "holds 'torch.nn.modules.linear Linear'; expected a state dict")


def old_parts(path: Path) -> list[bytes]:
    """The pickles of a file from before torch 1.6, and what follows them."""
    data, parts = path.read_bytes(), []
    stream = io.BytesIO(data)
    for _ in range(5):
        start = stream.tell()
        for _ in pickletools.genops(stream):
            pass
        parts.append(data[start : stream.tell()])
    return [*parts, data[stream.tell() :]]


def test_a_damaged_file_from_before_torch_1_6_is_refused(tmp_path):
    save_old({"w": torch.ones(3)}, tmp_path / "good.pt")
    parts = old_parts(tmp_path / "good.pt")
    assert len(parts[5]) == 8 + 12
    changes = [
        (1, pickle.dumps(1000), "protocol version is 1000"),
        (2, pickle.dumps({"little_endian": False}), "not little-endian"),
        (2, pickle.dumps([1]), "not little-endian"),
        (4, pickle.dumps(["x"]), "storage 'x' belongs to no tensor"),
        (4, pickle.dumps(3), "no list of storages"),
        (4, pickle.dumps([]), "the storage of tensor 'w' in .* is missing"),
        (5, parts[5][:-1], "ends within a storage"),
        (5, parts[5][:7], "ends within a storage"),
        (5, (1 << 60).to_bytes(8, "little") + parts[5][8:], "ends within a storage"),
        (5, (-1).to_bytes(8, "little", signed=True) + parts[5][8:], "ends within a storage"),
        (5, (2).to_bytes(8, "little") + parts[5][8:], "its storage holds 2 numbers"),
    ]
    for place, part, text in changes:
        (tmp_path / "x.pt").write_bytes(b"".join([*parts[:place], part, *parts[place + 1 :]]))
        refused(tmp_path, tmp_path / "x.pt", text)


@pytest.mark.parametrize("save", [torch.save, save_old], ids=["zip", "old"])
def test_a_dict_that_is_nested_in_itself_many_times_costs_no_time(tmp_path, save):
    table: dict = {str(number): number for number in range(1000)}
    for _ in range(4):
        table = dict.fromkeys(map(str, range(1000)), table)
    save({"model": table}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "is 'dict'; expected a state dict|expected a tensor")


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


@pytest.mark.parametrize("save", [torch.save, save_old], ids=["zip", "old"])
def test_every_truncation_and_many_flips_are_refused_or_change_nothing_else(tmp_path, save):
    save({"w": torch.ones(3)}, tmp_path / "x.pt")
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


def test_a_plain_pickle_is_refused(tmp_path):
    stream = io.BytesIO()
    pickle.dump({"w": 1}, stream)
    (tmp_path / "x.pt").write_bytes(stream.getvalue())
    refused(tmp_path, tmp_path / "x.pt", "is no torch file, expected what torch.save writes")


@pytest.mark.parametrize("other", ["ema", "model_ema", "teacher", "state_dict"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_of_two_networks_says_which_was_taken(tmp_path, other, wrapped):
    first, second = network().state_dict(), network().state_dict()
    wrapped = wrapped and other != "state_dict"
    taken, left = ("state_dict", "model") if other == "state_dict" else ("model", other)
    content = {left: {"module": second, "updates": 3} if wrapped else second, taken: first, "epoch": 1}
    torch.save(content, tmp_path / "x.pt")
    key = f"{left}/module" if wrapped else left
    with pytest.warns(Notice, match=f"the weights under '{taken}' are used, not '{key}'; `key` chooses another one"):
        convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert same(read_weights(tmp_path / "x.safetensors"), first)
    convert_weights(tmp_path / "x.pt", tmp_path / "other.safetensors", key=key)
    assert same(read_weights(tmp_path / "other.safetensors"), second)


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2)}}, "tables": {"momentum": torch.ones(2)}}


@pytest.mark.parametrize(
    "nest",
    [
        *(lambda state, key=key: {key: state, "optimizer": OPTIMIZER, "epoch": torch.tensor(3)} for key in KEYS),
        lambda state: {"weights of the best epoch": state, "optimizer_state": OPTIMIZER, "opt": OPTIMIZER},
        lambda state: {"ema": {"module": state, "updates": 3}, "lr_scheduler": {"x": torch.ones(1)}},
        lambda state: {"checkpoint": {"model": state}},
        lambda state: {"model": state, "state_dict": state},  # one dict under two keys
    ],
)
def test_weights_are_found_wherever_training_scripts_put_them(tmp_path, nest):
    state = network().state_dict()
    torch.save(nest(state), tmp_path / "x.pt")
    convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert same(read_weights(tmp_path / "x.safetensors"), state)


def test_a_key_that_is_missing_or_needed_is_one_line(tmp_path):
    state = network().state_dict()
    torch.save({"model": state, "epoch": 1}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "no key 'modle' in .*nearest: 'model'", key="modle")
    refused(tmp_path, tmp_path / "x.pt", "no key 'net' in ", key="model/net")
    refused(tmp_path, tmp_path / "x.pt", "holds 'int'; expected a state dict", key="epoch")
    torch.save({"G": state, "D": network().state_dict()}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "holds weights under 'G', 'D', expected one of them; give `key`")
    torch.save(state, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "no key 'model' in .*", key="model")
    torch.save({"w": 3}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "no key 'model' in .*, whose weights are in no further dict", key="model")


@pytest.mark.parametrize(
    "bad",
    [
        {"layer._extra_state": None},
        {"epoch": 3},
        {"sparse": torch.ones(3).to_sparse()},
        {"eight bits": torch.ones(3).to(torch.float8_e4m3fn)},
    ],
)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old"])
def test_another_network_is_not_used_instead_of_one_that_cannot_be_read(tmp_path, bad, old):
    content = {"state_dict": {**network().state_dict(), **bad}, "ema": network().state_dict()}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not old)
    refused(tmp_path, tmp_path / "x.pt", f"'{next(iter(bad))}' in 'state_dict' of .*; expected a tensor")
    assert convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors", key="ema") == sorted(content["ema"])
    (tmp_path / "x.safetensors").unlink()


@pytest.mark.parametrize(
    ("beside", "text"),
    [
        ({"model": nn.Linear(1, 1)}, "not 'model'"),
        ({"state_dict": {}}, "not 'state_dict'"),
        ({"optical_net": {"w": torch.ones(1)}}, "not 'optical_net'"),
        ({"hypernetwork": {"w": torch.ones(1)}}, "not 'hypernetwork'"),
        ({"0.weight": torch.ones(1)}, "not the tensors beside them"),
    ],
)
def test_a_network_that_is_left_out_is_named(tmp_path, beside, text):
    torch.save({"ema": network().state_dict(), "rng": torch.get_rng_state(), **beside}, tmp_path / "x.pt")
    with pytest.warns(Notice, match=f"the weights under 'ema' are used, {text}"):
        convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "key", ["optimizer", "optimizers", "optimizerG", "G_optim", "lr_scheduler", "fp16_scaler", "amp", "hparams"]
)
def test_the_state_of_an_optimizer_is_no_network(tmp_path, key):
    torch.save({key: {"state": {"w": torch.ones(1)}}, "net": network().state_dict()}, tmp_path / "x.pt")
    convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")


@pytest.mark.parametrize("save", [torch.save, save_old], ids=["zip", "old"])
def test_a_negated_view_is_refused_since_its_stored_values_have_the_other_sign(tmp_path, save):
    view = torch.complex(torch.zeros(2), torch.ones(2)).conj().imag
    assert view.is_neg()
    save({"w": view}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "'w' in .* is .* of a negated or conjugated view")


def test_a_tensor_with_attributes_and_a_dict_with_a_default_are_read(tmp_path):
    tensor, buffer = torch.arange(3.0), nn.Parameter(torch.ones(2))
    tensor.origin = buffer.origin = "a training script"
    torch.save({"net": collections.defaultdict(int, {"a": tensor, "b": buffer})}, tmp_path / "x.pt")
    convert_weights(tmp_path / "x.pt", tmp_path / "x.safetensors")
    assert same(read_weights(tmp_path / "x.safetensors"), {"a": torch.arange(3.0), "b": torch.ones(2)})


def test_what_holds_no_weights_is_refused_by_its_kind(tmp_path):
    torch.save({"epoch": 1, "model": nn.Linear(1, 1)}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "holds 'torch.nn.modules.linear Linear' under 'model', which needs code")
    torch.save(torch.ones(1), tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "holds 'tensor'; expected a state dict")
    torch.save({}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "holds an empty dict; expected a state dict")
    torch.save({"w": torch.ones(1).expand(3)}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", r"save the tensor with \.contiguous\(\)")


def test_a_key_is_also_what_names_in_the_preferred_dict_begin_with(tmp_path):
    """As in MoCo's checkpoints: DDP around two networks."""
    query, other = network().state_dict(), network().state_dict()
    pair = {
        f"module.encoder_{name}.{part}": own
        for name, state in (("q", query), ("k", other))
        for part, own in state.items()
    }
    torch.save({"epoch": 1, "state_dict": pair, "a/b": other, "outer": {"inner": other}}, tmp_path / "x.pt")
    for number, key in enumerate(
        ["state_dict/encoder_k", "state_dict/module/encoder_k", "state_dict/module.encoder_k", "a/b", "outer"]
    ):
        convert_weights(tmp_path / "x.pt", tmp_path / f"{number}.safetensors", key=key)
        assert same(read_weights(tmp_path / f"{number}.safetensors"), other)
    torch.save({"epoch": 1, "state_dict": pair}, tmp_path / "x.pt")
    for key in ("encoder_q", "module.encoder_q", "module/encoder_q"):
        convert_weights(tmp_path / "x.pt", tmp_path / "q.safetensors", key=key)
        assert same(read_weights(tmp_path / "q.safetensors"), query)
    refused(tmp_path, tmp_path / "x.pt", "no key 'encoder' in .*nearest: 'encoder_", key="encoder")
    torch.save({"G": query, "D": other}, tmp_path / "x.pt")
    refused(tmp_path, tmp_path / "x.pt", "no key 'E' in .*expected one of 'G', 'D'", key="E")


def text(data: bytes) -> bytes:
    return b"X" + len(data).to_bytes(4, "little") + data


def number(value: int) -> bytes:
    return b"J" + value.to_bytes(4, "little")


def test_a_small_file_that_would_be_copied_many_times_costs_little(tmp_path):
    doubled = b"\x80\x02K\x01q\x00" + b"h\x00h\x00\x86q\x00" * 40 + b"."
    (tmp_path / "x.pt").write_bytes(MAGIC + doubled + pickle.dumps({}))
    refused(tmp_path, tmp_path / "x.pt", "protocol version is tuple, not 1001")
    names = b"\x80\x02" + text(b"a" * (4 << 20)) + b"q\x00" + b"h\x00h\x00\x93" * 1000 + b"."
    refused(tmp_path, pickled(tmp_path / "x.pt", names), "a class has a name that is too long")
    identity = b"\x80\x02(" + text(b"module") + b"N" * 100_000 + b"tq\x00" + b"h\x00Q" * 10_000 + b"."
    refused(tmp_path, pickled(tmp_path / "x.pt", identity), "a storage is described in a way that torch does not use")
    pairs = b"".join(b"](" + number(place) + b"Ne" for place in range(5000))
    items = b"\x80\x02](" + pairs + b"e\x85q\x00ccollections\nOrderedDict\nq\x01" + b"h\x01h\x00R" * 5000 + b"."
    refused(tmp_path, pickled(tmp_path / "x.pt", items), "more than 1,000,000 items")
    table = TENSOR + STORAGE + b"K\x00K\x01\x85K\x01\x85" + END + b"q\x01"
    many = b"".join(text(b"%d" % place) + b"h\x01" for place in range(60_000))
    data = b"\x80\x02}(" + text(b"a") + table + many + b"u."
    refused(tmp_path, pickled(tmp_path / "x.pt", data, s0=bytes(4)), "has 60,001 tensors, expected at most 50,000")
    mixed = (
        b"\x80\x02"
        + table
        + b"}("
        + b"".join(number(place) + b"h\x01" for place in range(20_000))
        + text(b"z")
        + b"Nuq\x02"
    )
    data = mixed + b"}(" + b"".join(text(b"%d" % place) + b"h\x02" for place in range(20_000)) + b"u."
    refused(tmp_path, pickled(tmp_path / "x.pt", data, s0=bytes(4)), "is 'dict'; expected a tensor")


def test_the_message_about_a_damaged_zip_is_short(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
        file.writestr("x/data.pkl", b"")
    data = bytearray((tmp_path / "x.pt").read_bytes())
    data[26:28] = (60).to_bytes(2, "little")  # length of the name in the member's own header
    (tmp_path / "x.pt").write_bytes(data)
    refused(tmp_path, tmp_path / "x.pt", r"^.{0,200} is not a readable torch file: .{1,200}; get it or save it again$")
