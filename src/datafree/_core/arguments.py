"""Checks the arguments of public functions against their annotations before any work starts."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import os
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel

from .errors import UserError, cut, unknown

__all__ = ["check_argument", "check_count", "check_fields", "check_paths", "checked"]

LARGEST_COUNT = (1 << 63) - 1
"""The largest count that Python, numpy and torch can index with."""
LONGEST_NAME, LONGEST_PATH = 255, 4096
"""The largest numbers of bytes in a name of a file and in a path."""

P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, but an argument that does not match its annotation raises UserError.

    Classes, settings, words of a Literal, numbers, paths, and the items of mappings, sequences and tuples are checked. `Any`
    and the signatures of callables are not. A path must be text that can name a file, and not be empty.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def check_and_call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:  # one too many or too few: Python's own message names the function
            return function(*args, **kwargs)
        hints = _hints(function)
        for name, value in arguments.items():
            if signature.parameters[name].kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
                check_argument(name, value, hints.get(name, Any))
                check_paths(name, value, hints.get(name, Any))
        return function(*args, **kwargs)

    return check_and_call


def check_fields(instance: Any, *names: str) -> None:
    """Like `checked`, for these fields of a dataclass (default: all). Call it in `__post_init__`."""
    hints = _hints(type(instance))
    for name in names or [field.name for field in dataclasses.fields(instance)]:
        check_argument(name, getattr(instance, name), hints[name])


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    """Raises UserError unless `value` is a whole number of at least `minimum`."""
    check_argument(name, value, int)
    if value < minimum:
        raise UserError(f"{name}: got {value}, expected at least {minimum}; give a larger number")
    if value > LARGEST_COUNT:
        raise UserError(f"{name}: got {cut(value)}, expected at most {LARGEST_COUNT:,}; give a smaller number")


def check_argument(name: str, value: Any, hint: Any) -> None:
    """Raises UserError unless `value` is of the type `hint`. The message names the item that is not."""
    if _fits(value, hint):
        return
    for part, item, item_type in _parts(name, value, hint):
        check_argument(part, item, item_type)
    words = [word for option in _options(hint) if get_origin(option) is Literal for word in get_args(option)]
    if words and isinstance(value, str):
        raise unknown(name, value, words)
    expected = " or ".join(_expected(option) for option in _options(hint))
    raise UserError(f"{name}: got {_in_words(value)}, expected {expected}; {_advice(value, _options(hint))}")


def check_paths(name: str, value: Any, hint: Any) -> None:
    """Raises UserError for text that no file can have as its path, where `hint` is of a path, or of a list of paths."""
    if not isinstance(value, (str, os.PathLike)):
        for part, item, item_type in _parts(name, value, hint):
            check_paths(part, item, item_type)
        return
    if Path not in _options(hint):
        return
    text = os.fspath(value)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError:
        encoded = b"\0"
    longest = max(map(len, encoded.split(b"/")))
    if not encoded:
        raise UserError(f"{name}: got an empty path, expected the path of a file or folder; give one, or '.'")
    if b"\0" in encoded:
        raise UserError(f"{name}: got {cut(ascii(text))}, expected a path, without NUL and lone surrogates; rename it")
    if longest > LONGEST_NAME or len(encoded) > LONGEST_PATH:
        raise UserError(
            f"{name}: got {cut(repr(text))}, expected a path of at most {LONGEST_PATH:,} bytes, with names of at most "
            f"{LONGEST_NAME}; give a shorter one"
        )


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    return get_type_hints(annotated)


def _options(hint: Any) -> tuple[Any, ...]:
    """The types of a union; for any other type, that type alone."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    options = _options(hint)
    if len(options) > 1:
        return any(_fits(value, option) for option in options)
    origin = get_origin(hint)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if hint in (int, float):
        number = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    if hint is bool:
        return isinstance(value, (bool, np.bool_))
    if hint is str:
        return isinstance(value, (str, os.PathLike))
    if origin is not None:
        is_kind = isinstance(value, (tuple, list) if origin is tuple else origin) and not isinstance(value, str)
        return (
            is_kind
            and _has_length(value, hint)
            and all(_fits(item, item_type) for _, item, item_type in _parts("", value, hint))
        )
    is_class = isinstance(hint, type) and (not getattr(hint, "_is_protocol", False) or _is_runtime(hint))
    return isinstance(value, hint) if is_class else True


def _is_runtime(protocol: type) -> bool:
    return bool(getattr(protocol, "_is_runtime_protocol", False))


