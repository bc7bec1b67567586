"""Promises against a stranger's file: refused in time, in little memory, without running or touching anything."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import time
from pathlib import Path

import pytest
import torch
from tests.forked import forked

from datafree._core.errors import UserError
from datafree._core.files import HEADER_CAP_MODEL, read_header, read_json, read_tensors, read_weights, sha256_file

READERS = [
    lambda path: read_tensors(path, kind="record"),
    lambda path: read_header(path, kind="record"),
    lambda path: read_weights(path),
]


def file_of(text: str | dict, data: bytes = b"", length: int | None = None) -> bytes:
    raw = (text if isinstance(text, str) else json.dumps(text)).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def x(shape: object, offsets: object, dtype: object = "F32") -> dict:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


ENTRY = '"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
ZERO = b"\0" * 4
HOSTILE = {
    "nothing": b"",
    "short": b"\1\0\0",
    "length only": struct.pack("<Q", 2),
    "length 2^63": file_of(x([1], [0, 4]), ZERO, length=1 << 63),
    "length 2^64 - 1": file_of(x([1], [0, 4]), ZERO, length=(1 << 64) - 1),
    "length 0": file_of("", b"{" + ZERO, length=0),
    "no object": file_of("[1]"),
    "not JSON": file_of("{]}"),
    "not UTF-8": struct.pack("<Q", 4) + b'{"\xff}',
    "twice the same key": file_of("{" + ENTRY + "," + ENTRY + "}", ZERO),
    "twice the same field": file_of('{"x":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ZERO),
    "twice the metadata": file_of('{"__metadata__":{},"__metadata__":{},' + ENTRY + "}", ZERO),
    "metadata of numbers": file_of('{"__metadata__":{"a":1},' + ENTRY + "}", ZERO),
    "deep": file_of('{"x":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "a little deep": file_of('{"x":' + "[" * 40 + "]" * 40 + "}"),
    "many lists": file_of('{"x":[' + "[]," * 1_100_000 + "[]]}"),
    "huge integer": file_of('{"x":{"dtype":"F32","shape":[' + "9" * 5000 + '],"data_offsets":[0,4]}}', ZERO),
    "shape product 2^64": file_of(x([1 << 32, 1 << 32], [0, 0])),
    "shape product 2^64 + 1 element": file_of(x([(1 << 62) + 1, 4], [0, 16]), ZERO * 4),
    "shape [0, 2^62]": file_of(x([0, 1 << 62], [0, 0])),
    "shape [2^40]": file_of(x([1 << 40], [0, 1 << 42])),
    "negative shape": file_of(x([-1, -1], [0, 4]), ZERO),
    "fractional shape": file_of(x([1.0], [0, 4]), ZERO),
    "true as shape": file_of(x([True], [0, 4]), ZERO),
    "17 dimensions": file_of(x([1] * 17, [0, 4]), ZERO),
    "no shape": file_of({"x": {"dtype": "F32", "data_offsets": [0, 4]}}, ZERO),
    "one field more": file_of({"x": {**x([1], [0, 4])["x"], "y": 1}}, ZERO),
    "unknown dtype": file_of(x([1], [0, 4], "F31"), ZERO),
    "list as dtype": file_of(x([1], [0, 4], ["F32"]), ZERO),
    "three offsets": file_of(x([1], [0, 4, 4]), ZERO),
    "offsets backwards": file_of(x([1], [4, 0]), ZERO),
    "offsets NaN": file_of('{"x":{"dtype":"F32","shape":[1],"data_offsets":[NaN,4]}}', ZERO),
    "gap": file_of(x([1], [4, 8]), ZERO * 2),
    "overlap": file_of({**x([2], [0, 8]), "y": x([1], [4, 8])["x"]}, ZERO * 2),
    "rest": file_of(x([1], [0, 4]), ZERO * 2),
    "missing data": file_of(x([2], [0, 8]), ZERO),
    "empty name": file_of({"": x([1], [0, 4])["x"]}, ZERO),
    "upwards name": file_of({"../../../etc/x": x([1], [0, 4])["x"]}, ZERO),
    "upwards name of Windows": file_of({"..\\x": x([1], [0, 4])["x"]}, ZERO),
    "absolute name": file_of({"/etc/x": x([1], [0, 4])["x"]}, ZERO),
    "name with NUL": file_of({"a\0b": x([1], [0, 4])["x"]}, ZERO),
    "name with escape": file_of({"a\x1b[2J": x([1], [0, 4])["x"]}, ZERO),
    "name in another script": file_of({"ａ": x([1], [0, 4])["x"]}, ZERO),
    "long name": file_of({"a" * 1000: x([1], [0, 4])["x"]}, ZERO),
    "half a surrogate": file_of('{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', ZERO),
    "half a surrogate in metadata": file_of('{"__metadata__":{"datafree":"\\ud800"}}'),
    "metadata of ours, empty": file_of({"__metadata__": {"datafree": "{}"}}),
    "metadata of ours, a list": file_of({"__metadata__": {"datafree": "[]"}}),
    "metadata of ours, bad sha256": file_of(
        {"__metadata__": {"datafree": '{"format":1,"header":{},"kind":"record","sha256":"\\ud800"}'}}
    ),
    "metadata of ours, no header": file_of(
        {"__metadata__": {"datafree": '{"format":1,"header":3,"kind":"record","sha256":"0"}'}}
    ),
    "metadata of ours, format true": file_of(
        {"__metadata__": {"datafree": '{"format":true,"header":{},"kind":"record","sha256":"0"}'}}
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_hostile_file_is_refused_with_one_line_at_once(tmp_path, name):
    path = tmp_path / "x.safetensors"
    path.write_bytes(HOSTILE[name])
    for read in READERS:
        start = time.process_time()
        with pytest.raises(UserError) as caught:
            read(path)
        assert time.process_time() - start < 3  # 0.1 s at most on an idle machine
        assert len(str(caught.value)) < 600
        assert str(caught.value).isprintable()


def test_the_list_of_hostile_files_is_whole():
    assert len(HOSTILE) == 51


def test_another_format_of_ours_is_named(tmp_path):
    content = '{"format":2,"header":{},"kind":"record","sha256":""}'
    (tmp_path / "a").write_bytes(file_of({"__metadata__": {"datafree": content}}))
    with pytest.raises(UserError, match="has format 2; expected 1; update datafree"):
        read_tensors(tmp_path / "a", kind="record")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_with_any_suffix_is_named_as_one(tmp_path, protocol, legacy):
    path = tmp_path / "x.safetensors"
    torch.save({"x": torch.zeros(3)}, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    for read in READERS:
        with pytest.raises(UserError, match=r"is a pickle, which can run code; expected safetensors"):
            read(path)


def test_only_a_regular_file_is_opened_and_nothing_blocks(tmp_path, record):
    places = {
        name: tmp_path / name for name in ("link", "dangling", "loop", "pipe", "folder", "missing", "nul\0", "\ud800")
    }
    places["link"].symlink_to(record)
    places["dangling"].symlink_to(tmp_path / "nowhere")
    places["loop"].symlink_to(places["loop"])
    os.mkfifo(places["pipe"])
    places["folder"].mkdir()
    for path in [*places.values(), Path("/dev/zero"), record / "below"]:
        for read in (*READERS, read_json, sha256_file):
            with pytest.raises(UserError):
                read(path)


def test_a_link_put_in_place_after_the_look_is_not_followed(tmp_path, record, monkeypatch):
    link, lstat = tmp_path / "link", os.lstat(record)
    link.symlink_to(record)
    monkeypatch.setattr(os, "lstat", lambda _: lstat)
    with pytest.raises(UserError, match="cannot read"):
        read_tensors(link, kind="record")


MEASURE = """
import ctypes, re, sys, time, torch, warnings
warnings.simplefilter("error")
from datafree._core.errors import UserError
from datafree._core.files import read_weights, convert_weights
torch.set_num_threads(1)
def loop():
    start = time.process_time()
    for number in range(3_000_000):
        pass
    return time.process_time() - start
