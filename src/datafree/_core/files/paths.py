"""Names and folders that mean the same on POSIX and on Windows, and never a place outside."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ..errors import UserError
from .atomic import TEMPORARY, make_folder
from .lock import LOCK
from .open_file import check_path
from .strict_json import read_json, write_json

__all__ = ["MARKER", "check_claim", "claim_folder", "safe_name", "why_not_component"]

MARKER = ".datafree.json"
_COMPONENT = re.compile(r"[A-Za-z0-9._-]{1,128}")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


def safe_name(name: str) -> str:
    """`name` itself where it is one path component that POSIX and Windows both take for a plain file name."""
    reason = why_not_component(name) or (_DEVICE.fullmatch(name) and "it is a device on Windows")
    if reason:
        shown = repr(name[:80] if isinstance(name, str) else name)
        raise UserError(f"name {shown} cannot be used: {reason}; wanted 1 to 128 of A-Z a-z 0-9 . _ -; rename it")
    return name


def why_not_component(name: object) -> str | None:
    """The reason why `name` is not one plain component of a path, devices of Windows aside; None where it is."""
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, no string"
    if not name or len(name) > 128:
        return f"it has {len(name)} characters"
    if not _COMPONENT.fullmatch(name):
        return "it has other characters"
    if name == "." or name.startswith(".."):
        return "it leads outside"
    return "Windows drops its last dot" if name.endswith(".") else None


def claim_folder(path: str | os.PathLike[str], *, kind: str) -> Path:
    """The output folder `path`: made, or empty, or claimed before for the same `kind`. Any other is left untouched."""
    check_path(path)
    folder = Path(path)
    safe_name(kind)
    try:
        make_folder(folder)
    except FileExistsError:
        raise UserError(f"{str(folder)!r} is a file; wanted a folder; choose another name") from None
    except OSError as error:
        raise UserError(f"cannot make or read folder {str(folder)!r}: {error.strerror}; choose another place") from None
    if not check_claim(folder, kind=kind):
        write_json(folder / MARKER, {"kind": kind})
    return folder


def check_claim(path: str | os.PathLike[str], *, kind: str) -> bool:
    """Whether `path` is claimed for `kind`; False where it is empty or not there. Writes nothing.

    Raises UserError for a link, a file, another kind's folder, and one that holds other things.
    """
    check_path(path)
    folder = Path(path)
    try:
        mode = os.lstat(folder).st_mode
        if stat.S_ISLNK(mode):
            raise UserError(f"{str(folder)!r} is a link; wanted a folder; give the folder itself")
        if not stat.S_ISDIR(mode):
            raise UserError(f"{str(folder)!r} is a file; wanted a folder; choose another name")
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"cannot make or read folder {str(folder)!r}: {error.strerror}; choose another place") from None
    if MARKER in names:
        _check_marker(folder, kind)
        return True
    others = [name for name in names if name != LOCK and not _is_stray_marker(name)]
    if others:
        raise UserError(
            f"folder {str(folder)!r} holds {others[0]!r} and no {MARKER!r}; wanted an empty folder; choose another"
        )
    return False


def _is_stray_marker(name: str) -> bool:
    """Whether a process that was killed while it claimed the folder left this behind."""
    match = TEMPORARY.fullmatch(name)
    return match is not None and match["name"] == MARKER


def _check_marker(folder: Path, kind: str) -> None:
    found = read_json(folder / MARKER).get("kind")
    if found != kind:
        raise UserError(f"folder {str(folder)!r} holds {str(found)[:80]!r}; wanted {kind!r}; choose another folder")
