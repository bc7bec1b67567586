"""Finds the Python files that a file of the user's own imports, from its source; installed packages are left out."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from .version import FOLDER

__all__ = ["imported_files", "is_installed"]

_INSTALLED = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))


def imported_files(path: Path) -> set[Path]:
    """The files that the Python file `path` imports, and those that these import; without `path` itself.

    A module is the file beside the one that imports it, or else what this process has imported under that name. Modules of
    Python and of installed packages are left out, except those of the package that `path` is in. The source is parsed, so
    that the files are the same before and after an import inside a function has run, and in every process.
    """
    path = path.absolute()
    package = _package(path)
    files: set[Path] = set()
    waiting = [path]
    while waiting:
        for file in _imports(waiting.pop()):
            if file in files or file == path or (is_installed(file) and package not in file.parents):
                continue
            files.add(file)
            waiting.append(file)
    return files


def is_installed(path: Path) -> bool:
    """Whether a module belongs to Python, to an installed package, or to datafree itself."""
    if not {"site-packages", "dist-packages"}.isdisjoint(path.parts):
        return True
    return any(folder in path.resolve().parents for folder in (*_INSTALLED, FOLDER))


def _package(path: Path) -> Path | None:
    """The folder of the outermost package that a file is in; None for a file in no package."""
    package = None
    for folder in path.parents:
        if not (folder / "__init__.py").is_file():
            break
        package = folder
    return package


def _imports(path: Path) -> Iterator[Path]:
    """The files of the modules that one file imports directly; nothing for a file that is missing or no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(alias.name, path.parent)
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[max(0, min(node.level - 1, len(path.parents) - 1))]
            for alias in node.names:
                yield from _files(".".join(filter(None, (node.module, alias.name))), folder, is_relative=node.level > 0)


def _files(name: str, folder: Path, *, is_relative: bool = False) -> Iterator[Path]:
    """The files of the module `a.b.c` and of the packages `a` and `a.b`, as far as they exist."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:count])
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file():
                yield file
                break
        else:
            module = None if is_relative else sys.modules.get(".".join(parts[:count]))
            file_name = getattr(module, "__file__", None) or ""
            if file_name.endswith(".py"):
                yield Path(file_name).absolute()
