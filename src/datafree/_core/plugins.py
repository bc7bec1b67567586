"""Families of settings by name: built in, installed as a plug-in, or the user's own `file.py:Class`.

One `Family` for each kind of method (synthesis, condensing, alignment, replay, statistics). Only names that the user typed
import code; those in set.json, run.json or a record are looked up among the classes that are loaded already.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar, cast

from .code_names import CodeName, check_allowed, code_allowed, code_name
from .errors import Notice, UserError, cut, unknown
from .settings import Settings, family, parse
from .user_code import file_imports, import_code

__all__ = ["GROUP", "Family", "class_by_name"]

GROUP = "datafree.methods"
"""Group of the entry points that register plug-ins, under the name of the method: `mine = package.module:Class`."""

T = TypeVar("T")
_LOADED: dict[str, dict[str, type]] = {}
"""Custom classes and plug-ins that this process has used: package of the family -> name -> class."""
Stamp: TypeAlias = tuple[tuple[int, int], ...]
_FILES: dict[tuple[str, str], tuple[Stamp, type]] = {}
"""Classes of files, so that a name gives one class until its code changes: (path, class) -> (times and sizes, class)."""


def class_by_name(name: str, noun: str) -> type | None:
    """The class that `file.py:Class` or `package.module:Class` names; None for a name without a colon.

    The name must be one that the user typed, since its code is run. `noun` says what it is for, in messages. Raises
    UserError if it is missing, fails or is no class, and inside `without_code`.
    """
    code = code_name(name)
    if code is None:
        return None
    _check_name(name, code, noun)
    check_allowed(code.place)
    stamp = _stamp(code)
    stored = _FILES.get((code.place, code.attribute))
    if stamp is not None and stored is not None and stored[0] == stamp:
        return stored[1]
    module = import_code(code, noun)
    value = getattr(module, code.attribute, None)
    if not isinstance(value, type):
        names = [
            key for key, part in vars(module).items() if isinstance(part, type) and part.__module__ == module.__name__
        ]
        raise unknown("class", code.attribute, names, code.place)
    if (stamp := _stamp(code)) is not None:  # of what this import has noted, too
        _FILES[code.place, code.attribute] = stamp, value
    return value


def _check_name(name: str, code: CodeName, noun: str) -> None:
    try:
        code.check()
    except UserError:
        raise UserError(
            f"{noun} {cut(name)!r} names no class, expected file.py:Class or package.module:Class; correct the name"
        ) from None


def _stamp(code: CodeName) -> Stamp | None:
    """Time and size of the file and of those that it imports; None for a module, which Python itself caches, and for a
    missing file.
    """
    path = Path(code.place)
    if not code.is_file or not path.is_file():
        return None
    files = [path, *sorted(file_imports(path))]
    return tuple((status.st_mtime_ns, status.st_size) for status in (file.stat() for file in files))


@dataclass(frozen=True)
class Family(Generic[T]):
    """The classes of settings that do one job, told apart by the default of their `field`."""

    package: str
    """The package whose files define the built-in ones."""
    field: str
    """The setting whose default is a class's name."""
    noun: str
    """Name of such a class in messages: `synthesis method`."""
    needs: tuple[str, ...]
    """Attributes that every class has besides `field`; the last is the method by which this family's plug-ins are
    recognised.
    """

    def built_in(self) -> dict[str, type[Settings]]:
        """The classes of the package's files by name."""
        return family(self.package, self.field)

    def kinds(self) -> dict[str, type[Settings]]:
        """Every class by name: built in, and installed as plug-ins. A plug-in that fails is left out with a `Notice`."""
        classes = self.built_in()
        for point in self._points():
            if point.name in classes:
                continue
            try:
                plugin = self._plugin(point)
            except UserError as error:
                warnings.warn(Notice(str(error)), stacklevel=2)
                continue
            if plugin is not None:
                classes[point.name] = plugin
        return dict(sorted(classes.items()))

    def known(self, name: str) -> type | None:
        """The class of a name that comes from a file: built in, or one that this process has used. Imports nothing."""
        return self.built_in().get(name) or _LOADED.get(self.package, {}).get(name)

    def class_of(self, name: str) -> type[Settings]:
        """The class of a name that the user typed. Raises UserError if there is none, or if its code fails."""
        built_in = self.built_in()
        if name in built_in:
            return built_in[name]
        if (custom := class_by_name(name, self.noun)) is not None:
            return self._remembered(self._checked(custom, name))
        for point in self._points():
            if point.name == name and (plugin := self._plugin(point)) is not None:
                return plugin
        if (loaded := _LOADED.get(self.package, {}).get(name)) is not None:
            return loaded
        raise unknown(self.noun, str(name), self.kinds())

    def from_dict(self, values: Any, *, strict: bool = False, typed: bool = True) -> T:
        """Settings from a mapping whose `field` names their class. Raises UserError for an invalid name or setting.

        Values from a file are not `typed` by the user, so their name runs no code.
        """
        name = values.get(self.field) if isinstance(values, Mapping) else None
        if not isinstance(name, str):
            raise unknown(self.noun, str(name), self.built_in())
        kind = self.class_of(name) if typed else self.known(name)
        if kind is None:
            raise unknown(self.noun, name, self.built_in())
        class_name = kind.model_fields[self.field].default if name not in self.built_in() else name
        return cast(T, parse(kind, {**values, self.field: class_name}, strict=strict))

    def resolve(self, value: Any, name: str) -> T:
        """Settings given as a name, a mapping with `field`, or themselves; `name` is the parameter's, for messages.

        Raises UserError for anything else, saying what is missing.
        """
        if isinstance(value, str):
            return self.from_dict({self.field: value})
        if isinstance(value, Mapping):
            if self.field not in value:
                raise UserError(f"{name}: got settings without {self.field!r}; give {{{self.field!r}: NAME, ...}}")
            return self.from_dict(value)
        if isinstance(value, type):
            raise UserError(
                f"{name}: got the class {value.__name__}, expected its settings; give {value.__name__}(...)"
            )
        missing = self._missing(value)
        if missing is not None:
            raise UserError(
                f"{name}: got {type(value).__name__} without {missing!r}, expected a {self.noun}: one of "
                f"{', '.join(self.built_in())} by name, or settings with {', '.join((self.field, *self.needs))}"
            )
        self._remembered(type(value), str(getattr(value, self.field)))
        return cast(T, value)

    def _missing(self, value: Any) -> str | None:
        return next((part for part in (self.field, *self.needs) if not hasattr(value, part)), None)

    def _points(self) -> Iterator[EntryPoint]:
        """Installed plug-ins of every family; none inside `without_code`."""
        if code_allowed():
            yield from sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))

    def _plugin(self, point: EntryPoint) -> type[Settings] | None:
        """The class of an installed plug-in; None for one of another family. Raises UserError if its code fails."""
        origin = f"{point.dist.name} ({point.value})" if point.dist is not None else point.value
        try:
            value = point.load()
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"plug-in {point.name!r} of {origin} fails with {reason[:300]}; update or uninstall it"
            ) from error
        if not isinstance(value, type) or not hasattr(value, self.needs[-1]):
            return None
        if self.field not in getattr(value, "model_fields", {}):
            return None
        kind = self._checked(value, f"plug-in {point.name!r} of {origin}")
        if kind.model_fields[self.field].default != point.name:
            class_name = kind.model_fields[self.field].default
            raise UserError(
                f"plug-in {point.name!r} of {origin} has the {self.field} {class_name!r}, expected {point.name!r}; "
                "update or uninstall it"
            )
        return self._remembered(kind)

    def _checked(self, value: type, subject: str) -> type[Settings]:
        """The class. Raises UserError if it is no class of this family, or has the name of a built-in one."""
        if not issubclass(value, Settings):
            raise UserError(
                f"{subject}: {value.__name__} is no {self.noun}, expected a subclass of datafree.Settings; give it that base"
            )
        fields = value.model_fields
        name = fields[self.field].default if self.field in fields else None
        if not isinstance(name, str) or not name or not name.isprintable():
            raise UserError(
                f"{subject}: {value.__name__} has no name, expected the setting {self.field!r} with one as its default; add "
                f'{self.field}: Literal["my-name"] = "my-name"'
            )
        missing = next((part for part in self.needs if part not in fields and not hasattr(value, part)), None)
        if missing is not None:
            raise UserError(
                f"{subject}: {value.__name__} has no {missing!r}, expected {', '.join((self.field, *self.needs))} of a "
                f"{self.noun}; add it"
            )
        built_in = self.built_in().get(name)
        if built_in is not None and built_in is not value:
            raise UserError(f"{subject}: the {self.field} {name!r} is built in; give {value.__name__} another name")
        return value

    def _remembered(self, kind: Any, name: str | None = None) -> Any:
        """The class, which `known` finds from now on."""
        registered_name = str(kind.model_fields[self.field].default) if name is None else name
        if registered_name not in self.built_in():
            _LOADED.setdefault(self.package, {})[registered_name] = kind
        return kind
