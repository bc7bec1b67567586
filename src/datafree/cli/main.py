"""The command line's entry: one line for every error a user can fix, exit code 2; Ctrl-C 130, SIGTERM 143."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from functools import partial
from types import FrameType
from typing import Any

from .._core.code_names import code_name
from .._core.distributed import first_started, say_first, started
from .._core.errors import UserError, out_of_memory, unknown
from .._core.user_code import failed_place
from .._core.version import VERSION
from ..releases.builder_names import check_name
from ..runs.command_line import ARGV
from ..runs.resumable import is_resumable
from .custom import custom_commands
from .deprecated import rewritten, words_after
from .early import check
from .flags import PARAMETERS, translated
from .json_output import RESULT, object_of
from .log_file import LOG, LogFile
from .method_options import Given, check_early
from .notices import shown_notices
from .startup import check_address_space
from .terminal import Stream, open_streams, plain, printing, warn_in_one_line

__all__ = ["main"]

PARALLEL = ("train", "distill", "synthesize", "expand")
"""What the processes of a torchrun share out; the others would do the same thing in the same place, each of them."""
RESUMES = ("train", "record", "distill", "synthesize", "expand", "condense", "prune", "quantize", "compare")
"""What goes on, once stopped, from the part that is complete."""
LESS = {
    "train": "a smaller --batch or --limit",
    "record": "--preset small, fewer --taps or a smaller --limit",
    "condense": "a smaller --per-class or --limit",
    "import-condensed": "a smaller set",
    "synthesize": "a smaller --chunk or fewer --workers",
    "expand": "a smaller --chunk or fewer --workers",
    "distill": "a smaller --batch or fewer images",
    "prune": "a smaller --batch or fewer images",
    "quantize": "fewer --images",
    "evaluate": "a smaller --limit",
    "similarity": "fewer --images",
    "compare": "a smaller --batch, fewer --images or fewer --workers",
    "report": "fewer runs, or a smaller --limit",
    "convert": "a smaller file",
    "demo": "fewer --images",
}
"""What of a command takes less memory."""
NARROWEST, WIDEST = 20, 1000
"""Columns that help and tables take: in fewer or more, the libraries that lay them out fail or never end."""
OF_OUTPUT = ("--json", "--log", "--verbose", "--help", "--version", "-v", "-h")
"""How the options of every command begin."""
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
        flags = Flags()
        try:
            code = _run(argv, flags)
        except BaseException as error:
            code = _failed(error, argv, flags)
    if output.failure is None or code != 0:
        return code
    if isinstance(output.failure, BrokenPipeError):
        return 141
    reason = output.failure.strerror or str(output.failure)
    return _say(f"cannot write to standard output: {reason}; the work is done; look at its files, or run it again", 2)


def _run(argv: list[str], flags: Flags) -> int:
    """Parses and runs; `flags` gets the command whose parameters' flags they are, for errors."""
    if not argv or argv[0] not in ("--help", "-h", "--version", "-V"):
        _check_here()
        check_address_space()
    from . import VERBS, app

    argv = _verb_first(argv, VERBS)
    argv, notes = rewritten(argv)
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        return _say(str(unknown("command", argv[0], VERBS)), 2)
    verb = argv[0] if argv and argv[0] in VERBS else None
    processes = started().size
    if verb is not None and verb not in PARALLEL and processes > 1 and _many():
        return _say(f"{verb} runs in one process, got {processes}; start it without torchrun", 2)
    root = app(verb)
    with custom_commands(root, argv):
        try:
            return _run_parsed(root, verb, argv, notes, flags)
        except UserError:
            flags.find()  # before the command of a method of one's own is gone
            raise


def _verb_first(argv: list[str], verbs: Iterable[str]) -> list[str]:
    """The command line with the options of every command that came before the verb at its end."""
    leading, words = [], list(argv)
    while words and (words[0] in ("--json", "-v", "--verbose") or words[0].split("=")[0] == "--log"):
        takes_value = words[0] == "--log" and len(words) > 1
        leading += words[: 1 + takes_value]
        words = words[1 + takes_value :]
    if not leading or not words or words[0] not in verbs:
        return argv
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], *leading, *words[end:]]


def _run_parsed(root: Any, verb: str | None, argv: list[str], notes: list[str], flags: Flags) -> int:
    """Runs the command line, once the application has all its commands."""
    from . import Output

    if verb is not None and not any(map(_is_of_output, argv)):  # the options of a command are read once, not twice
        output = Output(list(argv), json=False, log=None, verbose=False)
    else:
        command, bound = _parsed(root.meta, argv)
        output = command(*bound.args, **bound.kwargs)
    if not isinstance(output, Output):  # help, or the version
        return 0
    with _printing_as(output, flags):
        for note in notes:
            _note(note)
        token = ARGV.set(tuple(output.words))
        try:
            with shown_notices(flags):
                return _call(root, output, flags)
        finally:
            ARGV.reset(token)


