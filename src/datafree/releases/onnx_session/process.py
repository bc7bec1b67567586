"""Runs a checked ONNX file in a separate process, with limits on memory and time derived from its cost."""

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
"""Seconds allowed for any call, and operations per further second: a hundredth of one core's speed."""
ENDING = 10.0
"""Seconds within which a process ends after closing its pipes, even on a busy machine."""
WORKER = Path(__file__).with_name("worker.py")
SPARE, THREAD = 768 << 20, 80 << 20
"""Bytes for onnxruntime itself, and for a thread's stack and share of the heap."""


def memory_limit(program: Program, threads: int) -> int:
    """Bytes that the process may use in addition to those before the file is opened."""
    batch = program.cost(program.batch)
    needed = 4 * batch.weights + 2 * batch.fixed + 3 * batch.peak + program.graph.nbytes
    return needed + SPARE + (threads or os.cpu_count() or 1) * THREAD


class Process:
    """An open ONNX file. Its process is ended by `close`, by the garbage collector, or when this process ends."""

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
        self._ask([json.dumps(settings).encode(), content], START + program.single.operations / SLOWEST)

    def run(self, pixels: np.ndarray) -> np.ndarray:
        """Logits (N, classes) for float32 pixels (N, C, H, W), in batches of `program.batch` images."""
        count, classes, batch = len(pixels), self.program.single.output[1], self.program.batch
        sizes = [batch] * (count // batch) + [remainder for remainder in (count % batch,) if remainder]
        seconds = START + sum(self.program.cost(images).operations for images in sizes) / SLOWEST
        with self.lock:
            data = self._ask([np.ascontiguousarray(pixels, np.float32).data.cast("B")], seconds, 4 * count * classes)
        return np.frombuffer(data, np.float32).reshape(count, classes)

    def _ask(self, frames: list[bytes | memoryview], seconds: float, expected: int = 0) -> bytes:
        """The answer to the frames, of `expected` bytes. Raises UserError if there is none within `seconds`."""
        path, late = self.program.path, threading.Event()
        if not self.close.alive or self.owner != os.getpid():
            raise UserError(f"{path} is no longer open in this process; open it again")
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
        except BaseException:  # after an interrupt, the rest of the answer would be left in the pipe
            self.close()
            raise
        finally:
            watch.cancel()

    def _answer(self, frames: list[bytes | memoryview], expected: int) -> bytes:
        requests, answers = self.process.stdin, self.process.stdout
        assert requests is not None and answers is not None
        for frame in frames:
            requests.write(struct.pack("<Q", len(frame)))
            requests.write(frame)
        requests.flush()
        header = answers.read(9)
        if len(header) < 9:
            raise EOFError
        (size,) = struct.unpack("<Q", header[1:])
        if header[:1] == b"E":
            raise _Refused(_line(answers.read(min(size, 1 << 16))))
        if header[:1] != b"D":
            raise _Refused("its answer is not logits")
        if size != expected:
            raise _Refused(f"it returned {size:,} bytes of logits, expected {expected:,}")
        data = answers.read(size)
        if len(data) < size:
            raise EOFError
        return data


class _Refused(Exception):
    """An error of onnxruntime for a file or a batch."""


def _line(text: bytes) -> str:
    from ..._core.optional_packages import first_line

    line = first_line(Exception(text.decode(errors="replace")))
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def _memory(reason: str) -> bool:
    return any(word in reason for word in ("bad_alloc", "allocate", "MemoryError", "out of memory"))


def _ending(process: subprocess.Popen[bytes]) -> str:
    """How a process ended after closing its pipes, in words."""
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
    """Enlarges the pipes to hold a batch of small images, so that each side wakes up once and not for every 64 KiB."""
    try:
        import fcntl
    except ImportError:
        return
    for pipe in (process.stdin, process.stdout):
        if pipe is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # the user may have reached the limit for pipes
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def _kill(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # unwritten data is discarded
                pipe.close()
