"""The folder that a command writes: locked, claimed, swept, and complete once it has a run.json, which is written last.

During a run the folder's marker describes it under "unfinished". After a kill at any moment the same command continues or
starts again.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._core.distributed import first
from .._core.errors import UserError
from .._core.files import (
    check_claim,
    claim_folder,
    locked,
    read_json,
    read_tensors,
    sweep,
    write_json,
)
from .._core.files.atomic import make_folder
from .._core.files.lock import LOCK
from .._core.files.paths import MARKER
from .._core.files.unfinished import PENDING
from .._core.settings import modern
from .resumable import STATE, holds_state, is_resumable, recording_state
from .run_log import RunLog

__all__ = [
    "CONDENSED_FOLDER",
    "DEMO_FOLDER",
    "EVALUATION_FOLDER",
    "SIMILARITY_FOLDER",
    "STAGED",
    "STATE",
    "Kind",
    "changed_folder",
    "earlier_settings",
    "is_resumable",
    "logged",
    "output_folder",
    "parameters_named",
    "read_log",
    "recording_state",
]

STAGED = ".staged"
"""A folder in the output folder for files that are moved into place once all of them are complete."""
LOG = "run.json"
QUOTED = re.compile(r"`([a-z]\w*)`")
"""How messages name a parameter."""


@dataclass(frozen=True)
class Kind:
    """A kind of output folder."""

    name: str
    """The name in the folder's marker."""
    noun: str
    """The name in messages."""
    files: tuple[str, ...]
    """Files that a run writes besides run.json; the first is the main result."""
    check: Callable[[Path], object] = lambda _: None
    """Raises UserError if a file is missing or damaged; the same command then makes it again."""
    grows: str | None = None
    """A setting that a later run may increase, to add to the result."""
    tidy: Callable[[Path], object] = lambda _: None
    """Removes files that a killed run left outside the folder."""


def _check_condensed(folder: Path) -> None:
    read_tensors(folder / "condensed.safetensors", kind="condensed")


CONDENSED_FOLDER = Kind("condensed", "condensed set", ("condensed.safetensors", "README.md"), _check_condensed)
EVALUATION_FOLDER = Kind("evaluation", "evaluation", ())
SIMILARITY_FOLDER = Kind("similarity", "similarity", ("similarity.svg",))
DEMO_FOLDER = Kind("demo", "demo", ("report.html",))


@contextmanager
def output_folder(
    out: Path,
    kind: Kind,
    log: RunLog,
    *,
    reads: Iterable[str | Path | None] = (),
    say: Callable[[str], object] = print,
) -> Iterator[Path | None]:
    """The folder for the result of the run `log`; None, with a line to `say`, if it already holds this run's result.

    The block writes the result and calls `log.write` last. If it fails, the files it wrote are removed, unless a stopped run
    can continue from them; older files are never removed. Only the first of several processes touches the folder. Raises
    UserError, in all processes, for a folder of another kind, another run's result, a folder that the run reads, and one
    that another run is writing to.
    """
    with ExitStack() as stack:
        complete = first(lambda: stack.enter_context(_writing(Path(out), kind, log, [*reads], say)))
        yield None if complete else Path(out)


@contextmanager
def parameters_named(**renamed: str) -> Iterator[None]:
    """Renames parameters in errors of the block to those of the caller's function: `parameters_named(out="folder")`."""
    try:
        yield
    except UserError as error:
        raise UserError(QUOTED.sub(lambda name: f"`{renamed.get(name[1], name[1])}`", str(error))) from None


@contextmanager
def changed_folder(folder: Path, kind: Kind) -> Iterator[Path]:
    """Locks a finished folder while something is added to it, and removes what killed runs left."""
    with _lock(folder):
        _tidy(folder)
        kind.tidy(folder)
        yield folder


@contextmanager
def _writing(
    out: Path, kind: Kind, log: RunLog, reads: list[str | Path | None], say: Callable[[str], object]
) -> Iterator[bool]:
    for path in reads:
        if path is not None and out.exists() and out.resolve() == Path(path).resolve():
            raise UserError(f"`out` {out} is what this run reads, and would be lost; name another folder")
    for path in log.read_folders():
        if path.resolve() in (place := out.resolve(), *place.parents):
            raise UserError(
                f"`out` {out} is inside {path}, which this run reads as images: the next run would find its files there; "
                "name a folder elsewhere"
            )
    check_claim(out, kind=kind.name)
    log.check(out)
    with _created(out) as names_before, _lock(out):
        if _is_complete(out, kind, log):
            _tidy(out)
            say(f"already complete: {kind.noun} in {out}, of the same settings; nothing was changed")
            yield True
            return
        _begin(out, kind, log)
        try:
            yield False
        except BaseException:
            _undo(out, kind, names_before)
            raise
        _tidy(out)