def _is_of_output(word: str) -> bool:
    """Whether a word may be one of the options of every command: how it prints, help, the version."""
    return word == "--" or word.lower().replace("_", "-").startswith(OF_OUTPUT)


def _call(root: Any, output: Any, flags: Flags) -> int:
    """Runs the command that the words call."""
    words, began = output.words, time.perf_counter()
    command, bound = _parsed(root, words)
    chain = list(root.parse_commands(words)[0])
    flags.of(root, words)
    check(chain, bound.arguments)
    for value in bound.arguments.values():
        if isinstance(value, Given):
            check_early(value)
    _load_torch(chain, output.verbose)
    values: dict[str, Any] = {}
    token = RESULT.set(values) if output.json else None
    try:
        code = command(*bound.args, **bound.kwargs)
    finally:
        if token is not None:
            RESULT.reset(token)
    if output.verbose:
        _note(f"took {time.perf_counter() - began:.1f} s")
    code = code if isinstance(code, int) else 0
    if output.json and code in (0, 1) and first_started():
        output.stdout.write(object_of(chain, bound.arguments, values) + "\n")
    return code


@contextmanager
def _printing_as(output: Any, flags: Flags) -> Iterator[None]:
    """Inside, text goes to standard error where --json has standard output, and to the file of --log too, with `flags` in
    the line of an error.
    """
    output.stdout = plain()
    log = None if output.log is None or not first_started() else LogFile(output.log, shlex.join(output.words))
    token = LOG.set(log) if log is not None else None
    try:
        with redirect_stdout(Stream(sys.stderr, lines=True)) if output.json else nullcontext():  # type: ignore[type-var]
            yield
    except BaseException as error:
        if log is not None and isinstance(error, UserError):
            log.write(f"datafree: {translated(str(error), flags)}\n")
        raise
    finally:
        if token is not None and log is not None:
            LOG.reset(token)
            log.close()


WITHOUT_TORCH = ("list", "completion", "rerun", "inspect", "convert")
"""Verbs that do not need it, or not always."""


def _load_torch(chain: list[str], verbose: bool) -> None:
    """Imports torch, which takes seconds; a terminal shows why nothing happens yet."""
    if "torch" in sys.modules or not chain or chain[0] in WITHOUT_TORCH or not first_started():
        return
    shows = sys.stderr.isatty()
    if shows:
        Stream(sys.stderr, lines=False, logged=False).write("\x1b[2mloading PyTorch ...\x1b[0m\r")
        sys.stderr.flush()
    import torch

    if shows:
        Stream(sys.stderr, lines=False, logged=False).write("\x1b[K")
    if verbose:
        threads = torch.get_num_threads()
        _note(f"datafree {VERSION}, torch {torch.__version__}, {threads} thread{'' if threads == 1 else 's'}")


def _parsed(app: Any, words: list[str]) -> tuple[Any, Any]:
    """The function that a command line calls, and its arguments."""
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return command, bound


def flags_of(root: Any, words: list[str]) -> dict[str, str]:
    """Parameter -> flag, of the command that the words call; a flag of a settings class goes before another's."""
    _, apps, _ = root.parse_commands(words)
    flags = dict(PARAMETERS)
    for argument in apps[-1].assemble_argument_collection():
        if not argument.names or argument.names[0] == "*" or argument.field_info is None:
            continue
        name, flag = argument.field_info.name, argument.names[0]
        if flag.startswith("--method-"):  # the student's training has a setting of that name too
            name = f"method.{name}"
        if name not in flags or flags[name] == "--" + name.replace("_", "-"):
            flags[name] = flag
    return flags


class Flags(Mapping[str, str]):
    """The `flags_of` a command, found when one is asked for: most commands end without."""

    def __init__(self) -> None:
        self._command: tuple[Any, list[str]] | None = None
        self._flags: dict[str, str] = {}

    def of(self, root: Any, words: list[str]) -> None:
        self._command = (root, words)

    def find(self) -> dict[str, str]:
        """The flag of each parameter."""
        if self._command is not None:
            self._flags, self._command = flags_of(*self._command), None
        return self._flags

    def __getitem__(self, parameter: str) -> str:
        return self.find()[parameter]

    def __iter__(self) -> Iterator[str]:
        return iter(self.find())

    def __len__(self) -> int:
        return len(self.find())


