"""datafree rerun"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from cyclopts import CycloptsError, Parameter

from .._core.code_names import code_name, without_code
from .._core.errors import UserError
from .._core.files import read_json
from .._core.files.unfinished import check_finished
from .._core.unused import unused_are_noted
from ..runs.difference import LATER
from ..runs.provenance import PARTS
from .deprecated import rewritten, words_after

__all__ = ["rerun"]

LARGEST_INPUT = 1 << 36
"""Bytes of a file that is hashed to see whether it has changed."""
DATA = re.compile(r" \(\w+\)$")
"""What ends the name of a data set and its split among a log's inputs."""
MODELS = ("model", "teacher", "student")
"""Parameters of the verbs that hold a model's name; so do all that end in `code`."""


def rerun(run: Path, /, *, out: Path | None = None, trust: Annotated[bool, Parameter(negative="")] = False) -> int:
    """Repeat a run from its log: the same command, settings and seed, in the working directory.

    The log is OUT.run.json, beside the folder that the run wrote. A log from somebody else may run code or write to your
    folders, so such commands need --trust.

    Example: datafree rerun student --out again

    Parameters
    ----------
    run
        The folder of a run, or a log.
    out
        Where to write instead of the first run's folder.
    trust
        Run it even where it names a network by file.py:function or package.module:function, runs the code that a release
        holds, or writes outside of the working directory.
    """
    from .main import run as run_command

    path = _log(run)
    log = read_json(path)
    argv, _ = rewritten(_as_folder(_argv(log, path), log))
    argv = [*argv, *_defaults_then(log, argv)]
    words = argv if out is None else _to(argv, str(out))
    print("datafree " + shlex.join(words))
    if not trust:
        _check(words, path, out)
    from ..runs.run_log import FORMAT, hash_of

    inputs = log.get("inputs")
    names = {name: digest for name, digest in inputs.items() if _is_path(name)} if isinstance(inputs, dict) else {}
    _check_place(log.get("folder"), names)
    for name, digest in names.items():
        if not _is_input(Path(name)) or (log.get("format") != FORMAT and Path(name).is_dir()):
            continue  # earlier versions took another hash of a folder
        if hash_of(name) != digest:
            print(f"note: {name} is not what that run read: it has changed, or is another one; the result will differ")
    with ExitStack() as stack:
        stack.enter_context(unused_are_noted())
        if not trust:  # what `_check` did not see is refused where it would be imported
            stack.enter_context(without_code())
        return run_command(words)


def _as_folder(argv: list[str], log: dict[str, Any]) -> list[str]:
    """The command line with ./ before a folder that has the name of a method: in earlier versions it was no method."""
    settings = log.get("settings")
    names = {settings.get(key) for key in ("model", "teacher")} if isinstance(settings, dict) else set()
    if len(argv) > 1 and argv[1] in names and argv[1] not in argv[2:] and argv[1] in words_after(argv[0]):
        return [argv[0], f"./{argv[1]}", *argv[2:]]
    return argv


def _defaults_then(log: dict[str, Any], argv: list[str]) -> list[str]:
    """Flags for what a run of an earlier version did by default and this one does not, said in a line."""
    settings = log.get("settings")
    if argv[0] != "quantize" or not isinstance(settings, dict) or "target_cpu" in settings:
        return []
    if any(word.split("=")[0] == "--target-cpu" for word in argv):
        return []
    print("note: that run is of a version without --target-cpu, which used all 8 bits as vnni does now; vnni is added")
    return ["--target-cpu", "vnni"]


def _check_place(place: Any, inputs: dict[str, Any]) -> None:
    """Says where the command was given, if not here. Raises UserError where what it read by a relative name is not here."""
    if not isinstance(place, str) or Path(place) == Path.cwd():
        return
    relative = [
        name for name in inputs if not (Path(name).is_absolute() or DATA.search(name) or name.startswith(LATER))
    ]
    missing = next((name for name in relative if not os.path.exists(name)), None)  # False for a name too long
    if missing is not None:
        raise UserError(
            f"that command was given in {place[:200]} and reads {missing[:80]!r}, which is not in {Path.cwd()}; change to "
            "that folder, or to one that holds the same files, and rerun it there"
        )
    print(
        f"note: that command was given in {place[:200]}; relative paths, output included, are resolved in {Path.cwd()}"
    )


def _log(run: Path) -> Path:
    """The file that holds the command line: a log by its name, or the one in or beside a folder."""
    beside = _beside(run if run.is_dir() else run.parent)
    options = [beside, run / "run.json"] if run.is_dir() else [run]
    for path in options:
        if path.is_file():
            inner = path.name == "run.json" and "argv" not in read_json(path)
            return beside if inner and beside.is_file() else path
    check_finished(run)
    raise UserError(f"no file {run}, expected a run.json; name the folder of a run")