def peak():  # of this process alone; getrusage goes on from the process that started it
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1])
ctypes.CDLL(None).malloc_trim(0)  # what this process had freed, so that it is counted when it is taken again
slowest = loop()
before = peak()
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        convert_weights(path, path + ".out") if path.endswith(".pt") else read_weights(path)
        print("accepted", path)
    except UserError as error:
        print(f"{time.process_time() - start:.4f}", (peak() - before) >> 10)
    slowest = max(slowest, loop())
print(f"{slowest:.4f}")
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux how much memory it takes")
def test_a_header_that_exhausts_safetensors_costs_a_second_and_200_mb_at_most(tmp_path):
    """A second on an idle machine: safetensors itself takes 5 for the header of many tensors."""
    size = HEADER_CAP_MODEL - 100
    texts = {
        "100 MB": "{"
        + ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(1_900_000))
        + "}",
        "lists": '{"x":[' + "[]," * (size // 3) + "[]]}",
        "numbers": '{"x":[' + "1000," * (size // 5) + "1]}",
        "strings": '{"x":[' + '"ab",' * (size // 5) + "1]}",
        "keys": "{" + ",".join(f'"{n}":0' for n in range(500_000)) + "}",
        "tensors": "{"
        + ",".join(f'"{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(200_000))
        + "}",
        "one string": '{"x":"' + "a" * size + '"}',
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(file_of(text))
    ended, out, err = forked(MEASURE, [str(tmp_path / name) for name in texts])
    assert ended == 0, err
    *lines, loop = out.splitlines()
    most = max(3, 40 * float(loop))  # three million rounds of an empty loop take 0.05 s to 0.15 s
    assert len(lines) == len(texts)
    for name, line in zip(texts, lines):
        seconds, megabytes = line.split()
        assert float(seconds) < most, (name, line, loop)
        assert int(megabytes) < 200, (name, line)


AUDIT = """
import builtins, os, sys, torch, warnings
warnings.simplefilter("error")
from datafree._core.errors import UserError
from datafree._core.files import convert_weights, read_header, read_json, read_tensors, read_weights
torch.set_num_threads(1)
folder, target = sys.argv[1:]
paths = sorted(os.path.join(folder, name) for name in os.listdir(folder))
readers = [
    lambda path: read_tensors(path, kind="record"),
    lambda path: read_header(path, kind="record"),
    read_weights,
    read_json,
    lambda path: convert_weights(path, target),
]
def load(path):
    refused = 0
    for read in readers:
        try:
            read(path)
        except UserError:
            refused += 1
    return refused
load(paths[0])
events = []
watching = True
bad = ("exec", "compile", "import", "marshal.", "pickle.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix",
       "socket.", "ctypes.", "os.remove", "os.rename", "os.mkdir", "shutil.", "urllib.")
def hook(event, arguments):
    if watching and event.startswith(bad):
        events.append(event)
    if watching and event == "open" and arguments[0] not in paths and not isinstance(arguments[0], int):
        events.append(str(arguments))
sys.addaudithook(hook)
refused = [load(path) for path in paths]
seen = list(events)
exec("1")
open(os.devnull).close()
watching = False
assert len(events) - len(seen) >= 3, "the hook sees nothing"
print(len(paths), min(refused), os.path.exists(target), seen)
"""


class Attack:
    def __init__(self, *call: object):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


def test_loading_a_strangers_file_runs_nothing(tmp_path):
    folder = tmp_path / "hostile"
    folder.mkdir()
    for number, data in enumerate(HOSTILE.values()):
        (folder / f"{number}.safetensors").write_bytes(data)
    calls = [
        (os.system, "echo owned"),
        (eval, "print('owned')"),
        (exec, "print('owned')"),
        (__import__, "antigravity"),
        (open, str(tmp_path / "owned"), "w"),
        (os.mkdir, str(tmp_path / "owned")),
        (subprocess.Popen, ["echo", "owned"]),
        (bytearray, 1 << 40),
        (torch.Tensor, 1 << 40),
    ]
    for number, call in enumerate(calls):
        for protocol in (2, 4):
            for new in (True, False):
                torch.save(
                    {"x": Attack(*call)},
                    folder / f"attack{number}-{protocol}-{new}.safetensors",
                    pickle_protocol=protocol,
                    _use_new_zipfile_serialization=new,
                )
    code, out, err = forked(AUDIT, [str(folder), str(tmp_path / "out")])
    assert (code, out) == (0, f"{51 + 36} 5 False []\n"), err
    assert not (tmp_path / "owned").exists()


def test_of_a_file_without_size_and_end_nothing_is_read(tmp_path):
    endless = Path("/proc/self/pagemap")
    if not endless.is_file():
        pytest.skip("needs Linux's /proc")
    assert sha256_file(endless) == hashlib.sha256().hexdigest()
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
