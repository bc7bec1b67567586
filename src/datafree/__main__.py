"""The command line's entry: one line for every error a user can fix, exit code 2; Ctrl-C 130, SIGTERM 143."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path and not sys.flags.safe_path:
    del sys.path[0]  # `python -m` puts the working directory there: a stranger's folder may hold a torch.py

import shlex
import signal
import threading
from functools import partial
from types import FrameType
from typing import Any

from .commandline import ARGV
from .errors import UserError, unknown
from .parallel import say_first

__all__ = ["main"]

PARALLEL = ("train", "distill", "synthesize", "expand")
"""What the processes of a torchrun share out; the others would do the same thing in the same place, each of them."""
RESUMES = ("train", "record", "distill", "synthesize", "expand", "condense")
CHOOSE = ("--online", "--images", "--condensed", "--preset", "--replay", "--method", "--alignment", "--kind")
"""Flags that decide which other flags there are."""
PATIENCE = 5
"""Seconds that a stopped command may take to end in order; every file is whole at any moment."""


def main(argv: list[str] | None = None) -> None:
    """Runs `datafree ARGV` and exits."""
    argv = sys.argv[1:] if argv is None else argv
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_stop, argv))
    code = run(argv)
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone: nothing more can be said to it, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    if _many():  # torch.distributed's threads can abort an interpreter that winds down (pytorch/pytorch#179291)
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """The exit code of one command."""
    from cyclopts import CycloptsError

    from .commands import VERBS, app

    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        return _say(str(unknown("command", argv[0], VERBS)), 2)
    if argv and argv[0] in VERBS and argv[0] not in PARALLEL and int(os.environ.get("WORLD_SIZE", "1")) > 1 and _many():
        return _say(f"{argv[0]} runs in one process, got {os.environ['WORLD_SIZE']}; start it without torchrun", 2)
    token = ARGV.set(tuple(argv))
    try:
        code = app(argv)(argv, exit_on_error=False, print_error=False, result_action="return_value")
        return code if isinstance(code, int) else 0
    except UserError as error:
        return _say(str(error), 2)
    except CycloptsError as error:
        return _say(_usage(error, argv), 2)
    except KeyboardInterrupt:
        return _say(_stopped(argv), 130)
    except _Terminated:
        return _say(_stopped(argv), 143)
    except BrokenPipeError:
        return 141
    except MemoryError:
        return _say("there is not enough memory; give a smaller network, smaller --batch or fewer images", 2)
    except OSError as error:
        return _say(f"cannot use {error.filename!r}: {error.strerror}; give another path", 2)
    finally:
        ARGV.reset(token)


class _Terminated(BaseException):
    pass


def _stop(argv: list[str], number: int, frame: FrameType | None) -> None:
    """Unwinds the command; where a thread is long in the middle of something, ends the process after PATIENCE.

    In the middle of an import it ends at once: packages do not all survive an exception there.
    """
    code = 130 if number == signal.SIGINT else 143
    if _importing(frame):
        _leave(_stopped(argv), code)
    last = threading.Timer(PATIENCE, partial(_leave, _stopped(argv), code))
    last.daemon = True
    last.start()
    raise KeyboardInterrupt if number == signal.SIGINT else _Terminated


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave(line: str, code: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h")  # the progress bar hides the cursor
    if not _many() or os.environ.get("RANK") == "0":  # nobody is asked here: a lock of an import may be held
        print(f"datafree: {line}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(code)


def _stopped(argv: list[str]) -> str:
    kept = "what is whole is kept. Go on" if _resumes(argv) else "nothing was lost. Start again"
    return f"stopped; {kept} with: datafree {shlex.join(argv)}"


def _resumes(argv: list[str]) -> bool:
    """Whether the command, once stopped, goes on where it was; of `quantize` only fine-tuning does."""
    if argv[:1] == ["quantize"]:
        return any(word.split("=")[0] == "--finetune" for word in argv)
    return bool(argv) and argv[0] in RESUMES


def _usage(error: Any, argv: list[str]) -> str:
    """What cyclopts found, in a line."""
    line = " ".join(str(error).split())
    if type(error).__name__ == "UnusedCliTokensError":
        extra = ", ".join(repr(token) for token in error.unused_tokens)
        line = f"got {extra} too much, wanted a flag before each value (repeat it for more than one)."
    from .commands.common import chosen

    others = [part for flag in CHOOSE if (own := chosen(argv, flag)) for part in (flag, own)]
    return f"{line} Run datafree {shlex.join([*argv[:1], *others, '--help'])} for what it takes."


def _say(line: str, code: int) -> int:
    """Of the processes of a torchrun, the first that has something to say says it for all."""
    if not _many() or say_first():
        print(f"datafree: {line}", file=sys.stderr)
    return code


def _many() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


if __name__ == "__main__":
    main()
