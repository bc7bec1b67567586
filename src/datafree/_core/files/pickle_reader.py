"""Describes a torch state-dict pickle, opcode by opcode, without importing, calling or allocating anything that it names."""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Described", "Named", "Opaque", "Stream", "describe", "describe_stream"]

MAX_STEPS = 1_000_000  # a tensor takes about 45; a million steps take about a second
_MAX_NAME = 1024  # characters of a class's name; else each use of one long text would be a new copy
_IGNORED = {"PROTO", "FRAME"}
_CONSTANTS = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
}
_VALUES = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IDENTITY = 6
"""Maximum number of values that describe a storage: kind, class, key, location, number of values, view."""
_TENSORS = {"torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2"}
_TENSOR_TYPES = {"torch Tensor", "torch._tensor Tensor", "torch.nn.parameter Parameter", "torch.nn.parameter Buffer"}
_PARAMETERS = {"torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state"}


@dataclass(frozen=True)
class Named:
    """A class or function named in the pickle, as 'module name'. It is never imported."""

    name: str


@dataclass(frozen=True, eq=False)
class Opaque:
    """An object that unpickling would create by calling `name`."""

    name: str


@dataclass(frozen=True, eq=False)
class Described:
    """A tensor as declared, unchecked: the storage's class and key, and offset, shape and strides in elements."""

    storage: str
    key: str
    offset: Any
    shape: Any
    strides: Any


@dataclass(frozen=True, eq=False)
class _Storage:
    name: str
    key: str


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    storages: dict[str, str] = field(default_factory=dict)
    items: int = 0
    """Items of lists that were copied to dicts. One list can be copied many times."""


@dataclass(frozen=True, eq=False)
class Stream:
    """The first pickle in some bytes: its content, its number of bytes, and the class of each storage by key."""

    content: Any
    length: int
    storages: dict[str, str]


def describe(data: bytes) -> Any:
    """The object in a pickle, with `Described` for tensors and `Opaque` for all other objects.

    Raises ValueError if it is not readable. Dict keys are only strings and integers, since hashing nested shared
    tuples takes exponential time.
    """
    return describe_stream(data).content


def describe_stream(data: bytes | bytearray) -> Stream:
    """Like `describe`, for bytes that may go on behind the pickle."""
    machine = _Machine()
    try:
        for step, (opcode, argument, position) in enumerate(pickletools.genops(bytes(data))):
            if step > MAX_STEPS:
                raise ValueError(f"more than {MAX_STEPS:,} steps")
            if opcode.name == "STOP":
                return Stream(machine.stack.pop(), (position or 0) + 1, machine.storages)
            _step(machine, opcode.name, argument)
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"its opcodes do not fit together ({type(error).__name__})") from None
    raise ValueError("it has no end")


def _step(machine: _Machine, name: str, argument: Any) -> None:
    stack = machine.stack
    if name in _CONSTANTS:
        stack.append(_VALUES.get(name, argument))
    elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_SET"):
        stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}.get(name, lambda: Opaque("set"))())
    elif name == "MARK":
        machine.marks.append(stack)
        machine.stack = []
    elif name in ("TUPLE", "APPENDS", "SETITEMS", "ADDITEMS"):
        machine.stack = machine.marks.pop()
        _collect(machine.stack, name, stack)
    elif name in _TUPLES:
        _collect(stack, "TUPLE", [stack.pop() for _ in range(_TUPLES[name])][::-1])
    elif name == "APPEND":
        _collect(stack, "APPENDS", [stack.pop()])
    elif name == "SETITEM":
        _collect(stack, "SETITEMS", [stack.pop() for _ in range(2)][::-1])
    elif name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
        machine.memo[len(machine.memo) if name == "MEMOIZE" else argument] = stack[-1]
    elif name in ("BINGET", "LONG_BINGET", "GET"):
        stack.append(machine.memo[argument])
    elif name not in _IGNORED:
        _make(machine, name, argument)


def _collect(stack: list[Any], name: str, items: list[Any]) -> None:
    if name == "TUPLE":
        stack.append(tuple(items))
    elif isinstance(stack[-1], list) and name == "APPENDS":
        stack[-1].extend(items)
    elif isinstance(stack[-1], dict) and name == "SETITEMS":
        _set_items(stack[-1], zip(items[::2], items[1::2]))


def _set_items(target: dict[Any, Any], pairs: Any) -> None:
    for key, value in pairs:
        if type(key) not in (str, int):
            key = Opaque("key")  # hashed by identity; a state dict with such a key is refused later, by name
        if key in target:
            raise ValueError(f"key {str(key)[:80]!r} occurs twice")
        target[key] = value


def _make(machine: _Machine, name: str, argument: Any) -> None:
    stack = machine.stack
    if name == "GLOBAL":
        stack.append(Named(argument))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        if len(module) + len(attribute) > _MAX_NAME:
            raise ValueError("a class has a name that is too long")
        stack.append(
            Named(" ".join((module, attribute)))
        )  # join accepts only strings; the text of nested tuples may be huge
    elif name == "BINPERSID":
        identity = stack.pop()
        if not isinstance(identity, tuple) or len(identity) > _IDENTITY:
            raise ValueError("a storage is described in a way that torch does not use")
        stack.append(_persistent(machine, *identity))
    elif name == "BUILD":
        stack.pop()
    elif name in ("REDUCE", "NEWOBJ"):
        arguments = stack.pop()
        stack.append(_called(machine, stack.pop(), arguments))
    else:
        raise ValueError(f"opcode {name} has no place in a state dict")


def _persistent(machine: _Machine, kind: Any, first: Any, key: Any, *further: Any) -> Any:
    """A storage, or the class of a whole module in files from before torch 1.6."""
    if kind == "module":
        return first
    if not isinstance(key, str):
        raise ValueError("a storage has a key that is no string")
    if len(further) > 2 and further[2] is not None:  # location, number of values, view
        raise ValueError("a storage is a view of another one, which torch has not written since 0.4")
    machine.storages[key] = first.name
    return _Storage(first.name, key)


def _called(machine: _Machine, function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, Named) else "an object"
    if name == "collections OrderedDict":
        return _ordered(machine, arguments)
    if name == "collections defaultdict":
        return {}
    if name == "torch._tensor _rebuild_from_type_v2":  # a tensor with attributes of its own, or of a subclass
        rebuild, kind, inner = arguments[:3]
        is_tensor = isinstance(kind, Named) and kind.name in _TENSOR_TYPES
        is_plain = isinstance(rebuild, Named) and rebuild.name in _TENSORS | _PARAMETERS
        return _called(machine, rebuild, inner) if is_tensor and is_plain else Opaque(name)
    if name in _TENSORS:
        storage, offset, shape, strides = arguments[:4]
        if len(arguments) > 6 and arguments[6]:  # its values are the negative or conjugate of the stored ones
            return Opaque(f"{name} of a negated or conjugated view")
        return Described(storage.name, storage.key, offset, shape, strides)
    if name in _PARAMETERS:
        return arguments[0]
    return arguments[0] if name == "torch Size" else Opaque(name)


def _ordered(machine: _Machine, arguments: Any) -> Any:
    """An OrderedDict, empty or, as Python 2 wrote it, with a list of its items."""
    table: dict[Any, Any] = {}
    if arguments:
        (items,) = arguments
        machine.items += len(items)
        if machine.items > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS:,} items")
        if not isinstance(items, list) or not all(isinstance(item, list) and len(item) == 2 for item in items):
            return Opaque("collections OrderedDict")
        _set_items(table, items)
    return table