def _beside(folder: Path) -> Path:
    """Where a run keeps what is not handed over with its folder."""
    absolute = folder.resolve()
    return (folder if folder.name == absolute.name else absolute).with_name(f"{absolute.name}.run.json")


def _argv(log: dict[str, Any], path: Path) -> list[str]:
    """The command line in a log: a verb, and words that the operating system could have passed."""
    from . import VERBS

    argv = log.get("argv")
    if argv == []:
        raise UserError(
            f"{path} names no command line: that run was made from Python, and no command can repeat it; run that "
            "Python code again"
        )
    if not isinstance(argv, list) or not argv or not all(isinstance(word, str) for word in argv):
        beside = _beside(path.parent).name
        raise UserError(
            f"{path} names no command line: {beside} does, which lies beside the folder where the run was made; "
            "rerun that file"
        )
    if argv[0] not in VERBS or argv[0] == "rerun" or not all(map(_is_path, argv)):
        raise UserError(f"{path} names no command line that can be repeated; get the file again")
    return argv


def _is_path(word: str) -> bool:
    try:
        return b"\0" not in os.fsencode(word)
    except UnicodeEncodeError:
        return False


def _is_input(path: Path) -> bool:
    """Whether it is a file, or a folder of ours, whose hash can be compared: a log may name the whole disk."""
    try:
        if path.is_dir():
            return any((path / part).is_file() for part in PARTS)
        return path.is_file() and path.stat().st_size <= LARGEST_INPUT
    except (OSError, ValueError):  # a name that is too long, say, or has a NUL
        return False


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False


def _check(words: list[str], path: Path, out: Path | None) -> None:
    """Raises UserError for a command that runs code, or writes where only its user can have meant it to.

    The command line is read by the parser that will run it. Where that fails, so will the run; every word counts then.
    """
    from . import app

    root = app(words[0])
    try:
        command, bound, _ = root.meta.parse_args(words, exit_on_error=False, print_error=False)
        output = command(*bound.args, **bound.kwargs)
        if output.log is not None:
            raise UserError(f"that command appends to the file {output.log!r}; type it yourself, or add --trust")
        _, bound, _ = root.parse_args(output.words, exit_on_error=False, print_error=False)
        values = {**bound.arguments, "method code": output.words[1:3]}
    except CycloptsError:
        values = {f"{index} code": word.rpartition("=")[2] for index, word in enumerate(words)}
    for name in _models(values):
        if code_name(name) is not None and not _is_folder(name):
            raise UserError(
                f"that command runs the code {name!r}; if it is yours, or you have read it, add --trust, or type it "
                "yourself"
            )
    if "--trust" in words or _trusts(values):
        raise UserError(
            "that command runs the code that a release holds (--trust); if you have read that code, add --trust here "
            "too, or type the command yourself"
        )
    target = values.get("out") or (values.get("teacher") if words[0] == "record" else None)
    if out is None and target is not None and not _is_near(Path(target), path):
        raise UserError(
            f"that command writes to {str(target)!r}, outside of the working directory; name the place with --out, or "
            "add --trust"
        )


def _models(values: dict[str, Any]) -> Iterator[str]:
    """The names of models among the values of a command's parameters."""
    for key, value in values.items():
        if hasattr(value, "__dataclass_fields__"):
            yield from _models(vars(value))
        elif key in MODELS or key.endswith("code"):
            yield from [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else ()


def _trusts(values: dict[str, Any]) -> bool:
    """Whether a command is to run the code in a release."""
    nested = (vars(value) for value in values.values() if hasattr(value, "__dataclass_fields__"))
    return bool(values.get("trust")) or any(map(_trusts, nested))


def _is_near(target: Path, log: Path) -> bool:
    """Whether a place is in the working directory, or is where the log itself was written."""
    place, working = target.resolve(), Path.cwd().resolve()
    is_beside = place in (log.parent.resolve(), log.resolve()) or _beside(place) == log.resolve()
    return is_beside or working in place.parents or place == working


def _to(argv: list[str], out: str) -> list[str]:
    """The command line with another --out, in either spelling, or with one where it had none."""
    words = [f"--out={out}" if word.startswith("--out=") else word for word in argv]
    if "--out" in words:
        return [*words[: words.index("--out") + 1], out, *words[words.index("--out") + 2 :]]
    return words if words != argv else [*words, "--out", out]
