"""Options of a command that come from settings classes, for the CLI library to parse and to show in --help."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from cyclopts import Group, Parameter, Token

from .._core.errors import UserError
from .flags import flag_of
from .settings_source import REQUIRED, Field, SettingsText

__all__ = ["Given", "check_early", "check_kind", "check_names", "flattened", "of_kinds", "of_settings", "values"]

REPEAT = "Repeat it for more than one, or give a JSON list."
"""How a list is given, for the help."""
WITHOUT_TORCH = ("datafree.distillation.schedule", "datafree.quantization.settings", "datafree.releases.bits")
"""Modules of settings that import no torch."""


RESERVED = ("--help", "--json", "--log", "--model", "--verbose", "--version")
"""Flags of every command, and the key of the network in logs."""


class Given:
    """The options that a user gave, by field; the settings class itself has the defaults and checks the values."""

    text: ClassVar[SettingsText | None] = None
    """The settings class that the options are of, where they are of one."""

    def __init__(self, **given: Any):
        self.given = given


def values(options: Given | None) -> dict[str, Any]:
    """The options that were given; none for a command line without any."""
    return {} if options is None else options.given


def of_settings(
    text: SettingsText,
    *,
    without: Iterable[str] = (),
    group: Group | None = None,
    flags: Mapping[str, str] | None = None,
) -> Any:
    """A class of options with a flag for each field, but for those `without`; `flags` has those of another name here."""
    names = flags or {}
    fields = [field for field in text.fields if field.name not in without]
    rows = [(field, names.get(field.name) or flag_of(text.name, field.name), field.help) for field in fields]
    options = _options(text.name, rows, group)
    options.text = text
    return options


def flattened(options: Any) -> Parameter:
    """How a command takes these options: each as a flag of its own, and nothing where the class has none."""
    return Parameter(name="*") if dataclasses.fields(options) else Parameter(parse=False)


def check_early(options: Given) -> None:
    """Raises UserError for a value that is off, where telling so takes no import of torch."""
    if options.text is not None and options.text.module in WITHOUT_TORCH:
        options.text.load()(**options.given)


def of_kinds(kinds: Mapping[str, SettingsText], *, without: Iterable[str] = (), group: Group | None = None) -> Any:
    """A class of options with the fields of all kinds; a field that not every kind has names those that have it."""
    rows: dict[str, tuple[Field, str, str]] = {}
    for text in kinds.values():
        for field in text.fields:
            if field.name not in without and field.name not in rows:
                owners = _owners(kinds, field.name)
                note = "" if len(owners) == len(kinds) else f" Only for {', '.join(owners)}."
                rows[field.name] = (field, flag_of(text.name, field.name), field.help + note)
    return _options("Kinds", list(rows.values()), group)


def check_kind(options: Given | None, kind: str, kinds: Mapping[str, SettingsText], choice: str) -> None:
    """Raises UserError for an option that the chosen kind does not have."""
    for name in values(options):
        if name not in {field.name for field in kinds[kind].fields}:
            owners = _owners(kinds, name)
            flag = flag_of(kinds[owners[0]].name, name)
            raise UserError(
                f"{flag}: got it with {choice} {kind}, expected {choice} {' or '.join(owners)}; leave it out"
            )


def check_names(word: str, text: SettingsText, command: Callable[..., None], verb: str, options: str) -> None:
    """Raises UserError for a field of a class of the user's own that the command could not set, as it is called like an
    option of the command itself. `options` is the command's parameter that holds the options of the class.
    """
    command_flags: set[str] = set(RESERVED)
    class_flags: dict[str, str] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        kind = _without_none(_unannotated(parameter.annotation))
        if not dataclasses.is_dataclass(kind):
            command_flags.add(flag_of("", name))
            continue
        flags = {field.name: _flag(field) for field in dataclasses.fields(kind)}
        if name == options:
            class_flags = flags
        else:
            command_flags |= set(flags.values())
    for field in text.fields:
        flag = class_flags.get(field.name)
        if flag in command_flags:
            raise UserError(
                f"{word} has a setting {field.name!r}, expected another name, since {flag} is an option of {verb} itself; "
                "rename it"
            )


def _flag(field: dataclasses.Field[Any]) -> str:
    """The flag of a field in a class of options."""
    for part in getattr(field.type, "__metadata__", ()):
        if isinstance(part, Parameter) and part.name:
            return part.name if isinstance(part.name, str) else next(iter(part.name))
    return flag_of("", field.name)


def _unannotated(annotation: Any) -> Any:
    """The type X of `Annotated[X, ...]`."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is Annotated else annotation


