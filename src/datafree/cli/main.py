"""The command line's entry: one line for every error a user can fix, exit code 2; Ctrl-C 130, SIGTERM 143."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from .._core.distributed import say_first, started
from .._core.errors import UserError, out_of_memory, unknown
from ..runs.command_line import ARGV
from ..runs.resumable import is_resumable
from .notices import shown_notices
from .startup import check_address_space
from .terminal import Stream, open_streams, printing, warn_in_one_line

__all__ = ["main"]

PARALLEL = ("train", "distill", "synthesize", "expand")
"""What the processes of a torchrun share out; the others would do the same thing in the same place, each of them."""
RESUMES = ("train", "record", "distill", "synthesize", "expand", "condense", "quantize")
"""What goes on, once stopped, from the part that is complete."""
CHOOSE = ("--online", "--images", "--condensed", "--preset", "--replay", "--method", "--alignment", "--kind")
"""Flags that decide which other flags there are."""
LESS = {
    "train": "a smaller --batch or --limit",
    "record": "--preset small, fewer --taps or a smaller --limit",
    "condense": "a smaller --per-class or --limit",
    "import-condensed": "a smaller set",
    "synthesize": "a smaller --unit or fewer --workers",
    "expand": "a smaller --unit or fewer --workers",
    "distill": "a smaller --batch or fewer images",
    "quantize": "fewer --images",
    "evaluate": "a smaller --limit",
    "similarity": "fewer --images",
    "report": "fewer runs, or a smaller --limit",
    "convert": "a smaller file",
    "demo": "fewer --images",
}
"""What of a command takes less memory."""
NARROWEST, WIDEST = 20, 1000
"""Columns that help and tables take: in fewer or more, the libraries that lay them out fail or never end."""
PATIENCE = 5
"""Seconds that a stopped command may take to end in order; every file is whole at any moment."""
_TOLD = threading.Event()
"""Set once a stop has been told: no second line follows where the command has ended in order, but a thread of it has not."""


def main(argv: list[str] | None = None) -> None:
    """Runs `datafree ARGV` and exits."""
    argv = sys.argv[1:] if argv is None else argv
    open_streams()
    warn_in_one_line()
    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else shutil.get_terminal_size().columns
    if not NARROWEST <= width <= WIDEST:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDEST))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, partial(_stop, argv))
    sys.unraisablehook = _stop_again
    code = run(argv)
    _close_output()
    if _many():  # torch.distributed's threads can abort an interpreter that winds down (pytorch/pytorch#179291)
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """The exit code of one command. What it prints is escaped; a reader that has gone does not stop the work."""
    with printing() as output:
        try:
            code = _run(argv)
        except BaseException as error:
            code = _failed(error, argv)
    if output.failure is None or code != 0:
        return code
    if isinstance(output.failure, BrokenPipeError):
        return 141
    reason = output.failure.strerror or str(output.failure)
    return _say(f"cannot write to standard output: {reason}; the work is done; look at its files, or run it again", 2)


def _run(argv: list[str]) -> int:
    if not argv or argv[0] not in ("--help", "-h", "--version"):
        _check_here()
        check_address_space()
    from . import VERBS, app

    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        return _say(str(unknown("command", argv[0], VERBS)), 2)
    processes = started().size
    if argv and argv[0] in VERBS and argv[0] not in PARALLEL and processes > 1 and _many():
        return _say(f"{argv[0]} runs in one process, got {processes}; start it without torchrun", 2)
    if argv and argv[0] in VERBS:
        from .early import check

        check(argv)
    token = ARGV.set(tuple(argv))
    try:
        with shown_notices():
            code = app(argv)(argv, exit_on_error=False, print_error=False, result_action="return_value")
    finally:
        ARGV.reset(token)
    return code if isinstance(code, int) else 0


def _failed(error: BaseException, argv: list[str]) -> int:
    """Says in a line what the user can fix, and returns the exit code; raises what the user cannot fix."""
    told = isinstance(error, UserError) and "memory" in str(error)
    if not told and out_of_memory(error):
        much = LESS.get(argv[0], "a smaller network") if argv else "a smaller network"
        return _say(f"there is not enough memory; give {much}, or use a machine with more memory", 2)
    if isinstance(error, UserError):
        return _say(str(error), 2)
    if isinstance(error, (KeyboardInterrupt, _Terminated)):
        _TOLD.set()
        return _say(_stopped(argv), 130 if isinstance(error, KeyboardInterrupt) else 143)
    if isinstance(error, OSError):
        what = repr(os.fspath(error.filename)[:200]) if isinstance(error.filename, (str, bytes)) else "a file or stream"
        return _say(f"cannot use {what}: {error.strerror or error}; give another path", 2)
    if any(
        kind.__name__ == "CycloptsError" for kind in type(error).__mro__
    ):  # imported by then, or it could not be one
        return _say(_usage(error, argv), 2)
    raise error


def _check_here() -> None:
    """Raises UserError where the working directory is gone: relative names mean nothing there."""
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(f"the working directory cannot be used: {error.strerror}; change to one that exists") from None


def _close_output() -> None:
    """Flushes standard output; where that fails, what is left goes nowhere, so that leaving does not fail."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Terminated(BaseException):
    pass