def _failed(error: BaseException, argv: list[str], flags: Flags) -> int:
    """Says in a line what the user can fix, and returns the exit code; raises what the user cannot fix."""
    about_memory = isinstance(error, UserError) and "memory" in str(error)
    if not about_memory and out_of_memory(error):
        advice = LESS.get(argv[0], "a smaller network") if argv else "a smaller network"
        return _say(f"there is not enough memory; give {advice}, or use a machine with more memory", 2)
    if isinstance(error, UserError):
        return _say(translated(str(error), flags), 2)
    if isinstance(error, (KeyboardInterrupt, _Terminated)):
        _TOLD.set()
        return _say(_stopped(argv), 130 if isinstance(error, KeyboardInterrupt) else 143)
    place = failed_place(error)
    if place is not None:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _say(f"the code in {place} fails with {reason[:300]}; fix it", 2)
    if isinstance(error, OSError):
        path = repr(os.fspath(error.filename)[:200]) if isinstance(error.filename, (str, bytes)) else "a file or stream"
        return _say(f"cannot use {path}: {error.strerror or error}; give another path", 2)
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
    """Whether the stopped command or an earlier one left a state to continue from."""
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
    if type(error).__name__ == "UnusedCliTokensError" and (other := _misspelt_method(argv)):
        return other
    if type(error).__name__ == "UnusedCliTokensError":
        extra = ", ".join(repr(token) for token in error.unused_tokens)
        line = f"unexpected argument {extra}, expected a flag before each value (repeat it for more than one)."
    if type(error).__name__ == "UnknownOptionError":
        line = _unknown_flag(error, line)
    chain = [word for word in error.command_chain or () if word != "datafree"] or argv[:1]
    if type(error).__name__ == "MissingArgumentError":
        line = _misspelt(error) or _missing(error, chain, argv) or line
    return f"{line} Run datafree {shlex.join([*chain, '--help'])} for what it takes."


def _misspelt_method(argv: list[str]) -> str | None:
    """That the word after the verb is no method, where it looks like one."""
    names = words_after(argv[0]) if argv else []
    if len(argv) < 2 or not names or argv[1] in names or os.path.exists(argv[1]) or code_name(argv[1]) is not None:
        return None
    return str(unknown(f"method or kind of datafree {argv[0]}", argv[1], names))


def _unknown_flag(error: Any, line: str) -> str:
    """That there is no such flag; where another method of the same command has it, which."""
    flag = str(error.token.keyword or error.token.value).partition("=")[0]
    chain = [str(word) for word in error.command_chain or ()]
    if error.app is None:
        return line
    names = sorted(_names(error.app))
    owners = _owners(flag, chain)
    if owners:
        with_method = f" Name the method: datafree {chain[0]} {owners[0]} ..." if len(chain) == 1 else ""
        return f"{flag} belongs to datafree {chain[0]} {'|'.join(owners)}.{with_method}"
    return f"{unknown('flag', flag, [name for name in names if name.startswith('--')])}."


def _names(command: Any) -> dict[str, None]:
    """The flags of a command, in its order."""
    arguments = command.assemble_argument_collection()
    return {name: None for argument in arguments if argument.parse for name in argument.names}


def _owners(flag: str, chain: list[str]) -> list[str]:
    """The methods beside this one, or below it, that have the flag."""
    from . import APPS, app

    words = chain
    if not words or words[0] not in APPS:
        return []
    commands = []
    parent = app(words[0])[words[0]]
    for name in parent:
        if name.startswith("-") or name in words:
            continue
        below = parent[name]
        if flag in _names(below):
            commands.append(name)
    return commands


def _misspelt(error: Any) -> str | None:
    """That a flag is unknown: cyclopts says first that another is missing, which may be what the misspelt one stood for."""
    unknown_flags = [word.partition("=")[0] for word in error.unused_tokens or () if word.startswith("--")]
    if not unknown_flags or error.app is None:
        return None
    flags = sorted(name for name in _names(error.app) if name.startswith("--"))
    return None if unknown_flags[0] in flags else f"{unknown('flag', unknown_flags[0], flags)}."


def _missing(error: Any, chain: list[str], argv: list[str]) -> str | None:
    """That a required argument was not given; None where it is a flag that was given without its value."""
    argument = getattr(error, "argument", None)
    name = getattr(argument, "name", "")
    if not name or name in argv:
        return None
    if chain == ["pack"] and len(argv) > 1 and not argv[1].startswith("-"):
        try:
            check_name(argv[1])  # a file of weights in the place of a model: the line says the whole command
        except UserError as reason:
            return str(reason)
    return f"{' '.join(chain) or 'the command'} needs {name}, which was not given."


def _note(line: str) -> None:
    """One line on standard error that is no error."""
    if not _many() or os.environ.get("RANK") == "0":
        _tell(f"note: {line}")


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