@contextmanager
def _created(out: Path) -> Iterator[set[str]]:
    """Creates the folder and yields the names in it. Afterwards removes the folders that it created if they stayed empty."""
    try:
        missing = make_folder(out)
        names = {path.name for path in out.iterdir()}
    except OSError as error:
        raise UserError(f"cannot make or read folder {str(out)!r}: {error.strerror}; choose another place") from None
    try:
        yield names
    finally:
        for path in missing:
            with suppress(OSError):  # it holds something
                path.rmdir()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    with locked(folder) as reason:
        if reason is not None:
            print(
                f"datafree: the file system of {folder} has no locks ({reason}): do not start a second run in it",
                file=sys.stderr,
            )
        yield


def _is_complete(out: Path, kind: Kind, log: RunLog) -> bool:
    """Whether the folder holds the complete result of this run. Raises UserError for the result of another run."""
    has_result = not kind.files or (out / kind.files[0]).exists()
    old, pending = logged(out), _marker(out).get(PENDING)
    if is_final(old) and has_result:
        difference = log.difference(old, ignored=kind.grows)
        if difference is not None:
            raise UserError(f"{out} was made {difference}: name another `out`, or remove that folder first")
        return (kind.grows is None or log.difference(old) is None) and _is_intact(out, kind)
    if isinstance(pending, dict) and (has_result or holds_state(out)):
        difference = log.difference(pending, ignored=kind.grows)
        if difference is not None:
            raise UserError(
                f"{out} holds an unfinished run {difference}: give that run's command again to finish it, name another "
                "`out`, or remove that folder first"
            )
    elif not old and has_result and kind.files and kind.grows is None and not holds_state(out):
        raise UserError(
            f"{out} holds a {kind.noun} that no run of datafree is known to have made, and which would be lost; "
            "name another `out`, or remove that folder first"
        )
    return False


def _is_intact(out: Path, kind: Kind) -> bool:
    try:
        kind.check(out)
    except UserError:
        return False
    return True


def _begin(out: Path, kind: Kind, log: RunLog) -> None:
    """Claims the folder for the run, and removes what killed runs left."""
    log.resumed = holds_state(out)
    if not (out / MARKER).exists():
        claim_folder(out, kind=kind.name)
    _sweep(out)
    kind.tidy(out)
    marker = {"kind": kind.name, PENDING: log.identity}
    if _marker(out) != marker:
        write_json(out / MARKER, marker)


def _undo(out: Path, kind: Kind, names_before: set[str]) -> None:
    """Removes what a failed run wrote, unless a later run can continue from it."""
    if is_final(logged(out)) or holds_state(out):
        return
    for name in (*kind.files, LOG):
        if name not in names_before:
            with suppress(OSError):
                (out / name).unlink()
    _sweep(out)
    if MARKER not in names_before and not _left_over(out, names_before):  # otherwise the folder stays this run's
        with suppress(OSError):
            (out / MARKER).unlink()


def _left_over(out: Path, names_before: set[str]) -> set[str]:
    """Names that a failed run left in the folder, such as the folders inside a demo's."""
    try:
        return {path.name for path in out.iterdir()} - names_before - {MARKER, LOCK}
    except OSError:
        return set()


def _tidy(out: Path) -> None:
    """Removes what a finished folder no longer needs; if that fails, the next run removes it."""
    marker = _marker(out)
    with suppress(OSError, UserError):
        _sweep(out)
        if is_final(logged(out)):
            (out / STATE).unlink(missing_ok=True)
            if (
                PENDING in marker
            ):  # last: it syncs the folder, so that a power cut does not bring the removed files back
                write_json(out / MARKER, {"kind": marker.get("kind")})


def _sweep(out: Path) -> None:
    shutil.rmtree(out / STAGED, ignore_errors=True)
    sweep(out)


def _marker(out: Path) -> dict[str, Any]:
    return read_json(out / MARKER) if (out / MARKER).exists() else {}


def logged(out: Path) -> dict[str, Any]:
    """The log of the run that made a folder, not of a later recording; empty if there is none."""
    old = read_log(out)
    return old["before"] if old.get("verb") == "record" and isinstance(old.get("before"), dict) else old


def earlier_settings(out: Path) -> dict[str, Any]:
    """The settings of the finished run that made a folder, or else of the stopped run in it; empty if there is none."""
    log = logged(out) or _marker(out).get(PENDING)
    settings = log.get("settings") if isinstance(log, dict) else None
    return settings if isinstance(settings, dict) else {}


def read_log(out: Path) -> dict[str, Any]:
    """The run.json of a folder; empty if there is none."""
    return modern(read_json(out / LOG)) if (out / LOG).exists() else {}


def is_final(log: dict[str, Any]) -> bool:
    """Whether a run.json is of a finished run; online distillation also writes one after every epoch."""
    result = log.get("result")
    return bool(log) and not (isinstance(result, dict) and "unfinished" in result)
