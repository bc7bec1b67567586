"""Reads the fields of settings classes from their source files, so that --help and a wrong flag need no torch.

Most settings stand beside the code that uses them, which imports torch. Their fields, types, defaults and docstrings are
plain Python, so they are parsed here without running the file. `tests/commands/test_settings_source.py` compares the
result with the real classes of every family. A file that cannot be read this way is imported instead.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._core.version import FOLDER

__all__ = ["REQUIRED", "Field", "SettingsText", "family", "from_class", "read"]

PACKAGE = "datafree"
PLAIN = ("typing", "pathlib")
"""Modules whose names may be used in an annotation or a default."""
REQUIRED = object()
"""Default of a field that has none."""
ROOT = "datafree._core.settings"
"""Where the base of all settings is; nothing above it has fields."""


@dataclass(frozen=True)
class Field:
    """One field of a settings class."""

    name: str
    annotation: Any
    default: Any
    help: str


@dataclass(frozen=True)
class SettingsText:
    """What a command line needs to know of a settings class: `module:name`, its docstring, summary and fields.

    One that is not `offered` can be in files of earlier versions, but is no choice any more.
    """

    module: str
    name: str
    doc: str
    summary: str
    fields: tuple[Field, ...]
    offered: bool = True

    def load(self) -> Any:
        """The class itself; imports torch for most."""
        return getattr(importlib.import_module(self.module), self.name)


class Unreadable(Exception):
    """The source uses something that only running it can tell."""


def read(module: str, name: str) -> SettingsText:
    """The settings class `name` of `module`, such as "datafree.synthesis.expansion"."""
    try:
        value = _source(module).value(name)
        if not isinstance(value, _Class):
            raise Unreadable(name)
        return _text(value)
    except Unreadable:
        return from_class(getattr(importlib.import_module(module), name))


@functools.cache
def family(package: str, field: str) -> dict[str, SettingsText]:
    """By kind, the settings classes in a package's files that have `field` and are offered."""
    try:
        texts = dict(sorted(_members(package, field)))
    except Unreadable:
        kinds = importlib.import_module("datafree._core.settings").family(package, field)
        texts = {kind: from_class(cls) for kind, cls in kinds.items()}
    return {kind: text for kind, text in texts.items() if text.offered}


def from_class(cls: Any) -> SettingsText:
    """The same of a class that is there: one of the user's own, say."""
    fields = tuple(
        Field(name, field.annotation, _default(field), _joined(field.description or ""))
        for name, field in cls.model_fields.items()
    )
    return SettingsText(
        cls.__module__,
        cls.__name__,
        _joined(inspect.getdoc(cls) or ""),
        getattr(cls, "summary", ""),
        fields,
        getattr(cls, "offered", True),
    )


def _default(field: Any) -> Any:
    """The default of a pydantic field."""
    return REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _members(package: str, field: str) -> Iterator[tuple[str, SettingsText]]:
    folder = FOLDER.joinpath(*package.split(".")[1:])
    for path in sorted(folder.glob("*.py")):
        if path.stem == "__init__":
            continue
        source = _source(f"{package}.{path.stem}")
        for node in source.tree.body:
            if not isinstance(node, ast.ClassDef):
                continue
            cls = _Class(source, node)
            if not cls.is_settings():
                continue
            kind = cls.fields().get(field)
            if kind is not None and isinstance(kind.default, str):
                yield kind.default, _text(cls)


def _text(cls: _Class) -> SettingsText:
    fields = tuple(cls.fields().values())
    summary, offered = cls.variable("summary", ""), cls.variable("offered", True)
    return SettingsText(cls.source.name, cls.node.name, cls.doc(), summary, fields, offered)


@functools.cache
def _source(name: str) -> _Source:
    return _Source(name)


