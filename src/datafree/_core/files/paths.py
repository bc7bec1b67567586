"""Names that are valid on POSIX and Windows and never lead outside their folder, and output folders marked with their
kind.
"""

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
    """Returns `name` if it is a plain file name on both POSIX and Windows; raises UserError otherwise."""
    reason = why_not_component(name) or (_DEVICE.fullmatch(name) and "it is a device on Windows")
    if reason:
        quoted = repr(name[:80] if isinstance(name, str) else name)
        raise UserError(f"name {quoted} cannot be used: {reason}; expected 1 to 128 of A-Z a-z 0-9 . _ -; rename it")
    return name


def is_device(name: str) -> bool:
    """Whether Windows takes the name for a device, such as `aux`."""
    return _DEVICE.fullmatch(name) is not None


def why_not_component(name: object) -> str | None:
    """Why `name` is not a single plain path component; None if it is. Windows devices are not checked."""
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
    """Creates or claims the output folder `path`; it must be empty or claimed before for the same `kind`.

    Raises UserError for any other folder, which is left unchanged.
    """
    check_path(path)
    folder = Path(path)
    safe_name(kind)
    try:
        make_folder(folder)
    except FileExistsError:
        raise UserError(f"{str(folder)!r} is a file; expected a folder; choose another name") from None
    except OSError as error:
        raise UserError(f"cannot make or read folder {str(folder)!r}: {error.strerror}; choose another place") from None
    if not check_claim(folder, kind=kind):
        write_json(folder / MARKER, {"kind": kind})
    return folder


def check_claim(path: str | os.PathLike[str], *, kind: str) -> bool:
    """Whether `path` is claimed for `kind`; False if it is empty or missing. Writes nothing.

    Raises UserError for a link, a file, a folder of another kind, and a folder that holds anything else.
    """
    check_path(path)
    folder = Path(path)
    try:
        mode = os.lstat(folder).st_mode
        if stat.S_ISLNK(mode):
            raise UserError(f"{str(folder)!r} is a link; expected a folder; give the folder itself")
        if not stat.S_ISDIR(mode):
            raise UserError(f"{str(folder)!r} is a file; expected a folder; choose another name")
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"cannot make or read folder {str(folder)!r}: {error.strerror}; choose another place") from None
    if MARKER in names:
        _check_marker(folder, kind)
        return True
    foreign = [name for name in names if name != LOCK and not _is_stray_marker(name)]
    if foreign:
        raise UserError(
            f"folder {str(folder)!r} holds {foreign[0]!r} and no {MARKER!r}; expected an empty folder; choose another"
        )
    return False


def _is_stray_marker(name: str) -> bool:
    """Whether this is the temporary marker of a process that was killed while it claimed the folder."""
    match = TEMPORARY.fullmatch(name)
    return match is not None and match["name"] == MARKER


def _check_marker(folder: Path, kind: str) -> None:
    stored_kind = read_json(folder / MARKER).get("kind")
    if stored_kind != kind:
        raise UserError(
            f"folder {str(folder)!r} holds {str(stored_kind)[:80]!r}; expected {kind!r}; choose another folder"
        )
