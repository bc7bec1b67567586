"""Runs a checked ONNX file in a process of its own, with limits on memory and time that come from what the file needs."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..._core.errors import UserError
from .checking import Program

__all__ = ["Process", "memory_limit"]

START, SLOWEST = 60.0, 5e8
"""Seconds that anything may take, and operations in one more second: a hundredth of what one core does."""
ENDING = 10.0
"""Seconds within which a process that has closed its pipes ends, on a busy machine as well."""
WORKER = Path(__file__).with_name("worker.py")
SPARE, THREAD = 768 << 20, 80 << 20
"""Bytes for onnxruntime itself, and for a thread's stack and its part of the heap."""


def memory_limit(program: Program, threads: int) -> int:
    """Bytes that the process may use beyond what it has before the file is opened."""
    batch = program.cost(program.batch)
    needed = 4 * batch.weights + 2 * batch.fixed + 3 * batch.peak + program.graph.nbytes
    return needed + SPARE + (threads or os.cpu_count() or 1) * THREAD


class Process:
    """One ONNX file, opened. Ended by `close`, by the garbage collector, or at this process's end."""

    def __init__(self, program: Program, content: bytes, threads: int):
        self.program, self.lock, self.owner = program, threading.Lock(), os.getpid()
        command = [sys.executable, "-P", "-W", "ignore", str(WORKER)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self.close = weakref.finalize(self, _end, self.process)
        _widen(self.process)
        settings = {
            "threads": threads, "memory": memory_limit(program, threads), "input": program.graph.input,
            "shape": program.graph.shape, "batch": program.batch,
        }  # fmt: skip
        self._ask([json.dumps(settings).encode(), content], START + program.one.operations / SLOWEST)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of float32 pixels (N, C, H, W), which are run `program.batch` images at a time."""
        count, classes, batch = len(pixels), self.program.one.output[1], self.program.batch
        sizes = [batch] * (count // batch) + [rest for rest in (count % batch,) if rest]
        seconds = START + sum(self.program.cost(own).operations for own in sizes) / SLOWEST
        with self.lock:
            data = self._ask([np.ascontiguousarray(pixels, np.float32).data.cast("B")], seconds, 4 * count * classes)
        return np.frombuffer(data, np.float32).reshape(count, classes)

    def _ask(self, frames: list[bytes | memoryview], seconds: float, expected: int = 0) -> bytes:
        """The answer to some frames, of so many bytes. Raises UserError where there is none within so many seconds."""
        path, late = self.program.path, threading.Event()
        if not self.close.alive or self.owner != os.getpid():
            raise UserError(f"{path} is not open any more in this process; open it again")
        watch = threading.Timer(seconds, _kill, (self.process, late))
        watch.daemon = True
        watch.start()
        try:
            return self._answer(frames, expected)
        except _Refused as error:
            self.close()
            reason = "it needs more memory than its operators account for" if _memory(str(error)) else str(error)
            raise UserError(f"onnxruntime cannot run {path}: {reason}; get it again, or quantize again") from None
        except (OSError, EOFError):
            reason = _ending(self.process)
            self.close()
            if late.is_set():
                raise UserError(
                    f"{path} was stopped after {seconds:.0f} s without an answer; get it again, or quantize again"
                ) from None
            raise UserError(f"onnxruntime cannot run {path}: it {reason}; get it again, or quantize again") from None
        except BaseException:  # an interrupt in the middle of an answer, whose rest nobody would read
            self.close()
            raise
        finally:
            watch.cancel()

    def _answer(self, frames: list[bytes | memoryview], expected: int) -> bytes:
        ask, told = self.process.stdin, self.process.stdout
        assert ask is not None and told is not None
        for frame in frames:
            ask.write(struct.pack("<Q", len(frame)))
            ask.write(frame)
        ask.flush()
        head = told.read(9)
        if len(head) < 9:
            raise EOFError
        (size,) = struct.unpack("<Q", head[1:])
        if head[:1] == b"E":
            raise _Refused(_line(told.read(min(size, 1 << 16))))
        if head[:1] != b"D":
            raise _Refused("it answered with something else than logits")
        if size != expected:
            raise _Refused(f"it returned {size:,} bytes of logits, expected {expected:,}")
        data = told.read(size)
        if len(data) < size:
            raise EOFError
        return data


class _Refused(Exception):
    """What onnxruntime says of a file or a batch."""


def _line(text: bytes) -> str:
    from ..._core.optional_packages import first_line

    line = first_line(Exception(text.decode(errors="replace")))
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _memory(reason: str) -> bool:
    return any(word in reason for word in ("bad_alloc", "allocate", "MemoryError", "out of memory"))


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How a process that has closed its pipes ended, if it did."""
    try:
        code = process.wait(ENDING)
    except subprocess.TimeoutExpired:
        return "stopped answering"
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}, a crash or too little memory"
    except ValueError:
        return f"was ended by signal {-code}"


def _widen(process: subprocess.Popen[bytes]) -> None:
    """Pipes that hold a batch of small images: each side wakes up once for it, not every 64 KiB."""
    try:
        import fcntl
    except ImportError:
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # where the user has many pipes already
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def _kill(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written goes with it
                pipe.close()
