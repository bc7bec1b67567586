"""The code of a custom network in its release: Python files as text in `code/`, named with their hashes in config.json.

Reading and checking them runs nothing. `ShippedCode.function` runs them, for a user who trusts them.
"""

from __future__ import annotations

import hashlib
import re
import stat
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .._core.code_names import CodeName, code_name
from .._core.errors import Notice, UserError, cut
from .._core.files import safe_name, sweep, write_bytes
from .._core.files.atomic import make_folder
from .._core.files.open_file import open_regular
from .._core.folder_kinds import is_onnx, is_zoo
from .._core.imported_files import imported_files
from .._core.source_files import SourceFiles
from .._core.user_code import all_files, function_of, in_one_line

__all__ = [
    "FOLDER",
    "ListedCode",
    "ShippedCode",
    "check_places",
    "check_shippable",
    "code_written",
    "listed_in",
    "opened",
    "remove_code",
    "shipped",
]

FOLDER = "code"
"""The folder in a release that holds its code."""
MOST_FILES, LARGEST_FILE, MOST_BYTES = 64, 1 << 20, 4 << 20
"""Maximum number of files, of bytes per file, and of bytes in all."""
LONGEST_CALL = 400
"""Maximum number of characters of the call that builds the network."""
DEEPEST = 8
_PART = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\.py")
_UNUSUAL = re.compile(r"[^ -~\t\n\f]")
_HASH = re.compile(r"[0-9a-f]{64}")
OTHERS = frozenset((
    "datafree", "torch", "torchvision", "timm", "numpy", "safetensors", "pydantic", "pydantic_core", "cyclopts", "PIL",
    "onnx", "onnxruntime", "torchao", "executorch", "sitecustomize", "usercustomize",
))  # fmt: skip
"""Packages that these names belong to, as those of Python's own modules do."""


@dataclass(frozen=True)
class ListedCode:
    """What config.json says of a release's code. Names and hashes have the right form."""

    call: str
    """`net.py:build(width=8)`"""
    files: Mapping[str, str]
    """Path below `code/` -> sha256. The first is the one that the call names."""

    @property
    def main(self) -> str:
        """The file that the call names."""
        return next(iter(self.files))

    def paths(self, release: Path) -> list[Path]:
        """The files in a release, the one that the call names first."""
        return [release / FOLDER / name for name in self.files]

    def config(self) -> dict[str, Any]:
        """The entry `code` of config.json."""
        return {"call": self.call, "files": dict(self.files)}


@dataclass(frozen=True)
class ShippedCode:
    """Code whose files were read and checked; nothing of it ran."""

    call: str
    """`net.py:build(width=8)`"""
    folder: Path
    """Where tracebacks look for the files."""
    contents: Mapping[str, bytes]
    """Path below the folder -> content, the file that the call names first."""
    release: Path | None = None
    """The release that holds the files; None for the publisher's own."""

    @property
    def listed(self) -> ListedCode:
        """The call and the hashes."""
        return ListedCode(self.call, {name: hashlib.sha256(data).hexdigest() for name, data in self.contents.items()})

    @property
    def name(self) -> CodeName:
        """The parts of the call."""
        code = code_name(self.call)
        assert code is not None
        return code

    @cached_property
    def _files(self) -> SourceFiles:
        return SourceFiles(
            self.folder, {name: data.decode("utf-8-sig") for name, data in self.contents.items()}, self.release
        )

    def function(self) -> Callable[..., Any]:
        """Runs the files, and returns the function or class that the call names.

        Raises UserError inside `without_code`, for code that fails, and for a function that is not defined in these files:
        `net.py:system` is refused where net.py imports it from elsewhere.
        """
        code = self.name
        with self.running():
            module = self._files.import_file(code.place)
        function = function_of(module, code)
        if not self._files.owns(function):
            raise UserError(
                f"code: got {cut(self.call)}, whose {code.attribute} is defined elsewhere, expected a function or class of "
                f"{', '.join(list(self.contents)[:4])}; write a function there that returns the network"
            )
        return function

    @contextmanager
    def running(self, note: str = "") -> Iterator[None]:
        """The code runs inside this block; any exception becomes a UserError of one line."""
        missing = "install it if it is a package; otherwise the release lacks a file, which its publisher has"
        with in_one_line(self.call, note, missing=missing), self._files.importable():
            yield


# -- what config.json says ------------------------------------------------------------


def listed_in(config: Mapping[str, Any], path: Path) -> ListedCode | None:
    """The code that a release's config.json (in `path`) names; None if it names none.

    Raises UserError for anything but a call of a function in one of a few Python files with hashes.
    """
    if "code" not in config:
        return None
    entry = config["code"]
    try:
        if not isinstance(entry, dict) or entry.keys() != {"call", "files"} or not isinstance(entry["files"], dict):
            raise UserError(f"got {cut(entry)!r}, expected an object with call and files")
        code, files = _checked_call(entry["call"]), entry["files"]
        _check_names(code.place, files)
        for name, digest in files.items():
            if not isinstance(digest, str) or not _HASH.fullmatch(digest):
                raise UserError(f"the sha256 of {name} is {cut(digest)!r}, expected 64 digits of 0-9 and a-f")
        if is_zoo(str(config.get("architecture"))):
            raise UserError(f"got it for {config['architecture']}, a network of the zoo, expected a custom network")
    except UserError as error:
        raise UserError(f"{path}: code: {error}; get it again") from None
    return ListedCode(entry["call"], _main_first(code.place, files))


