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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["CRASHED", "Ended", "Operation", "child"]

CRASHED = 77
"""Exit code of a process that ended at the operation it was told to end at."""
Operation = tuple[Any, ...]
"""create/write/truncate/fsync (inode, ...), rename, unlink, mkdir, rmdir, syncdir (paths relative to the folder)."""


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    error: str
    operations: list[Operation] = field(default_factory=list)


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
            if inside is not None:
                new = not os.path.exists(os.path.join(watch.root, inside))
                watch.note("create" if new else "open", inside)
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
            if one is not None or other is not None:
                watch.note("rename", one, other)
            real_replace(source, target, **options)

        def unlink(path: Any, *, dir_fd: int | None = None) -> None:
            if (inside := watch.inside(path, dir_fd)) is not None:
                watch.note("unlink", inside)
            real_unlink(path, dir_fd=dir_fd)

        def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            if (inside := watch.inside(path, dir_fd)) is not None:
                watch.note("mkdir", inside)
            real_mkdir(path, mode, dir_fd=dir_fd)

        def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
            if (inside := watch.inside(path, dir_fd)) is not None:
                watch.note("rmdir", inside)
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


def child(
    root: Path, argv: list[str], act: Callable[[int, Operation], None] = lambda *_: None, *, kill_after: float | None = None
) -> Ended:  # fmt: skip
    """Runs `datafree ARGV` in a forked process in `root`; `kill_after` seconds it gets SIGKILL."""
    pid, result, errors = start(root, argv, act)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return finish(pid, result, errors)


def start(root: Path, argv: list[str], act: Callable[[int, Operation], None]) -> tuple[int, str, str]:
    result, errors = tempfile.mkstemp()[1], tempfile.mkstemp()[1]
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid, result, errors
    code = 1
    try:
        os.chdir(root)
        for number, place in ((0, os.devnull), (1, os.devnull), (2, errors)):
            os.dup2(os.open(place, os.O_RDWR), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        watch = _Watch(os.path.realpath(root), act)
        watch.install()
        from datafree.__main__ import run

        code = run(argv)
        sys.stderr.flush()
        with io.FileIO(result, "w") as file:
            file.write(pickle.dumps(watch.log))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def finish(pid: int, result: str, errors: str) -> Ended:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    data, error = Path(result).read_bytes(), Path(errors).read_text("utf-8", "replace")
    os.unlink(result)
    os.unlink(errors)
    return Ended(code, error, pickle.loads(data) if data else [])
