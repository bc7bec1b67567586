"""The error for an opened folder whose run was stopped, instead of one about the missing result."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..errors import UserError
from . import read_json
from .lock import writer
from .paths import MARKER

__all__ = ["PENDING", "check_finished"]

PENDING = "unfinished"
"""Key in a folder's marker that describes its run until the run has finished."""


def check_finished(folder: str | Path) -> None:
    """Raises UserError if a run of datafree was stopped in `folder`. Called when the result is missing."""
    run = None
    with suppress(UserError, OSError):
        run = read_json(Path(folder) / MARKER).get(PENDING) if (Path(folder) / MARKER).is_file() else None
    verb = run.get("verb") if isinstance(run, dict) else None
    if isinstance(verb, str) and verb.replace("-", "").isalpha() and len(verb) < 40:
        if process := writer(folder):
            raise UserError(
                f"{folder} has no result yet: `datafree {verb}` is at work in it ({process}); wait until it ends"
            )
        raise UserError(
            f"{folder} holds an unfinished run of `datafree {verb}`, and no result yet: give the same command again to "
            "finish it"
        )
