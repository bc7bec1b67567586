"""What may be on the disk while a command is stopped anywhere, and what must be there once it has finished."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from operations import Operation
from verbs import Verb

from datafree._core.errors import UserError
from datafree._core.files.atomic import TEMPORARY
from datafree._core.files.lock import LOCK
from datafree._core.files.paths import MARKER
from datafree.quantization.folder import is_quantized
from datafree.releases.quantized import check_files
from datafree.runs.output_folder import STAGED, STATE

__all__ = ["apart", "contents", "stages", "unfinished_faults", "wrong_files"]

TIMES = ("seconds", "phases", "speed", "resumed")
"""Entries of a log that differ between two runs with the same result."""
STATES = re.compile(
    rf"(.*/)?((\.[^/]+)?{re.escape(LOCK)}|{re.escape(STATE)}|[^/]+\.recording|\.[^/]+\.datafree-record)"
)
"""Files that are no result and hold times, a process's number, or what is not whole yet."""

Contents = dict[str, Any]


def contents(root: Path, verb: Verb) -> Contents:
    """What is in every file below, without what differs from run to run; `...` where only its presence counts."""
    files = {path: content(path.name, path.read_bytes(), verb) for path in root.rglob("*") if path.is_file()}
    folders = {path: None for path in root.rglob("*") if path.is_dir()}
    found = {**{str(path.relative_to(root)): own for path, own in files.items()}}
    return dict(sorted({**found, **{f"{path.relative_to(root)}/": None for path in folders}}.items()))


def content(name: str, data: bytes, verb: Verb) -> Any:
    if name in verb.loose:
        return ...
    if name.endswith("run.json") or name == MARKER:
        with contextlib.suppress(ValueError):
            return _timeless(json.loads(data))
    return data


def _timeless(value: Any) -> Any:
    """Without times; the number of threads is the one in effect, also where none was asked for."""
    if isinstance(value, dict):
        kept = {key: _timeless(own) for key, own in value.items() if key not in TIMES}
        settings = kept.get("settings")
        if isinstance(settings, dict) and "threads" in settings:
            kept["settings"] = {**settings, "threads": settings["threads"] or kept.get("threads", 1)}
        return kept
    return [_timeless(own) for own in value] if isinstance(value, list) else value


def stages(log: list[Operation], verb: Verb) -> dict[str, list[Any]]:
    """Every content that a name had in an undisturbed run."""
    data: dict[int, bytes] = {}
    names: dict[str, int] = {}
    found: dict[str, list[Any]] = {}
    for kind, *rest in log:
        if kind == "file":
            names[rest[1]] = rest[0]
            found.setdefault(rest[1], [])
        elif kind == "write":
            data[rest[0]] = data.get(rest[0], b"") + rest[1]
        elif kind == "rename" and rest[0] in names:
            number = names[rest[1]] = names.pop(rest[0])
            found.setdefault(rest[1], []).append(content(Path(rest[1]).name, data.get(number, b""), verb))
    return found


def wrong_files(
    root: Path, verb: Verb, before: Contents, after: Contents, on_the_way: dict[str, list[Any]]
) -> list[str]:
    """What is wrong after a command was stopped: other folders changed, or a file is neither as before nor as after."""
    now, faults = contents(root, verb), []
    for path in before.keys() - now.keys():
        if not _within(path, verb) or path.endswith("/"):
            faults.append(f"{path} is gone")
    for path, value in now.items():
        name = Path(path).name
        if path.startswith("tmp/") and path != "tmp/":
            faults.append(f"{path} is in the folder for temporary files")
        elif value is None or TEMPORARY.fullmatch(name) or STATES.fullmatch(path):
            continue
        elif path in before and not _within(path, verb):
            if value != before[path]:
                faults.append(f"{path}, which is another run's, was changed")
        elif f"/{STAGED}/" in path:
            continue
        elif path not in before and path not in after and path not in on_the_way:
            faults.append(f"{path} is no file of this run")
        else:
            options = [own[path] for own in (before, after) if path in own]
            if name in (*verb.passing, MARKER):
                options += on_the_way.get(path, [])
            if value not in options:
                faults.append(f"{path} is neither as before nor as after")
    return faults + _mixed(root, now, before, after)


def _mixed(root: Path, now: Contents, before: Contents, after: Contents) -> list[str]:
    """Results of which a part is there as if it were all."""
    faults = []
    for path in after:
        folder = path.removesuffix("run.json")
        if (
            not path.endswith("/run.json")
            or path not in now
            or now[path] != after[path]
            or before.get(path) == after[path]
        ):
            continue
        for other in after:
            inside = other.startswith(folder) or other == f"{folder.rstrip('/')}.run.json"
            if inside and Path(other).name != MARKER and now.get(other, "gone") != after[other]:
                faults.append(f"{path} is of the whole result, but not {other}")
    for path in now:
        folder = root / path
        if path.endswith("/") and (folder / "config.json").is_file() and STAGED not in path and is_quantized(folder):
            try:
                check_files(folder)
            except UserError as error:
                faults.append(f"{path} opens and is mixed: {error}")
    card, record = "teacher/README.md", "teacher/record.safetensors"
    pair = now.get(card), now.get(record)
    if (
        None not in pair
        and pair not in [(own.get(card), own.get(record)) for own in (before, after)]
        and b"AUC" in pair[0]
    ):
        faults.append("the card is of another record")
    return faults


def _within(path: str, verb: Verb) -> bool:
    """Whether the command may change that path."""
    return any(path == own or path.startswith(f"{own}/") for own in verb.writes) or path.startswith(".")


def unfinished_faults(now: Contents, after: Contents) -> list[str]:
    """In what the result of a command that says it has finished is another than that of an undisturbed run."""
    more, fewer = sorted(now.keys() - after.keys()), sorted(after.keys() - now.keys())
    other = [f"{path} {apart(now[path], after[path])}" for path in now if path in after and now[path] != after[path]]
    faults = [f"left over {', '.join(more)}"] if more else []
    faults += [f"missing {', '.join(fewer)}"] if fewer else []
    return faults + ([f"other bytes: {'; '.join(other)}"] if other else [])


def apart(got: Any, expected: Any) -> str:
    """The first place where two logs differ; their lengths for bytes."""
    if isinstance(got, dict) and isinstance(expected, dict):
        key = next(key for key in (*got, *expected) if got.get(key) != expected.get(key))
        return f"{key}: {apart(got.get(key), expected.get(key))}"
    one, other = (f"{len(own)} bytes" if isinstance(own, bytes) else str(own)[:80] for own in (got, expected))
    return f"{one}, not {other}"
