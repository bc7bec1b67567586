"""Imports code that the user named as `file.py:name` or `package.module:name`: guarded, and noted for run.json."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

from .code_names import CodeName, check_allowed, code_name
from .errors import UserError, unknown
from .files.open_file import sha256_file
from .imported_files import imported_files, is_installed
from .version import FOLDER

__all__ = [
    "all_files", "class_file", "code_entry", "code_files", "failed_place", "file_imports", "function_of", "guarded",
    "import_code", "in_one_line", "is_user_code", "note_user_code", "running",
]  # fmt: skip

_FILES: dict[str, set[Path]] = {}
"""What `code_files` returns for code that was imported in this process."""
_PLACES: set[str] = set()
"""Files that were imported as code of the user's own, as tracebacks name them."""


def import_code(code: CodeName, kind: str = "model") -> ModuleType:
    """The module of a name that the user typed; a file is run again each time.

    Raises UserError if it is missing or fails, and inside `without_code`. `kind` says what the code is for, in messages.
    """
    place = code.place
    check_allowed(place)
    if not code.is_file:
        with guarded(place, code, kind=kind), _noted(place):
            return importlib.import_module(place)
    path = Path(place)
    if not path.is_file():
        expected = f"that builds the {kind}" if kind == "model" else f"of the class {code.attribute}"
        raise UserError(f"no file {place}, expected the Python file {expected}; check the path")
    note_user_code(path)
    spec = importlib.util.spec_from_file_location(f"datafree_code_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    _FILES.pop(place, None)
    with guarded(place, code, kind=kind), _siblings_forgotten(path.parent), _noted(place):
        spec.loader.exec_module(module)
    return module


def function_of(module: ModuleType, code: CodeName) -> Callable[..., Any]:
    """The function or class of a module that the name `code` names. Raises UserError if there is none."""
    function = getattr(module, code.attribute, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise unknown("function", code.attribute, names, code.place)
    return function


@contextmanager
def running(name: str, code: CodeName, note: str = "", kind: str = "model") -> Iterator[None]:
    """Like `guarded`, for a function of imported code; what the function imports is noted for `code_files`."""
    forgotten = _siblings_forgotten(_folder(code)) if code.is_file else nullcontext()
    with guarded(name, code, note, kind), forgotten, _noted(code.place):
        yield


@contextmanager
def guarded(name: str, code: CodeName, note: str = "", kind: str = "model") -> Iterator[None]:
    """Custom code runs inside this block: its folder is on sys.path, and any exception becomes a UserError of one line."""
    search_path, folder = list(sys.path), str(_folder(code).resolve())
    sys.path.insert(0, folder)
    try:
        with in_one_line(name, note, kind):
            yield
    finally:
        sys.path[:] = search_path


@contextmanager
def in_one_line(name: str, note: str = "", kind: str = "model", *, missing: str | None = None) -> Iterator[None]:
    """Any exception of the block becomes a UserError of one line; `missing` says what to do if a module is not found."""
    try:
        yield
    except UserError:
        raise
    except ModuleNotFoundError as error:
        do = f"get {error.name}.py from that file's author and put it beside it, or install the package of that name"
        if ".py" not in name:
            do = "install it, or name a file as path/file.py:name"
        raise UserError(f"no module {error.name!r} for {kind} {name!r}; {missing or do}") from None
    except (Exception, SystemExit) as error:  # a script that was not meant to be imported may exit
        if isinstance(error, SyntaxError):
            reason, place = error.msg, f" ({error.filename}, line {error.lineno})"
        else:
            package_folder = str(FOLDER)
            frames = [
                frame
                for frame in traceback.extract_tb(error.__traceback__)
                if not frame.filename.startswith(package_folder)
            ]
            reason, place = str(error), f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
        raise UserError(
            f"the code of {kind} {name!r} fails with {type(error).__name__}: {reason}{place}{note}; fix it"
        ) from error


def failed_place(error: BaseException) -> str | None:
    """File and line of the user's own code in which an error came up; None for errors of the library."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_user_code(frame.filename)]
    return f"{os.path.relpath(frames[-1].filename)}, line {frames[-1].lineno}," if frames else None


def class_file(settings: Any) -> Path | None:
    """The Python file of a class of the user's own, whose instance `settings` is; None for the library's classes."""
    if settings is None or type(settings).__module__.startswith("datafree."):
        return None
    try:
        return Path(inspect.getfile(type(settings)))
    except (OSError, TypeError):  # a class that was typed in
        return None


def code_entry(*settings: Any) -> dict[str, str]:
    """`code`: sha256 of the files of the user's own classes among the settings and of their extra losses, and of the files
    that these import (see `file_imports`); else empty.

    It belongs to the identity of a run, so that changed code is another run.
    """
    class_files: set[Path] = set()
    imported: set[Path] = set()
    for part in settings:
        if (path := class_file(part)) is not None:
            class_files.add(path)
        loss = code_name(str(getattr(part, "extra_loss", None)))
        if loss is not None:
            class_files |= {Path(loss.place)} if loss.is_file else set(code_files(loss))
    present = sorted(path for path in class_files if path.is_file())
    for path in present:
        imported |= file_imports(path)
    # sorted by content, so that the files may lie anywhere
    digests = [*map(sha256_file, present), *sorted(map(sha256_file, imported - {path.absolute() for path in present}))]
    return {"code": hashlib.sha256("".join(digests).encode()).hexdigest()} if digests else {}


def file_imports(path: Path) -> set[Path]:
    """The Python files that the file of a class imports: according to its source, and to what was noted of its import."""
    path = path.absolute()
    noted = {file for place, files in _FILES.items() if Path(place).absolute() == path for file in files}
    return {file for file in imported_files(path) | noted if file != path and file.is_file()}


def note_user_code(path: Path) -> None:
    """Notes that this file runs as code of the user's own, for `is_user_code`."""
    _PLACES.add(str(path))
    _PLACES.add(str(path.absolute()))


def is_user_code(file: str) -> bool:
    """Whether this process imported the Python file as code of the user's own."""
    return file in _PLACES or any(Path(file) in paths for paths in _FILES.values())


def code_files(code: CodeName) -> list[Path]:
    """The Python files that code consists of besides its own file: those of its package, and those that it imported, also
    inside `running`.

    For a module, its own file too. Empty for code that was not imported in this process. Python's own modules and installed
    packages are not listed, unless the code is in one of them.
    """
    return sorted(_FILES.get(code.place, ()))


def all_files(code: CodeName) -> list[Path]:
    """`code_files`, after the code's own file."""
    return [*([Path(code.place)] if code.is_file else []), *code_files(code)]


def _folder(code: CodeName) -> Path:
    """The folder of the code of `file.py:name`; for a module, the working directory."""
    return Path(code.place).parent if code.is_file else Path()


@contextmanager
def _noted(place: str) -> Iterator[None]:
    """Notes for `code_files` what is imported inside the block, and the package of the module `place`."""
    modules_before = set(sys.modules)
    yield
    files = _FILES.setdefault(place, set())
    package = None if place.endswith(".py") else place.partition(".")[0]
    for name, module in list(sys.modules.items()):
        of_package = package is not None and name.partition(".")[0] == package
        if (name in modules_before and not of_package) or name == f"datafree_code_{Path(place).stem}":
            continue
        file = getattr(module, "__file__", None) or ""
        if file.endswith(".py") and (of_package or not is_installed(Path(file).absolute())):
            files.add(Path(file).absolute())


@contextmanager
def _siblings_forgotten(folder: Path) -> Iterator[None]:
    """Removes from sys.modules what the block imported from `folder`: another folder may have modules of that name."""
    modules_before, folder = set(sys.modules), folder.resolve()
    try:
        yield
    finally:
        for name in set(sys.modules) - modules_before:
            place = getattr(sys.modules[name], "__file__", None)
            if place and folder in Path(place).resolve().parents:
                del sys.modules[name]