def _stop(argv: list[str], number: int, frame: FrameType | None) -> None:
    """Unwinds the command; where a thread is long in the middle of something, ends the process after PATIENCE.

    In the middle of an import it ends at once: packages do not all survive an exception there.
    """
    code = 130 if number == signal.SIGINT else 143
    _TOLD.clear()
    if _importing(frame):
        _leave(argv, code)
    last = threading.Timer(PATIENCE, partial(_leave, argv, code))
    last.daemon = True
    last.start()
    raise KeyboardInterrupt if number == signal.SIGINT else _Terminated


def _stop_again(lost: sys.UnraisableHookArgs) -> None:
    """Sends the signal once more where its exception was raised in a destructor or a callback, which Python discards.

    Any other discarded exception is shown as Python shows it.
    """
    if lost.exc_type not in (KeyboardInterrupt, _Terminated):
        sys.__unraisablehook__(lost)
        return
    number = signal.SIGINT if lost.exc_type is KeyboardInterrupt else signal.SIGTERM
    again = threading.Timer(0.02, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave(argv: list[str], code: int) -> None:
    sys.stderr = sys.__stderr__ or sys.stderr  # the messages of a library may be redirected just now
    if sys.stderr.isatty():
        Stream(sys.stderr, lines=False).write("\x1b[?25h")  # the progress bar hides the cursor
    # the other processes of a torchrun are not asked here: a lock of an import may be held
    if not _TOLD.is_set() and (not _many() or os.environ.get("RANK") == "0"):
        _tell(_stopped(argv))
    os._exit(code)


def _stopped(argv: list[str]) -> str:
    state = "the part that is complete is kept. Go on" if _resumes(argv) else "no part is complete. Start again"
    return f"stopped; {state} with: datafree {shlex.join(argv)}"


def _resumes(argv: list[str]) -> bool:
    """Whether the stopped command left something that it goes on from, or another before it."""
    if not argv or argv[0] not in RESUMES:
        return False
    places = [word.removeprefix("--out=") for word in argv if word.startswith("--out=")]
    places += [argv[index + 1] for index, word in enumerate(argv[:-1]) if word == "--out"]
    if argv[0] == "record":  # of a release in place
        places += [word for word in argv[1:] if not word.startswith("-")]
    try:
        return any(map(is_resumable, places))
    except (OSError, ValueError):
        return False


def _usage(error: Any, argv: list[str]) -> str:
    """What cyclopts found, in a line."""
    line = " ".join(str(error).split())
    if type(error).__name__ == "UnusedCliTokensError":
        extra = ", ".join(repr(token) for token in error.unused_tokens)
        line = f"got {extra} too much, wanted a flag before each value (repeat it for more than one)."
    if type(error).__name__ == "MissingArgumentError":
        line = _misspelt(error) or _missing(error, argv) or line
    from .common import chosen

    others = [part for flag in CHOOSE if (own := chosen(argv, flag)) for part in (flag, own)]
    return f"{line} Run datafree {shlex.join([*argv[:1], *others, '--help'])} for what it takes."


def _misspelt(error: Any) -> str | None:
    """That a flag is unknown: cyclopts says first that another is missing, which may be what the misspelt one stood for."""
    unknown_flags = [word.partition("=")[0] for word in error.unused_tokens or () if word.startswith("--")]
    if not unknown_flags or error.app is None:
        return None
    names = [name for argument in error.app.assemble_argument_collection() for name in argument.names]
    flags = sorted({name for name in names if name.startswith("--")})
    return None if unknown_flags[0] in flags else f"{unknown('flag', unknown_flags[0], flags)}."


def _missing(error: Any, argv: list[str]) -> str | None:
    """That a required argument was not given; None where it is a flag that was given without its value."""
    argument = getattr(error, "argument", None)
    name = getattr(argument, "name", "")
    if not name or name in argv:
        return None
    return f"{argv[0] if argv else 'the command'} needs {name}, which was not given."


def _say(line: str, code: int) -> int:
    """Prints a line, once for all processes of a torchrun, and returns the exit code."""
    if not _many() or say_first():
        _tell(line)
    return code


def _tell(line: str) -> None:
    """One line on standard error, if there is such a thing."""
    stream = Stream(sys.stderr, lines=True)
    stream.write(f"datafree: {line}\n")
    stream.flush()


def _many() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ
