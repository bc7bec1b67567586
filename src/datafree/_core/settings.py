"""Frozen, validated settings: a method's fields are its flags, their docstrings the help, and runs store its dict."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from .errors import UserError, cut, unknown

__all__ = ["RENAMED", "Settings", "called_with", "family", "first_problem", "modern", "parse", "with_paths"]

RENAMED = {
    "caution": "warp_acceptance",
    "one_hot": "confidence",
    "robustness": "stability",
    "replayed": "replay_fraction",
    "sharpness": "disagreement_temperature",
    "steer": "latent_step",
    "unit": "chunk",
    **{
        key: key.replace(" ", "_")
        for key in (
            "accuracy on the data",
            "agreement on its own images",
            "agreement on probes",
            "agreement on what it learnt from",
            "agreement warning",
            "checked on",
            "fits 16 bits",
            "integer operators",
            "learns from",
            "left in float",
            "memory bytes",
            "packed bytes",
            "sha256 of images",
            "sha256 of start",
            "target cpu",
        )
    },
}
"""Old name -> new name of settings and of keys in logs that earlier versions wrote."""


class Settings(BaseModel):
    """The base of every method's configuration: immutable, without unknown fields, NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    later: ClassVar[dict[str, Any]] = {}
    """Fields that earlier versions lacked, and their defaults, at which they are not written: so their runs go on."""

    @model_serializer(mode="wrap")
    def _without_later(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {
            key: _ordered(getattr(self, key, value), value)
            for key, value in serialize(self).items()
            if key not in self.later or value != self.later[key]
        }

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _one_line(type(self), error) from None


def _ordered(value: Any, serialized: Any) -> Any:
    """A field's serialized value with its sets as sorted lists: their own order differs from process to process."""
    if isinstance(serialized, list) and isinstance(value, (list, tuple, set, frozenset)):
        parts = [_ordered(part, written) for part, written in zip(value, serialized)]
        if not isinstance(value, (set, frozenset)):
            return parts
        try:
            return sorted(parts)
        except TypeError:  # numbers and text, or tables
            numbers = sorted(part for part in parts if isinstance(part, (int, float)))
            return numbers + sorted((part for part in parts if not isinstance(part, (int, float))), key=repr)
    if isinstance(serialized, dict) and isinstance(value, dict):
        return {key: _ordered(part, written) for (key, written), part in zip(serialized.items(), value.values())}
    return serialized


def with_paths(settings: Any) -> Any:
    """The settings as JSON values, except that paths stay `Path`: a log states what is there instead of them."""
    return _with_paths(settings, settings.model_dump(mode="json"))


def _with_paths(value: Any, serialized: Any) -> Any:
    if isinstance(value, PurePath):
        return Path(value)
    if isinstance(serialized, dict):
        parts = value if isinstance(value, Mapping) else vars(value) if isinstance(value, BaseModel) else {}
        by_name = {str(key): part for key, part in parts.items()}
        return {key: _with_paths(by_name.get(key), written) for key, written in serialized.items()}
    if isinstance(serialized, list):
        if isinstance(value, (set, frozenset)) and any(isinstance(part, PurePath) for part in value):
            return [Path(written) for written in serialized]
        if isinstance(value, (list, tuple)):
            return [_with_paths(part, written) for part, written in zip(value, serialized)]
    return serialized


S = TypeVar("S", bound=BaseModel)

_SHORTER = {
    "a valid tuple": "a list or tuple of values",
    "a valid list": "a list or tuple of values",
    "a valid dictionary": 'a table, such as {"a": 1}',
    "match pattern": "text that matches",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}
_COUNTED = re.compile(r"^[A-Z]\w* should (?:have )?(.*?)(?: after validation, not \d+| characters?, not \d+)?$")


def parse(cls: type[S], values: Any, *, strict: bool = True) -> S:
    """The settings `cls` from `values`, a mapping from a JSON file. Raises UserError with the first problem.

    If `strict`, values must have the right JSON type: no text or `true` for a number, and no 1.0 for a whole number.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{cls.__name__} is {type(values).__name__}, expected a table of settings; get the file again")
    values = modern(dict(values))
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        raise _one_line(cls, error) from None
    if strict:
        _check_types(values, settings.model_dump(mode="json"))
    return settings


def called_with(
    cls: type[S], settings: S | Mapping[str, Any] | None, changes: Mapping[str, Any], function: Callable[..., Any]
) -> S | None:
    """The settings of a call of `function`, which takes them as a `cls`, a mapping, or not at all, and fields as keywords.

    Raises UserError for a mapping that does not fit, and for a keyword in `changes` that is no field.
    """
    for name in changes:
        if name not in cls.model_fields:
            parameters = inspect.signature(function).parameters
            keywords = [key for key, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
            raise unknown("argument", name, ["settings", *keywords, *cls.model_fields], function.__name__)
    return parse(cls, settings, strict=False) if isinstance(settings, Mapping) else settings


def modern(value: Any) -> Any:
    """A JSON value of any version with the present names of settings."""
    if isinstance(value, Mapping):
        return {
            (RENAMED[key] if key in RENAMED and RENAMED[key] not in value else key): modern(entry)
            for key, entry in value.items()
        }
    if isinstance(value, str) and value.startswith("{'"):  # settings as text, in the identity of a run
        return re.sub(r"'(\w+)': ", lambda key: f"'{RENAMED.get(key[1], key[1])}': ", value)
    return [modern(entry) for entry in value] if isinstance(value, list) else value


def _check_types(values: Mapping[str, Any], parsed: dict[str, Any]) -> None:
    """Raises UserError for a value that pydantic has converted to another JSON type."""
    for field, value in values.items():
        if field in parsed and not _same_type(value, parsed[field]):  # a later field at its default is not dumped
            raise UserError(f"{field}: got {cut(repr(value))}, expected {cut(repr(parsed[field]))}; give such a value")


def _same_type(value: Any, parsed: Any) -> bool:
    """Whether a JSON value has the type that it was parsed to; a whole number may stand for a float."""
    if isinstance(parsed, dict):
        return isinstance(value, Mapping) and all(_same_type(entry, parsed.get(key)) for key, entry in value.items())
    if isinstance(parsed, list):
        return isinstance(value, (list, tuple)) and all(map(_same_type, value, parsed))
    return type(value) is type(parsed) or (type(value) is int and type(parsed) is float)


def family(package: str, field: str) -> dict[str, type[Settings]]:
    """The settings classes in a package's modules that have `field`, by that field's default, sorted by name."""
    kinds = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        for value in vars(importlib.import_module(f"{package}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Settings) and field in value.model_fields:
                kinds[value.model_fields[field].default] = value
    return dict(sorted(kinds.items()))


def first_problem(error: ValidationError) -> str:
    """The first problem in a file's content as `field.part: message`, of about 200 characters at most."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place[:80]}: {problem['msg'].lower()[:120]}"


def _one_line(cls: type[BaseModel], error: ValidationError) -> UserError:
    problem = error.errors()[0]
    field, place, key = _parameter(cls, problem["loc"])
    if problem["type"] == "extra_forbidden":
        return unknown("setting", ".".join(map(str, problem["loc"])), cls.model_fields, cls.__name__)
    if problem["type"] == "missing":
        got, expected = (
            ("nothing", "a value, since it has no default")
            if place is None
            else (_short(problem["input"]), f"a number {place + 1} as well")
        )
        return UserError(f"{field}: got {got}, expected {expected}; give {'one' if place is None else 'such a value'}")
    expected = problem["msg"].removeprefix("Input should be ").removeprefix("Value error, ").split(", unable to")[0]
    expected = _COUNTED.sub(r"\1", expected)  # "Tuple should have at least 2 items after validation, not 1"
    for long, short in _SHORTER.items():
        expected = expected.replace(long, short)
    if not problem["loc"]:
        return UserError(f"the settings of {cls.__name__} do not fit together, expected {expected}; change one of them")
    got = _short(problem.get("input")) + (f" as number {place + 1}" if place is not None else "")
    got += f" for the key {cut(repr(key))}" if key is not None else ""
    return UserError(f"{field}: got {got}, expected {expected}; give such a value")


def _parameter(cls: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, int | None, int | str | None]:
    """The parameter that an error's location is of, its place in the parameter's list, and the key of a table.

    pydantic's location continues with the place in a tuple, the key of a table, or the type that was tried; these are no
    parameters.
    """
    names: list[str] = []
    model: Any = cls
    for part in location:
        if not (isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields):
            break
        names.append(str(part))
        model = model.model_fields[part].annotation
    remaining = location[len(names) :]
    parts = [part for part in typing.get_args(model) if part is not type(None)]
    if typing.get_origin(model) in (typing.Union, types.UnionType) and len(parts) == 1:
        model = parts[0]
    key = remaining[0] if remaining and typing.get_origin(model) is dict else None
    place = next((part for part in remaining[0 if key is None else 1 :] if isinstance(part, int)), None)
    return ".".join(names) or cls.__name__, place, key


def _short(value: Any) -> str:
    text = str(value) if isinstance(value, str) and value.strip("+-.0123456789e") == "" else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
