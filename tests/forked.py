"""A program in a process that is forked from the tests' own: torch and scikit-learn, which it imports, are there already.

They cost a new process up to eight seconds of the processor, most of what the tests of short programs took.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from pathlib import Path
from types import ModuleType
from typing import NoReturn

DATAFREE = "from datafree.cli.main import main; main()"
"""The program that `-m datafree` is."""


FORGET = """
import sys
kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in PACKAGES}
class AsBefore:
    def find_spec(self, name, *_):
        from importlib.machinery import ModuleSpec
        return ModuleSpec(name, self) if name in kept else None
    def create_module(self, spec):
        self.spec = kept[spec.name].__spec__
        return kept[spec.name]
    def exec_module(self, module):
        module.__spec__ = self.spec
sys.meta_path.insert(0, AsBefore())
"""
"""A program's first lines: as if none of PACKAGES had been imported. An import of one finds what was there before, since
the operators of torch and its extensions can be registered only once in a process.
"""


class Forked:
    """Runs `code` as `python -c CODE ARGV` would."""

    def __init__(self, code: str, argv: list[str]):
        self.folder = Path(tempfile.mkdtemp())
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.returncode: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pytest-xdist has a thread that waits
            self.pid = os.fork()
        if self.pid == 0:
            _become(code, argv, self.folder)

        while not (self.folder / "err").exists() and self.poll() is None:
            time.sleep(0.001)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *error: object) -> None:
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.wait()
        shutil.rmtree(self.folder)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            assert time.monotonic() < end, self.communicated()
            time.sleep(0.01)
        return code

    def communicated(self) -> tuple[str, str]:
        """What it has written so far."""
        out, err = ((self.folder / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err"))
        return out, err


def forked(code: str, argv: list[str], timeout: float = 60) -> tuple[int, str, str]:
    """Exit code, standard output and error of a program that ends."""
    with Forked(code, argv) as process:
        return process.wait(timeout), *process.communicated()


def _become(code: str, argv: list[str], folder: Path) -> NoReturn:
    ended = 1
    try:
        for number, place in enumerate([os.devnull, folder / "out", folder / "err"]):
            os.dup2(os.open(place, os.O_RDWR | os.O_CREAT), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        warnings.resetwarnings()
        for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        sys.argv = ["-c", *argv]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))
        ended = 0
    except SystemExit as end:
        ended = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            for thread in threading.enumerate():
                if thread is not threading.current_thread() and not thread.daemon:
                    thread.join()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            ended = ended or 120
        finally:
            os._exit(ended)