class _Source:
    """One source file of this package, parsed; names are resolved when they are asked for."""

    def __init__(self, name: str):
        base = FOLDER.joinpath(*name.split(".")[1:])
        is_package = base.is_dir()
        path = base / "__init__.py" if is_package else base.with_suffix(".py")
        self.name, self.package = name, name if is_package else name.rpartition(".")[0]
        try:
            self.tree = ast.parse(Path(path).read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError) as error:
            raise Unreadable(str(error)) from None
        self.names: dict[str, ast.stmt] = {}
        for node in self.tree.body:
            for defined in _defined(node):
                self.names[defined] = node

    def value(self, name: str) -> Any:
        """What a name of this file stands for: a `_Class` for a class of this package."""
        node = self.names.get(name)
        if isinstance(node, ast.ClassDef):
            return _Class(self, node)
        if isinstance(node, ast.ImportFrom):
            return self._imported(node, name)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            return self.evaluate(node.value)
        if node is None and hasattr(builtins, name):
            return getattr(builtins, name)
        raise Unreadable(name)

    def evaluate(self, expression: ast.expr) -> Any:
        """The value of an annotation or a default."""
        code = compile(ast.fix_missing_locations(ast.Expression(expression)), self.name, "eval")
        try:
            return eval(code, {"__builtins__": {}}, _Names(self))
        except (NameError, TypeError, AttributeError, ValueError) as error:
            raise Unreadable(str(error)) from None

    def _imported(self, node: ast.ImportFrom, name: str) -> Any:
        original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
        if node.level == 0 and node.module in PLAIN:
            return getattr(importlib.import_module(str(node.module)), original)
        parts = self.package.split(".")
        base = parts[: len(parts) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        if module.split(".")[0] != PACKAGE:
            raise Unreadable(f"{module}.{original}")
        return _source(module).value(original)


class _Names(dict[str, Any]):
    """The names of a file, as a namespace to evaluate in."""

    def __init__(self, source: _Source):
        super().__init__()
        self.source = source

    def __missing__(self, name: str) -> Any:
        return self.source.value(name)


@dataclass(frozen=True)
class _Class:
    """A class definition."""

    source: _Source
    node: ast.ClassDef

    def bases(self) -> list[_Class]:
        """The bases of this package, but for the base of all settings."""
        classes: list[_Class] = []
        for base in () if self.source.name == ROOT else self.node.bases:
            value = self.source.value(base.id) if isinstance(base, ast.Name) else None
            if isinstance(value, _Class):
                classes.append(value)
        return classes

    def is_settings(self) -> bool:
        """Whether the base of all settings is among its ancestors."""
        if self.source.name == ROOT:
            return self.node.name == "Settings"
        try:
            return any(base.is_settings() for base in self.bases())
        except Unreadable:  # a base from another package: no settings
            return False

    def fields(self) -> dict[str, Field]:
        """By name, in pydantic's order: those of the bases first."""
        fields: dict[str, Field] = {}
        for base in self.bases():
            fields.update(base.fields())
        body = self.node.body
        for place, node in enumerate(body):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name) or _is_class_variable(node):
                continue
            after = body[place + 1] if place + 1 < len(body) else None
            name = node.target.id
            annotation = self.source.evaluate(node.annotation)
            fields[name] = Field(name, annotation, self._default(node.value), _joined(_docstring(after)))
        return fields

    def doc(self) -> str:
        return _joined(ast.get_docstring(self.node) or "")

    def variable(self, name: str, default: Any) -> Any:
        """The class variable of that name, of this class or of a base."""
        for node in self.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
                return default if node.value is None else self.source.evaluate(node.value)
        for base in self.bases():
            value = base.variable(name, default)
            if value != default:
                return value
        return default

    def _default(self, value: ast.expr | None) -> Any:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Field":
            value = next((word.value for word in value.keywords if word.arg == "default"), None)
        if value is None:
            raise Unreadable("a field without a plain default")
        return self.source.evaluate(value)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _is_class_variable(node: ast.AnnAssign) -> bool:
    return "ClassVar" in {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""


def _joined(text: str) -> str:
    return " ".join(text.split())


def plain_type(annotation: Any) -> Any:
    """The annotation without None: `int` of `int | None`."""
    options = [option for option in typing.get_args(annotation) if option is not type(None)]
    is_union = type(None) in typing.get_args(annotation)
    return options[0] if is_union and len(options) == 1 else annotation