def _main_first(main: str, files: Mapping[str, Any]) -> dict[str, Any]:
    return {main: files[main], **{name: files[name] for name in sorted(files) if name != main}}


def _checked_call(call: Any) -> CodeName:
    """The parts of `net.py:build(width=8)`. Raises UserError for another text."""
    code = code_name(call) if isinstance(call, str) and call.isprintable() and len(call) <= LONGEST_CALL else None
    if code is None or not code.is_file or not code.attribute.isidentifier():
        raise UserError(
            f"call: got {cut(call)!r}, expected file.py:function(name=value) of up to {LONGEST_CALL} characters"
        )
    code.keywords()
    return code


def _check_names(main: str, files: Mapping[Any, Any]) -> None:
    """Raises UserError unless these are relative paths of a few Python files, which no system reads as another path."""
    if not 0 < len(files) <= MOST_FILES:
        raise UserError(f"got {len(files):,} files, expected 1 to {MOST_FILES}")
    folded: dict[str, str] = {}
    for name in files:
        parts = name.split("/") if isinstance(name, str) else []
        stem = parts[-1].removesuffix(".py") if parts else ""
        is_module = bool(stem) and all(_PART.fullmatch(part) for part in (*parts[:-1], stem))
        is_main = name == main and _MAIN.fullmatch(name) is not None
        if not parts or not parts[-1].endswith(".py") or len(parts) > DEEPEST or not (is_module or is_main):
            raise UserError(
                f"got the file {cut(name)!r}, expected a module's name such as net.py or parts/blocks.py, of A-Z a-z 0-9 _"
            )
        for part in parts:
            safe_name(part)
        top = parts[0].removesuffix(".py")
        if top in sys.stdlib_module_names or top in OTHERS or top.startswith("__"):
            raise UserError(
                f"got the file {cut(name)!r}, whose module {top!r} is one of Python or of a package that datafree uses, "
                "expected another name"
            )
        for path in ("/".join(parts[:count]) for count in range(1, len(parts) + 1)):
            if folded.setdefault(path.lower(), path) != path:
                raise UserError(f"got {cut(path)!r} and {cut(folded[path.lower()])!r}, one path on some systems")
    if main not in files:
        raise UserError(f"call: got {cut(main)!r}, which is none of its files, expected one of {cut(list(files))}")


# -- opening -----------------------------------------------------------------------------


def opened(release: Path, listed: ListedCode) -> ShippedCode:
    """The files of a release's code, compared with their hashes. Runs nothing.

    Raises UserError for a file that is missing, a link, behind a link, too large, of other content, or no plain text.
    """
    contents: dict[str, bytes] = {}
    for name, path in zip(listed.files, listed.paths(release)):
        _check_folders(release, path)
        contents[name] = data = _content(path)
        _check_total(contents, path)
        if hashlib.sha256(data).hexdigest() != listed.files[name]:
            raise UserError(
                f"{path} has other content than its sha256 in config.json states, expected {listed.files[name][:12]}...; "
                "get the release again"
            )
        _check_text(data, path)
    return ShippedCode(listed.call, release / FOLDER, contents, release)


def _check_folders(release: Path, path: Path) -> None:
    """Raises UserError if a folder between the release and its file is a link or no folder."""
    folder = release
    for part in path.relative_to(release).parts[:-1]:
        folder = folder / part
        try:
            mode = folder.lstat().st_mode
        except OSError as error:
            raise UserError(f"cannot read {str(folder)!r}: {error.strerror}; get the release again") from None
        if not stat.S_ISDIR(mode):
            kind = "a link" if stat.S_ISLNK(mode) else "a file"
            raise UserError(f"{str(folder)!r} is {kind}, expected a folder with the release's code; get it again")


def _content(path: Path) -> bytes:
    with open_regular(path) as (file, size):
        if size > LARGEST_FILE:
            raise UserError(
                f"{path} has {size:,} bytes, expected at most {LARGEST_FILE:,} of Python; use a smaller file"
            )
        data = b""
        while len(data) <= LARGEST_FILE and (more := file.read(LARGEST_FILE + 1 - len(data))):
            data += more
    return data


def _check_total(contents: Mapping[str, bytes], path: Path) -> None:
    total = sum(map(len, contents.values()))
    if total > MOST_BYTES:
        raise UserError(
            f"{path}: the code has over {total:,} bytes, expected at most {MOST_BYTES:,}; use smaller files"
        )


