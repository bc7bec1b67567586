"""A forked process whose file-system operations are counted, recorded, failed or cut short, below one folder."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

__all__ = ["CRASHED", "Act", "Ended", "Operation", "Started", "child", "finish", "start"]

CRASHED = 77
"""Exit code of a process that ended at the operation it was told to end at."""
Operation = tuple[Any, ...]
"""create/write/truncate/fsync (inode, ...), rename, unlink, mkdir, rmdir, syncdir (paths relative to the folder)."""


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    error: str
    output: str = ""
    operations: list[Operation] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether it ended with one line for its user and exit code 2."""
        return self.code == 2 and self.error.startswith("datafree: ") and self.error.count("\n") == 1


@dataclass
class _Watch:
    """Patches os and io. `act(number, operation)` is called before each operation; it may raise, end or return."""

    root: str
    act: Callable[[int, Operation], None]
    log: list[Operation] = field(default_factory=list)
    inodes: dict[int, int] = field(default_factory=dict)
    made: int = 0

    def note(self, *operation: Any) -> None:
        self.log.append(operation)
        self.act(len(self.log), operation)

    @contextmanager
    def noted(self, *operation: Any) -> Iterator[None]:
        """As `note`; an operation that fails by itself changes nothing."""
        self.note(*operation)
        place = len(self.log) - 1
        try:
            yield
        except OSError:
            self.log[place] = ("failed", *operation)
            raise

    def inside(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the folder, None for another."""
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        if dir_fd is not None:
            name = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
        whole = os.path.join(os.path.realpath(os.path.dirname(os.path.abspath(name))), os.path.basename(name))
        return os.path.relpath(whole, self.root) if whole.startswith(self.root + os.sep) else None

    def begin(self, number: int, path: str) -> None:
        self.made += 1
        self.inodes[number] = self.made
        self.log.append(("file", self.made, path))

    def install(self) -> None:
        real_open, real_replace, real_fsync = os.open, os.replace, os.fsync
        real_unlink, real_mkdir, real_rmdir, real_fdopen = os.unlink, os.mkdir, os.rmdir, os.fdopen
        real_write, real_truncate, real_io = os.write, os.ftruncate, io.open
        watch = self

        def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            inside = watch.inside(path, dir_fd) if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else None
            kind = "open" if inside is None or os.path.exists(os.path.join(watch.root, inside)) else "create"
            with nullcontext() if inside is None else watch.noted(kind, inside):
                number = real_open(path, flags, mode, dir_fd=dir_fd)
            watch.inodes.pop(number, None)
            if inside is not None:
                watch.begin(number, inside)
            return number

        def io_open(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
            inside = watch.inside(file) if set(mode) & set("wax+") else None
            if inside is None:
                return real_io(file, mode, *more, **options)
            watch.note("create", inside)
            opened = real_io(file, mode, *more, **options)
            watch.begin(opened.fileno(), inside)
            return _File(opened, watch)

        def fdopen(number: int, *more: Any, **options: Any) -> Any:
            opened = real_fdopen(number, *more, **options)
            return _File(opened, watch) if number in watch.inodes else opened

        def write(number: int, data: Any) -> int:
            if number in watch.inodes:
                watch.note("write", watch.inodes[number], bytes(data))
            return real_write(number, data)

        def truncate(number: int, size: int) -> None:
            if number in watch.inodes:
                watch.note("truncate", watch.inodes[number], size)
            real_truncate(number, size)

        def fsync(number: int) -> None:
            if number in watch.inodes:
                watch.note("fsync", watch.inodes[number])
            else:
                place = os.readlink(f"/proc/self/fd/{number}")
                if place == watch.root or place.startswith(watch.root + os.sep):
                    watch.note("syncdir", os.path.relpath(place, watch.root))
            # the device itself is not waited for: this is about the order of operations

        def replace(source: Any, target: Any, **options: Any) -> None:
            one, other = watch.inside(source), watch.inside(target)
            with nullcontext() if one is None and other is None else watch.noted("rename", one, other):
                real_replace(source, target, **options)

        def unlink(path: Any, *, dir_fd: int | None = None) -> None:
            inside = watch.inside(path, dir_fd)
            with nullcontext() if inside is None else watch.noted("unlink", inside):
                real_unlink(path, dir_fd=dir_fd)

        def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            inside = watch.inside(path, dir_fd)
            with nullcontext() if inside is None else watch.noted("mkdir", inside):
                real_mkdir(path, mode, dir_fd=dir_fd)

        def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
            inside = watch.inside(path, dir_fd)
            with nullcontext() if inside is None else watch.noted("rmdir", inside):
                real_rmdir(path, dir_fd=dir_fd)

        del real_fsync
        os.open, os.replace, os.rename, os.fsync = open_, replace, replace, fsync  # type: ignore[assignment]
        os.unlink, os.remove, os.mkdir, os.rmdir = unlink, unlink, mkdir, rmdir
        os.fdopen, os.write, os.ftruncate = fdopen, write, truncate  # type: ignore[assignment]
        io.open = builtins.open = io_open  # type: ignore[assignment]


class _File:
    """A file object whose writes are operations; everything else is the real one's."""

    def __init__(self, file: Any, watch: _Watch):
        self.file, self.watch = file, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()

    def __iter__(self) -> Any:
        return iter(self.file)

    def write(self, data: Any) -> int:
        raw = data.encode() if isinstance(data, str) else bytes(data)
        self.watch.note("write", self.watch.inodes.get(self.file.fileno(), 0), raw)
        written = self.file.write(data)
        self.file.flush()  # so that a process that ends here leaves what it has written so far
        return written


Act = Callable[[int, Operation], None]


@dataclass(frozen=True)
class Started:
    """A process that may still run, and the files that it writes to."""

    pid: int
    files: tuple[str, str, str]
    """Operations, standard output, standard error."""

    @property
    def ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def child(
    root: Path, argv: list[str], act: Act = lambda *_: None, *, kill_after: float | None = None, threads: int = 1
) -> Ended:
    """Runs `datafree ARGV` in a forked process in `root`; `kill_after` seconds it gets SIGKILL."""
    started = start(root, argv, act, threads=threads)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(started.pid, signal.SIGKILL)
    return finish(started)


def start(root: Path, argv: list[str], act: Act, *, threads: int = 1) -> Started:
    """As `child`, without waiting. Temporary files go to the folder `tmp` in `root`; torch has `threads` by default."""
    files = tuple(tempfile.mkstemp()[1] for _ in range(3))
    assert len(files) == 3
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Started(pid, files)
    code = 1
    try:
        os.chdir(root)
        os.environ["TMPDIR"] = tempfile.tempdir = str(root / "tmp")
        torch.set_num_threads(threads)
        for number, place in ((0, os.devnull), (1, files[1]), (2, files[2])):
            os.dup2(os.open(place, os.O_RDWR), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        watch = _Watch(os.path.realpath(root), act)
        watch.install()
        from datafree.cli.main import run

        code = run(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        with io.FileIO(files[0], "w") as file:
            file.write(pickle.dumps(watch.log))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    finally:
        os._exit(code)


def finish(started: Started) -> Ended:
    """Waits for it, and removes its files."""
    code = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
    data, output, error = (Path(name).read_bytes() for name in started.files)
    for name in started.files:
        os.unlink(name)
    return Ended(
        code, error.decode("utf-8", "replace"), output.decode("utf-8", "replace"), pickle.loads(data) if data else []
    )
