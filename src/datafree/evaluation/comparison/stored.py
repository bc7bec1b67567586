"""Reads the files of a comparison's folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..._core.errors import UserError
from ..._core.files import read_json

__all__ = ["stored_json"]


def stored_json(path: Path, advice: str) -> dict[str, Any]:
    """The JSON object in a file. Raises UserError for a damaged one, with what to do in a comparison."""
    try:
        return read_json(path)
    except UserError as error:
        raise UserError(f"{str(error).rpartition(';')[0] or error}; {advice}") from None
