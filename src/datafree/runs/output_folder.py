"""The folder that a command writes: locked, claimed, swept, and complete once its run.json is there, which is written last.

While a run is under way the folder's marker holds what the run is, under "unfinished"; the same command goes on or begins
again after a kill at any moment.
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
"""A folder in the output folder for files that are moved into place once all of them are whole."""
LOG = "run.json"
QUOTED = re.compile(r"`([a-z]\w*)`")
"""How a message names a parameter."""


@dataclass(frozen=True)
class Kind:
    """A kind of output folder."""

    name: str
    """As in the folder's marker."""
    noun: str
    """In messages."""
    files: tuple[str, ...]
    """What a run writes beside run.json; the first is what the folder is there for."""
    check: Callable[[Path], object] = lambda _: None
    """Raises UserError where a file is missing or damaged: the same command then makes it again."""
    grows: str | None = None
    """A setting that a later run may raise to add to the result."""
    tidy: Callable[[Path], object] = lambda _: None
    """Removes what a killed run left outside the folder."""


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
    """The folder for the result of the run `log`; None where it holds that very result already, which `say` is told.

    The block writes the result and, last, calls `log.write`. Where the block fails, what it wrote is removed, unless a
    stopped run can go on from it; nothing that was there before is ever removed. Of several processes the first alone has
    to do with the folder. Raises UserError in all of them for a folder of another kind, another run's result, a folder that
    the run reads from, and one that another run is writing to.
    """
    with ExitStack() as stack:
        complete = first(lambda: stack.enter_context(_writing(Path(out), kind, log, [*reads], say)))
        yield None if complete else Path(out)


@contextmanager
def parameters_named(**renamed: str) -> Iterator[None]:
    """Errors inside name a parameter as the caller's function does: `parameters_named(out="folder")`."""
    try:
        yield
    except UserError as error:
        raise UserError(QUOTED.sub(lambda name: f"`{renamed.get(name[1], name[1])}`", str(error))) from None


@contextmanager
def changed_folder(folder: Path, kind: Kind) -> Iterator[Path]:
    """A finished folder while something is added to it: locked, and swept of what killed runs left."""
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
    with _there(out) as before, _lock(out):
        if _is_complete(out, kind, log):
            _tidy(out)
            say(f"already complete: {kind.noun} in {out}, of the same settings; nothing was changed")
            yield True
            return
        _begin(out, kind, log)
        try:
            yield False
        except BaseException:
            _undo(out, kind, before)
            raise
        _tidy(out)


@contextmanager
def _there(out: Path) -> Iterator[set[str]]:
    """Creates the folder and yields the names in it; afterwards removes what it created of the path if that stayed empty."""
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
                f"datafree: the file system of {folder} takes no locks ({reason}): start no second run in it",
                file=sys.stderr,
            )
        yield


def _is_complete(out: Path, kind: Kind, log: RunLog) -> bool:
    """Whether the folder holds the whole result of this very run. Raises UserError for what is of another."""
    there = not kind.files or (out / kind.files[0]).exists()
    old, pending = logged(out), _marker(out).get(PENDING)
    if is_final(old) and there:
        other = log.difference(old, but=kind.grows)
        if other is not None:
            raise UserError(f"{out} was made {other}: name another `out`, or remove that folder first")
        return (kind.grows is None or log.difference(old) is None) and _is_whole(out, kind)
    if isinstance(pending, dict) and (there or holds_state(out)):
        other = log.difference(pending, but=kind.grows)
        if other is not None:
            raise UserError(
                f"{out} holds an unfinished run {other}: give that run's command again to finish it, name another `out`, or "
                "remove that folder first"
            )
    elif not old and there and kind.files and kind.grows is None and not holds_state(out):
        raise UserError(
            f"{out} holds a {kind.noun} that no run of datafree is known to have made, and which would be lost; "
            "name another `out`, or remove that folder first"
        )
    return False


def _is_whole(out: Path, kind: Kind) -> bool:
    try:
        kind.check(out)
    except UserError:
        return False
    return True


def _begin(out: Path, kind: Kind, log: RunLog) -> None:
    """Claims the folder for the run, and sweeps what killed runs left."""
    log.resumed = holds_state(out)
    if not (out / MARKER).exists():
        claim_folder(out, kind=kind.name)
    _sweep(out)
    kind.tidy(out)
    marker = {"kind": kind.name, PENDING: log.identity}
    if _marker(out) != marker:
        write_json(out / MARKER, marker)


def _undo(out: Path, kind: Kind, before: set[str]) -> None:
    """Removes what a failed run wrote, where no later run could go on from it."""
    if is_final(logged(out)) or holds_state(out):
        return
    for name in (*kind.files, LOG):
        if name not in before:
            with suppress(OSError):
                (out / name).unlink()
    _sweep(out)
    if MARKER not in before and not _others(out, before):  # while something is there, the folder stays this run's
        with suppress(OSError):
            (out / MARKER).unlink()


def _others(out: Path, before: set[str]) -> set[str]:
    """What a failed run left in the folder, such as the folders inside a demo's."""
    try:
        return {path.name for path in out.iterdir()} - before - {MARKER, LOCK}
    except OSError:
        return set()


def _tidy(out: Path) -> None:
    """Removes what a finished folder needs no more; what cannot be removed now is removed by the next run."""
    marker = _marker(out)
    with suppress(OSError, UserError):
        _sweep(out)
        if is_final(logged(out)):
            (out / STATE).unlink(missing_ok=True)
            if PENDING in marker:  # last: it syncs the folder, so that a power cut brings nothing of all that back
                write_json(out / MARKER, {"kind": marker.get("kind")})


def _sweep(out: Path) -> None:
    shutil.rmtree(out / STAGED, ignore_errors=True)
    sweep(out)


def _marker(out: Path) -> dict[str, Any]:
    return read_json(out / MARKER) if (out / MARKER).exists() else {}


def logged(out: Path) -> dict[str, Any]:
    """The log of what made a folder, not of what recorded it later; an empty one where there is none."""
    old = read_log(out)
    return old["before"] if old.get("verb") == "record" and isinstance(old.get("before"), dict) else old


def earlier_settings(out: Path) -> dict[str, Any]:
    """The settings of the finished run that made a folder, or else of the stopped one that left it; empty without any."""
    log = logged(out) or _marker(out).get(PENDING)
    settings = log.get("settings") if isinstance(log, dict) else None
    return settings if isinstance(settings, dict) else {}


def read_log(out: Path) -> dict[str, Any]:
    """The run.json of a folder; an empty one where there is none."""
    return modern(read_json(out / LOG)) if (out / LOG).exists() else {}


def is_final(log: dict[str, Any]) -> bool:
    """Whether a run.json is of a finished run; one of a generator is written after every epoch."""
    result = log.get("result")
    return bool(log) and not (isinstance(result, dict) and "unfinished" in result)
