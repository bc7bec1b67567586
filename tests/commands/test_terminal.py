"""What reaches a terminal is shown, not obeyed; streams that are closed or full stop no work; short memory is one line."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
import torch
from tests.forked import DATAFREE, forked

from datafree._core.errors import UserError, out_of_memory
from datafree._core.text import escaped
from datafree.cli.main import run
from datafree.cli.terminal import Stream
from datafree.models.input_spec import InputSpec
from datafree.models.network import Network
from datafree.releases import load
from datafree.releases.release import write_release

TRAIN = "train hinton4 --data digits --epochs 1 --out made --quiet"
HOSTILE = {
    "\x1b[2Jcat": r"\x1b[2Jcat", "a\rb": r"a\rb", "a\nforecast: AUC 0.500": r"a\nforecast: AUC 0.500", "\x9b31m": r"\x9b31m",
    "\u202egnp": r"\u202egnp", "a\u2028b": r"a\u2028b", "\u200bx": r"\u200bx", "\x07": r"\x07", "a\tb": r"a\tb",
    "\U000e0041": r"\U000e0041", "\udcff": r"\udcff", "\ufeff": r"\ufeff", "\x00": r"\x00",
}  # fmt: skip
READABLE = ["Katze", "größe", "кот", "猫", "قطة", "🐈", "n\u0303", "a b", r"back\slash", "½"]


def hidden(text: str) -> list[str]:
    """The characters of a terminal's output that do something, line ends aside."""
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c != "\n"]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_character_that_does_something_is_shown_as_an_escape(text):
    assert escaped(text) == HOSTILE[text]
    assert escaped(escaped(text)) == HOSTILE[text]


@pytest.mark.parametrize("text", READABLE)
def test_a_readable_text_stays_as_it_is(text):
    assert escaped(text) == text


@pytest.fixture
def named(here):
    """A release, a set, a quantized network's name and logs whose names try to write to the terminal."""
    names = tuple(HOSTILE)[:10]
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    write_release(here / "evil", Network(module, InputSpec(shape=(1, 8, 8), classes=names), "x:build"))
    (here / "own.py").write_text(
        "from torch import nn\nbuild = lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    np.savez(here / "d.npz", images=np.full((20, 8, 8), 255, np.uint8), labels=np.arange(20) % 10)
    about = json.loads((here / "set" / "set.json").read_text())
    about["method"] = {"method": "\x1b]0;title\x07"}
    (here / "set" / "set.json").write_text(json.dumps(about))
    (here / "log.json").write_text(json.dumps({"argv": ["train", "\x1b[2J\nx", "--out", "q"], "a\x1b": "\u202e"}))
    shutil.copytree(here / "other", here / "o\x1b[31m\u202e")
    return names


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("words", [
    ["evaluate", "evil", "--code", "own.py:build", "--data", "d.npz"], ["inspect", "evil", "--code", "own.py:build"],
    ["inspect", "set"], ["inspect", "log.json"], ["rerun", "log.json"], ["inspect", "o\x1b[31m\u202e"], ["\x1b[2J"],
    ["report", "o\x1b[31m\u202e", "set", "--out", "p\x1b.html"], ["evaluate", "o\x1b[31m\u202e", "--data", "\x1b[2J\r"],
    ["train", "\x1b[2J\nx", "--data", "digits", "--out", "q"], ["train", "--\x1b[2J"],
    ["train", "x\x9b:f", "--data", "digits"],
], ids=ascii)  # fmt: skip
def test_no_command_writes_a_control_character(words, capsys):
    run(words)
    text = capsys.readouterr()
    assert text.out + text.err
    assert not hidden(text.out + text.err)


def test_a_name_cannot_forge_a_line_of_its_own(named, capsys):
    assert run(["evaluate", "evil", "--code", "own.py:build", "--data", "d.npz"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("  ") for line in lines) >= len(named)
    assert not [line for line in lines if line.startswith("forecast")]


class Failing(io.StringIO):
    """A stream that takes nothing, from its first write or only when it is flushed."""

    def __init__(self, number: int, late: bool = False):
        super().__init__()
        self.error, self.late = OSError(number, os.strerror(number)), late

    def write(self, text: str) -> int:
        if not self.late:
            raise self.error
        return len(text)

    def flush(self) -> None:
        raise self.error


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("number", "code"), [(errno.EPIPE, 141), (errno.ENOSPC, 2), (errno.EIO, 2), (errno.EBADF, 2)])
def test_an_output_that_fails_loses_no_work(here, monkeypatch, number, code, late):
    errors = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Failing(number, late))
    monkeypatch.setattr(sys, "stderr", errors)
    assert run(shlex.split(TRAIN)) == code
    assert (here / "made" / "run.json").is_file()
    assert errors.getvalue().count("\n") == (code == 2) and ("standard output" in errors.getvalue()) == (code == 2)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("late", [False, True])