def _has_length(value: Any, hint: Any) -> bool:
    return get_origin(hint) is not tuple or get_args(hint)[-1] is ... or len(value) == len(get_args(hint))


def _parts(name: str, value: Any, hint: Any) -> list[tuple[str, Any, Any]]:
    """(name, item, type) of each item of a mapping, sequence or tuple; the type is that of the matching option of a
    union.
    """
    for option in _options(hint):
        origin, inner_types = get_origin(option), get_args(option)
        if origin is Mapping and isinstance(value, Mapping):
            return [(f"{name}[{cut(key)!r}]", item, inner_types[1]) for key, item in value.items()]
        if origin is Sequence and isinstance(value, Sequence) and not isinstance(value, str):
            return [(f"{name}[{place}]", item, inner_types[0]) for place, item in enumerate(value)]
        if (
            origin is tuple
            and isinstance(value, (tuple, list))
            and inner_types[-1] is not ...
            and len(value) == len(inner_types)
        ):
            return [(f"{name}[{place}]", *pair) for place, pair in enumerate(zip(value, inner_types, strict=True))]
    return []


def _in_words(value: Any) -> str:
    if value is None or isinstance(value, (str, bool, numbers.Number)):
        return cut(repr(value))
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


PLAIN = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a pathlib.Path"}


def _expected(hint: Any) -> str:
    origin, inner_types = get_origin(hint), get_args(hint)
    if hint is type(None):
        return "None"
    if origin is Literal:
        return " or ".join(map(repr, inner_types))
    if origin is tuple and inner_types[-1] is not ...:
        return (
            f"a pair ({', '.join(_name(item) for item in inner_types)})"
            if len(inner_types) == 2
            else f"{len(inner_types)} values"
        )
    if origin is not None:
        words = {"Mapping": "a dict", "Sequence": "a list", "Callable": "a function"}
        return words.get(_name(origin)) or (
            f"a {_name(origin)}" if _name(origin).startswith("torch ") else _name(origin)
        )
    return PLAIN.get(hint) or f"{'an' if _name(hint)[0] in 'AEIO' else 'a'} {_name(hint)}"


def _name(hint: Any) -> str:
    if _is_tensor(hint):
        return "torch.Tensor"
    if len(options := _options(hint)) > 1:
        return " or ".join(map(_name, options))
    if hint is np.ndarray:
        return "numpy array"
    name = getattr(hint, "__name__", str(hint))
    return f"torch {name}" if str(getattr(hint, "__module__", "")).startswith("torch.utils.data") else name


def _is_tensor(hint: Any) -> bool:
    return isinstance(hint, type) and hint.__module__.startswith("torch") and hint.__name__ == "Tensor"


SOURCES = {
    "Network": "give what load_model or new_model returns, or Network(module, input_shape=..., classes=...)",
    "Record": "give what record or Record.load returns",
    "Dataset": "give what load_data returns, which reads folders of images and .npz files; or a torch Dataset, or "
    "(images, labels)",
    "InputSpec": "give an InputSpec(shape=..., classes=...)",
    "Quantized": "give what quantization.calibrate returns, or quantize(...).simulation",
    "SyntheticSet": "give what synthesize or SyntheticSet.open returns",
    "Source": "give what fresh_images, stored_images or soft_labelled returns, or StoredImages(spec, pixels, targets)",
    "Condensed": "give what condense, import_condensed or Condensed.open returns, or its path",
    "Synthesizer": "give what method(name) returns",
    "Statistic": "give what preset(name, network, data) returns",
    "Path": "give Path(...)",
}
"""Class -> how to get a value of it."""


def _advice(value: Any, options: tuple[Any, ...]) -> str:
    if any(map(_is_tensor, options)):
        if isinstance(value, np.ndarray):
            return "use torch.from_numpy(...)"
        if isinstance(value, (list, tuple)):
            return "use torch.tensor(...) or torch.stack(...)"
    if any(get_origin(option) is Mapping for option in options):
        return "give {name: value}"
    for option in (
        *options,
        *(kind for option_type in options for inner in get_args(option_type) for kind in _options(inner)),
    ):
        name = _name(option)
        if isinstance(option, type) and issubclass(option, BaseModel) and name not in SOURCES:
            return f"use {name}(**values)" if isinstance(value, Mapping) else f"give a {name}(...)"
        if name in SOURCES:
            is_name = name == "Synthesizer" and isinstance(value, str)
            return f"use method({cut(value)!r})" if is_name else SOURCES[name]
    return "give one of them" if any(get_origin(option) is Literal for option in options) else "give such a value"
