"""--json: one object on standard output, with what a command measured or where it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from .._core.files import read_json

__all__ = ["RESULT", "object_of", "result"]

RESULT: ContextVar[dict[str, Any] | None] = ContextVar("result", default=None)
"""Where the command that is running puts its result; None where nobody asked for it."""


def result(values: Mapping[str, Any]) -> None:
    """Adds to what --json prints."""
    collected = RESULT.get()
    if collected is not None:
        collected.update(values)


def object_of(chain: Sequence[str], arguments: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """The object: the command, the folder it wrote, and the result; a folder's is that of its run.json."""
    place = arguments.get("out")
    if place is None and chain[:1] == ["record"]:
        place = arguments.get("teacher")
    content: dict[str, Any] = {"command": " ".join(chain)}
    if place is not None:
        content["out"] = str(place)
        log = _log(Path(place))
        content |= {key: log[key] for key in ("seconds", "settings") if key in log}
        values = {**(log["result"] if isinstance(log.get("result"), dict) else {}), **values}
    return json.dumps({**content, "result": values}, default=str, allow_nan=False)


def _log(place: Path) -> dict[str, Any]:
    """The log that the run has just written, in its folder or beside its page."""
    for path in (place / "run.json", place.with_name(f"{place.name}.run.json")):
        if path.is_file():
            return read_json(path)
    return {}