def test_an_error_stream_that_fails_changes_no_exit_code(monkeypatch, late):
    monkeypatch.setattr(sys, "stderr", Failing(errno.ENOSPC, late))
    assert run(["inspect", "nosuch"]) == 2
    assert run(shlex.split(TRAIN.replace(" --quiet", ""))) == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-16", "shift_jis"])
def test_any_encoding_takes_any_text(encoding):
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding=encoding, errors="strict"), lines=True)
    for text in (*READABLE, *HOSTILE):
        stream.write(text)
        stream.write("\n")
    stream.flush()
    assert stream.failure is None
    assert raw.getvalue().decode(encoding).count("\n") == len(READABLE) + len(HOSTILE)


@pytest.mark.parametrize("ending", [">&- 2>&- <&-", pytest.param(">/dev/full", marks=pytest.mark.slow)])
def test_a_process_without_its_streams_ends_in_order(here, ending):
    line = f'exec "{sys.executable}" -m datafree pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 ' \
        f"--classes 10 --out made {ending}"  # fmt: skip
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (2 if "full" in ending else 0), done.stderr
    assert "Traceback" not in done.stderr
    assert (here / "made" / "run.json").is_file()
    assert (here / "made" / "model.safetensors").read_bytes() == (here / "teacher" / "model.safetensors").read_bytes()


def test_a_working_directory_that_is_gone_is_one_line(command, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for line in (TRAIN, f"inspect {tmp_path}", "rerun x", "report x --out y"):
        assert "working directory" in command(line).line
    assert command("--help").code == 0


SHORT = [
    MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 800 bytes."), RuntimeError("std::bad_alloc"),
    RuntimeError("can't start new thread"), RuntimeError("could not create a primitive"), OSError(errno.ENOMEM, "x"),
    OSError("image file: out of memory"), ImportError("libx.so: failed to map segment from shared object"),
    ImportError("libx.so.1: cannot allocate memory"), SystemError("out of memory"),
]  # fmt: skip
NOT_SHORT = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"), UserError("out of memory"), KeyError("out of memory"),
    ValueError("not enough memory"), OSError(errno.ENOENT, "no such file"), ImportError("no module x"), RuntimeError("x"),
]  # fmt: skip


@pytest.mark.parametrize("error", SHORT, ids=repr)
@pytest.mark.usefixtures("here")
def test_short_memory_of_any_kind_is_one_line_that_says_what_to_reduce(command, monkeypatch, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    def masked(*_: object, **__: object) -> None:
        try:
            fail()
        except Exception as inner:
            raise UserError("the image is damaged; copy it again") from inner

    for failing in (fail, masked):
        monkeypatch.setattr(load, "new_model", failing)
        line = command(TRAIN).line
        assert line.startswith("there is not enough memory") and "--batch" in line


@pytest.mark.parametrize("error", NOT_SHORT, ids=repr)
def test_another_error_is_not_taken_for_short_memory(error):
    assert not out_of_memory(error)


def test_onnxruntimes_own_errors_are_known_by_their_module():
    kind = type("Fail", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state"})
    assert out_of_memory(kind("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 80"))
    assert not out_of_memory(kind("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT"))


CAPPED = """
import resource, sys, torch, datafree.cli.{verb}, datafree.releases.load
from datafree.cli.main import run
from datafree.data import load
torch.set_num_threads(1)
load("digits", "train")  # OpenBLAS, which comes with it, waits for ever where it is loaded without memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {more}, resource.RLIM_INFINITY))
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="asks Linux how much memory it has")
@pytest.mark.parametrize(("line", "more"), [
    ("train hinton30000 --data digits --epochs 1 --out new --quiet", 60 << 20),
    pytest.param(
        "synthesize gaussian teacher --images 60000 --chunk 60000 --out new --quiet", 20 << 20, marks=pytest.mark.slow
    ),
])  # fmt: skip
def test_a_process_that_is_out_of_memory_ends_in_one_line(here, line, more):
    code, _, err = forked(CAPPED.format(verb=line.split()[0], more=more), line.split(), timeout=120)
    assert code == 2, err
    assert err.startswith("datafree: ") and "memory" in err and err.count("\n") == 1
    assert not (here / "new" / "run.json").exists()


@pytest.mark.parametrize("columns", ["0", "1", "9" * 20])
def test_a_terminal_of_no_or_endless_width_is_no_traceback(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    ended, out, err = forked(DATAFREE, ["inspect", "--help"], timeout=20)
    assert (ended, err) == (0, "") and "--code" in out
