"""Promises of writing: at any fault the old file or the new one, whole, and no stray that a sweep would not find."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tests.forked import Forked

from datafree._core.errors import UserError
from datafree._core.files import atomic, read_tensors, sweep, write_bytes, write_json, write_tensors, write_text

pytestmark = pytest.mark.usefixtures("synced")


class FailingFile:
    """A binary file whose writes are counted and fail by order."""

    def __init__(self, file, step):
        self.file, self.step = file, step

    def write(self, data):
        self.step("write")
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


def fail_call(monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> list[str]:
    """Let the `number`-th of all writes, opens, fsyncs and renames fail; the list gets the calls that were made."""
    made: list[str] = []

    def step(name: str) -> None:
        made.append(name)
        if len(made) == number:
            raise OSError(code, os.strerror(code))

    def counted(name: str):
        real = getattr(os, name)
        return lambda *args, **kwargs: (step(name), real(*args, **kwargs))[1]

    for name in ("open", "fsync", "replace"):
        monkeypatch.setattr(os, name, counted(name))
    real_fdopen = os.fdopen
    monkeypatch.setattr(os, "fdopen", lambda *args: FailingFile(real_fdopen(*args), step))
    return made


def save(path: Path, value: float) -> None:
    write_tensors(path, {"a": torch.full((3,), value), "b": torch.full((5,), value)}, {}, kind="record")


WRITERS = {
    "tensors": (save, 1.0, 2.0),
    "json": (write_json, {"a": 1}, {"a": 2}),
    "text": (write_text, "old", "new"),
    "bytes": (write_bytes, b"old", b"new"),
}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("writer", WRITERS)
def test_whichever_call_fails_the_old_file_is_whole_and_no_stray_remains(tmp_path, monkeypatch, writer, code):
    write, old, new = WRITERS[writer]
    path = tmp_path / "x"
    write(path, new)
    after = path.read_bytes()
    write(path, old)
    before = path.read_bytes()
    for number in range(1, 20):
        with monkeypatch.context() as patch:
            made = fail_call(patch, number, code)
            with suppress(UserError):
                write(path, new)
        assert os.listdir(tmp_path) == ["x"]
        if len(made) < number:
            break
        renamed = "replace" in made[: number - 1]
        assert path.read_bytes() == (after if renamed else before)
        write(path, old)
    assert path.read_bytes() == after
    assert made[-4:] == ["fsync", "replace", "open", "fsync"]
    assert number == len(made) + 1


def test_a_full_disk_is_told_with_the_bytes_needed_and_free(tmp_path, monkeypatch):
    fail_call(monkeypatch, 2, errno.ENOSPC)
    with pytest.raises(
        UserError, match=r"No space left on device; 1,234 bytes are needed, [0-9,]+ free; that file is as it was"
    ):
        write_bytes(tmp_path / "x", b"x" * 1234)


def fail_inside(path: Path, error: type[BaseException]) -> None:
    with atomic(path) as file:
        file.write(b"new")
        raise error


def test_an_exception_of_the_block_comes_through_and_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "x", "old")
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            fail_inside(tmp_path / "x", error)
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "x"):
        (tmp_path / "of the block's own").read_bytes()
    assert os.listdir(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("x")
    for name in ("missing/x", "folder", "folder/x/y", "nul\0", "x" * 300):
        with pytest.raises(UserError, match=r"cannot write|is no path"):
            write_text(tmp_path / name, "new")
    with pytest.raises(UserError, match="names no file"):
        write_text("/", "new")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_link_is_replaced_and_its_target_is_not_touched(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "x").symlink_to(tmp_path / "target")
    write_text(tmp_path / "x", "new")
    assert (tmp_path / "target").read_text() == "old"
    assert not (tmp_path / "x").is_symlink()


def test_the_temporary_file_lies_beside_its_target_under_its_pattern(tmp_path):
    with atomic(tmp_path / "x") as file:
        (name,) = os.listdir(tmp_path)
        assert name.startswith(f".x.tmp-{os.getpid()}-")
        assert sweep(tmp_path) == 0  # its process lives
        file.write(b"new")
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_sweep_takes_only_strays_of_gone_processes(tmp_path):
    with atomic(tmp_path / "x"):
        machine = os.listdir(tmp_path)[0].rsplit("-", 1)[1][:8]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    stray = f".y.tmp-{gone.pid}-{machine}00000000"
    kept = [
        *(
            f".y.tmp-{os.getppid()}-{machine}00000000",
            f".y.tmp-{gone.pid}-0123456700000000",
            f".y.tmp-{gone.pid}-short",
        ),
        *("y", ".y.tmp", f"y.tmp-{gone.pid}-{machine}00000000"),
    ]
    for name in [stray, f".z.tmp-9999999999-{machine}00000000", *kept]:
        (tmp_path / name).write_text("")
    old = f".y.tmp-{os.getpid()}-01234567ffffffff"  # another machine's, untouched for more than a day
    (tmp_path / old).write_text("")
    os.utime(tmp_path / old, (0, 0))
    (tmp_path / f".link.tmp-{gone.pid}-{machine}00000000").symlink_to(tmp_path / "y")
    (tmp_path / f".folder.tmp-{gone.pid}-{machine}00000000").mkdir()
    assert sweep(tmp_path) == 3
    assert not {stray, old} & set(os.listdir(tmp_path))
    assert set(kept) <= set(os.listdir(tmp_path))
    assert len(os.listdir(tmp_path)) == len(kept) + 3
    with pytest.raises(UserError, match="cannot sweep"):
        sweep(tmp_path / "missing")


def test_kill_9_at_any_moment_leaves_a_whole_file_and_strays_that_are_swept(tmp_path):
    path = tmp_path / "x"
    write_tensors(path, {"x": torch.zeros(300_000)}, {"turn": 0}, kind="record")
    swept = number = 0
    while number < 20 or (swept == 0 and number < 400):  # on a busy machine a writer may not have begun by then
        kill_writer(path, after=0.002 + number % 40 * 0.0017)
        number += 1
        tensors, header = read_tensors(path, kind="record")
        assert torch.equal(tensors["x"], torch.full((300_000,), float(header["turn"])))
        swept += sweep(tmp_path)
        assert os.listdir(tmp_path) == ["x"]
    assert swept > 0


WRITER = """
import sys, torch
from datafree._core.files import write_tensors
values, turn = (torch.zeros(300_000), torch.ones(300_000)), 0
while True:
    turn = 1 - turn
    write_tensors(sys.argv[1], {"x": values[turn]}, {"turn": turn}, kind="record")
"""


def kill_writer(path: Path, after: float) -> None:
    """A process writes the file over and over again until SIGKILL comes after so many seconds."""
    with Forked(WRITER, [str(path)]) as writer:
        time.sleep(after)
        assert writer.poll() is None, writer.communicated()