def _check_text(data: bytes, path: Path) -> None:
    """Raises UserError for what an editor may show otherwise than Python reads it."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text (byte {error.start:,}), expected Python; save it as UTF-8") from None
    for match in _UNUSUAL.finditer(text):
        character = match[0]
        if character == "\r" and text[match.end() : match.end() + 1] == "\n":
            continue
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            raise UserError(
                f"{path}, line {text.count(chr(10), 0, match.start()) + 1}: got the invisible character {character!a}, "
                "expected plain text; remove it, or write it as an escape"
            )


# -- collecting the publisher's files ----------------------------------------------------------


def check_shippable(name: str, parameter: str = "code") -> CodeName:
    """The parts of `file.py:function`. Raises UserError for a network that is built otherwise."""
    code = code_name(name)
    if code is None or code.is_library or not code.is_file:
        reason = (
            "which is data and holds no code"
            if is_onnx(name)
            else f"which the package {code.place} builds, so that its name is enough"
            if code is not None and code.is_library
            else "which names a module"
            if code is not None
            else "which names no file"
        )
        raise UserError(
            f"{parameter}: got it with {cut(name)!r}, {reason}, expected file.py:function; leave it out"
            + (", or name the file" if code is not None and not code.is_library else "")
        )
    return code


def shipped(name: str) -> ShippedCode:
    """The files of the publisher's `file.py:function(...)`: its own, and the modules that it imports from its folder.

    Runs nothing. Files that it imports from elsewhere are left out, with a `Notice`. Raises UserError for another name, for
    arguments with a path, and for files that no release may hold.
    """
    code = check_shippable(name)
    if {"/", "\\"} & set(code.arguments):
        raise UserError(
            f"code: got the arguments {cut(code.arguments)}, expected none with a path, which is of this machine alone; put "
            "the value into the file"
        )
    main = Path(code.place).absolute()
    if not main.is_file():
        raise UserError(f"no file {code.place}, expected the Python file that builds the model; check the path")
    paths = {main, *(path.absolute() for path in all_files(code)), *imported_files(main)}
    inside = {path for path in paths if main.parent in path.parents}
    for path in sorted(paths - inside):
        warnings.warn(
            Notice(
                f"{main.name} imports {path.name} from another folder, which the release does not hold; a deployer needs it"
            ),
            stacklevel=3,
        )
    contents: dict[str, bytes] = {}
    try:
        call = f"{main.name}:{code.attribute}{code.arguments}"
        _checked_call(call)
        by_name = _main_first(main.name, {path.relative_to(main.parent).as_posix(): path for path in inside})
        _check_names(main.name, by_name)
    except UserError as error:
        raise UserError(f"code: {error}; change that, or leave the code out") from None
    for file in by_name:
        path = Path(code.place).parent / file
        contents[file] = data = _content(path.resolve())
        _check_total(contents, path)
        _check_text(data, path)
    return ShippedCode(call, main.parent, contents)


# -- writing -----------------------------------------------------------------------------------


def check_places(release: Path, code: ShippedCode | None, old: ListedCode | None) -> None:
    """Raises UserError where the code would replace a file of somebody's own, or be written through a link."""
    for name, data in {} if code is None else code.contents.items():
        path = release / FOLDER / name
        for folder in reversed(path.relative_to(release).parents):
            place = release / folder
            if folder.parts and (place.is_symlink() or (place.exists() and not place.is_dir())):
                raise UserError(f"{str(place)!r} is no folder, expected one for the release's code; remove it first")
        if not path.is_symlink() and not path.exists():
            continue
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{str(path)!r} is no plain file, expected one of the release's code; remove it first")
        if (old is None or name not in old.files) and _digest(path) != hashlib.sha256(data).hexdigest():
            raise UserError(
                f"{str(path)!r} is a file that no release of datafree is known to have written, and would be lost; remove "
                "it first, or name another folder"
            )


@contextmanager
def code_written(release: Path, code: ShippedCode | None) -> Iterator[None]:
    """Writes the files, each completely or not at all; if that or the block fails, removes those that were not there."""
    contents = {} if code is None else code.contents
    new = {
        name: hashlib.sha256(data).hexdigest()
        for name, data in contents.items()
        if not (release / FOLDER / name).exists()
    }
    try:
        for name, data in contents.items():
            path = release / FOLDER / name
            make_folder(path.parent)
            sweep(path.parent)
            write_bytes(path, data)
        yield
    except BaseException:
        remove_code(release, ListedCode("", new), None)
        raise


def remove_code(release: Path, old: ListedCode | None, new: ListedCode | None) -> None:
    """Removes the files that the release had and has no more, and folders that are empty then.

    A file of other content than the release stated is somebody's own, and stays.
    """
    for name, digest in {} if old is None else old.files.items():
        path = release / FOLDER / name
        with suppress(UserError, OSError):
            _check_folders(release, path)
            if (new is None or name not in new.files) and _digest(path) == digest:
                path.unlink()
                sweep(path.parent)
            for folder in [release / parent for parent in path.relative_to(release).parents if parent.parts]:
                folder.rmdir()  # fails if it holds something


def _digest(path: Path) -> str | None:
    """sha256 of a file; None for one that is too large to be code, or no file."""
    with suppress(UserError):
        return hashlib.sha256(_content(path)).hexdigest()
    return None
