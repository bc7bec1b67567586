"""What a folder that is opened says of a run in it that was stopped, instead of what its result lacks."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..errors import UserError
from . import read_json
from .lock import writer
from .paths import MARKER

__all__ = ["PENDING", "check_finished"]

PENDING = "unfinished"
"""Where a folder's marker holds what the run in it is, until that has finished."""


def check_finished(folder: str | Path) -> None:
    """Raises UserError where a run of datafree was stopped in `folder`; for a place where the result is missing."""
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
