"""Imports Python code from texts in memory: of a folder of somebody else's, only the files that were checked can run."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from threading import RLock
from types import ModuleType
from typing import Any

from .code_names import check_allowed
from .imported_files import is_installed
from .user_code import note_user_code

__all__ = ["SourceFiles"]


@dataclass(frozen=True, eq=False)
class SourceFiles:
    """Python files of one program. They import each other by their names below `folder`, and whatever is installed.

    Nothing is read from `folder`, also not its `__pycache__`, and it is never on `sys.path`. The modules are of this object
    alone: another program, or the user, may have modules of the same names.
    """

    folder: Path
    """Where tracebacks look for the files."""
    texts: Mapping[str, str]
    """Path below the folder, with `/` -> source."""
    closed: Path | None = None
    """A folder of which the files import nothing else, also where `sys.path` has it as the working directory."""
    _modules: dict[str, ModuleType] = field(default_factory=dict, init=False)
    """The imported modules, as in `sys.modules`."""
    _active: list[bool] = field(default_factory=list, init=False)
    _lock: Any = field(default_factory=RLock, init=False)

    def import_file(self, name: str) -> ModuleType:
        """Runs a file as a module of a unique name. Raises UserError inside `without_code`, and what the code raises."""
        path = self.folder / name
        check_allowed(str(path))
        for file in self.texts:
            note_user_code(self.folder / file)
        digest = sha256(repr((str(path), sorted(self.texts.items()))).encode("utf-8", "surrogateescape")).hexdigest()
        spec = self._spec(f"datafree_code_{path.stem}_{digest[:12]}", name)
        module = module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up there
        with self.importable():
            _Loader.of(spec).exec_module(module)
        return module

    def owns(self, function: Any) -> bool:
        """Whether a function or class was defined in these files, according to its module."""
        name = str(getattr(function, "__module__", ""))
        module = self._modules.get(name) or sys.modules.get(name)
        loader = getattr(getattr(module, "__spec__", None), "loader", None)
        return isinstance(loader, _Loader) and loader.files is self

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Inside, an import of one of the files' names finds that file; modules of these names are hidden meanwhile."""
        with self._lock:
            if self._active:
                yield
                return
            hidden = self._loaded()
            for name in hidden:
                del sys.modules[name]
            sys.modules.update(self._modules)
            sys.meta_path.insert(0, self)  # type: ignore[arg-type]
            self._active.append(True)
            try:
                yield
            finally:
                self._active.clear()
                sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
                self._modules.clear()
                self._modules.update(self._loaded())
                for name in self._modules:
                    del sys.modules[name]
                sys.modules.update(hidden)

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        """The file or package of a module's name, as `sys.meta_path` asks for it; None for other modules."""
        base = name.replace(".", "/")
        for file, is_package in ((f"{base}/__init__.py", True), (f"{base}.py", False)):
            if file in self.texts:
                return self._spec(name, file, is_package=is_package)
        if not any(file.startswith(f"{base}/") for file in self.texts):
            return None
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = []
        return spec

    def _spec(self, name: str, file: str, *, is_package: bool = False) -> ModuleSpec:
        path = str(self.folder / file)
        spec = ModuleSpec(name, _Loader(self, self.texts[file], path), origin=path, is_package=is_package)  # type: ignore[arg-type]
        spec.has_location = True
        return spec

    def _is_own(self, name: str) -> bool:
        return name.partition(".")[0] in self._own_names()

    def _own_names(self) -> set[str]:
        """The first parts of the files' module names."""
        files = {file.removesuffix(".py") for file in self.texts if file.endswith(".py") and "/" not in file}
        return files | {file.partition("/")[0] for file in self.texts if "/" in file}

    def _loaded(self) -> dict[str, ModuleType]:
        names = self._own_names()
        return {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}

    def _is_closed(self, top: str) -> bool:
        """Whether the import of a module that is not loaded would find a file of the closed folder."""
        if self.closed is None or top in sys.modules:
            return False
        try:
            spec = find_spec(top)
        except (ImportError, ValueError):
            return False
        places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
        closed = self.closed.resolve()
        return any(closed in Path(place).resolve().parents and not is_installed(Path(place)) for place in places)

    def import_name(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        """The files' `__import__`, which also finds them in an import that runs later, inside a forward pass."""
        if level == 0 and not self._is_own(name):
            if self._is_closed(name.partition(".")[0]):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        with self.importable():
            return builtins.__import__(name, globals, locals, fromlist or (), level)


@dataclass(frozen=True, eq=False)
class _Loader:
    """Runs one text as a module; tracebacks show its lines."""

    files: SourceFiles
    text: str
    path: str

    @staticmethod
    def of(spec: ModuleSpec) -> _Loader:
        assert isinstance(spec.loader, _Loader)
        return spec.loader

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves it to Python to make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        # a string: a file's own statement of its encoding would let it run something else than what an editor shows
        program = compile(self.text, self.path, "exec", dont_inherit=True)
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self.files.import_name}
        exec(program, module.__dict__)

    def get_source(self, _: str) -> str:
        return self.text