def _owners(kinds: Mapping[str, SettingsText], field: str) -> list[str]:
    return [kind for kind, text in kinds.items() if field in {field_text.name for field_text in text.fields}]


def _options(name: str, rows: Sequence[tuple[Field, str, str]], group: Group | None) -> Any:
    fields = []
    for field, flag, text in rows:
        options: dict[str, Any] = {"name": flag, "help": text}
        if field.default is REQUIRED:
            options["required"] = True
        if group is not None:
            options["group"] = group
        kind = field.annotation
        if _is_list(kind):
            kind = tuple[str, ...]
            options |= {
                "converter": _as_list(_choices(field.annotation)),
                "show_default": _json,
                "negative": "",
                "help": f"{text} {REPEAT}".strip(),
            }
        elif _is_container(kind):
            kind = str
            options |= {"converter": _as_json, "show_default": _json, "help": f"{text} As JSON.".strip()}
        elif kind is not bool:
            options["converter"] = _as_written(_choices(kind))
        fields.append((field.name, Annotated[kind, Parameter(**options), _Unchecked()], _default(field.default)))
    cls = dataclasses.make_dataclass(name, fields, bases=(Given,), init=False, repr=False, eq=False)
    cls.__module__ = __name__  # cyclopts takes classes of the standard library for plain values
    return cls


def _default(value: Any) -> Any:
    """The default of an option, as a field of a dataclass, which takes no table or list as it is."""
    if value is REQUIRED:
        return dataclasses.field()
    if type(value).__hash__ is None:
        return dataclasses.field(default_factory=lambda: value)
    return dataclasses.field(default=value)


def _is_list(annotation: Any) -> bool:
    """Whether an option holds a list of single values, and nothing else, or None."""
    annotation = _without_none(annotation)
    kind, parts = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    return kind in (list, tuple, set, frozenset) and not any(map(_is_container, parts))


def _without_none(annotation: Any) -> Any:
    """The type X of `X | None`; any other annotation as it is."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return parts[0] if is_union and len(parts) == 1 else annotation


def _is_container(annotation: Any) -> bool:
    """Whether an option holds several values, which are written as JSON."""
    kinds = (dict, list, tuple, set, frozenset)
    if annotation in kinds or typing.get_origin(annotation) in kinds:
        return True
    return any(
        _is_container(part) for part in typing.get_args(annotation) if typing.get_origin(annotation) is not Literal
    )


def _json(value: Any) -> str:
    """A default as the JSON that would give it; empty for None."""
    if value is None:
        return ""
    return json.dumps(value, default=lambda part: sorted(part) if isinstance(part, (set, frozenset)) else str(part))


class _Unchecked:
    """Keeps cyclopts from asking pydantic, where that is imported already: the settings class checks the text."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, str]:
        return {"type": "any"}


def _choices(annotation: Any) -> dict[str, Any]:
    """By its text, each choice of an annotation that is no text, such as those of `Literal[1, 2]`.

    A choice that is text itself stands before another that is written alike.
    """
    if typing.get_origin(annotation) is Literal:
        values = typing.get_args(annotation)
    else:
        return {text: value for part in typing.get_args(annotation) for text, value in _choices(part).items()}
    texts = {value for value in values if isinstance(value, str)}
    chosen: dict[str, Any] = {}
    for value in (value for value in values if not isinstance(value, str)):
        words = [str(value), str(value).lower()] if isinstance(value, bool) else [str(value)]
        chosen |= {word: value for word in words if word not in texts and word not in chosen}
    return chosen


def _as_written(choices: dict[str, Any]) -> Callable[[Any, Sequence[Token]], Any]:
    """Keeps the text, which the settings class converts and checks, so that a value is judged in one place; but for the
    `choices`, which pydantic does not find by their text.
    """
    return lambda _, tokens: choices.get(tokens[0].value, tokens[0].value)


def _as_list(choices: dict[str, Any]) -> Callable[[Any, Sequence[Token]], Any]:
    """The values of a repeated flag, or those of one JSON list; each as it is written, for the settings class to convert."""

    def converted(_: Any, tokens: Sequence[Token]) -> Any:
        values = [token.value for token in tokens]
        if len(values) == 1 and isinstance(listed := _as_json(_, tokens), list):
            return listed
        return [choices.get(value, value) for value in values]

    return converted


def _as_json(_: Any, tokens: Sequence[Token]) -> Any:
    """A list or table from JSON text; other text as it is, which the settings class then refuses."""
    try:
        return json.loads(tokens[0].value)
    except ValueError:
        return tokens[0].value
