"""Models named by code: `file.py:function`, `package.module:function`, `timm:NAME` or `torchvision:NAME`, any of them with
arguments, as in `net.py:build(width=8)`. Parses the name and decides whether the code may run. The loader and every check of
a name use these functions. Does not import torch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from .errors import UserError, cut

__all__ = ["LIBRARIES", "CodeName", "check_allowed", "code_allowed", "code_name", "with_arguments", "without_code"]

LIBRARIES = ("timm", "torchvision", "transformers")
"""Packages whose networks have names of their own; those of transformers are folders, those of timm may be."""
_NAME = re.compile(r"(?P<place>.*?\.py|[\w.]*):(?P<attribute>[^:()]*)(?P<arguments>\(.*\))?", re.DOTALL)
_CALL = re.compile(r"\(\s*([^\W\d]\w*\s*=.*)?\)", re.DOTALL)
"""Parentheses with arguments by name; a folder's name may end in others, as in `teacher (1)`."""
_LIBRARY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=True)


class CodeName(NamedTuple):
    """The place of the code, the function or class in it that builds the network, and the arguments of the call."""

    place: str
    """A path that ends in .py, a dotted module name, or one of `LIBRARIES`."""
    attribute: str
    arguments: str = ""
    """`(width=8)`, as in the name; empty without parentheses."""

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py")

    @property
    def is_library(self) -> bool:
        return self.place in LIBRARIES

    @property
    def is_folder(self) -> bool:
        """Whether the name is `transformers:FOLDER` or `timm:./FOLDER`; a folder of timm has a slash in its name."""
        return self.place == "transformers" or (self.place == "timm" and bool({"/", "\\"} & set(self.attribute)))

    def keywords(self) -> dict[str, Any]:
        """The arguments by name. Raises UserError unless they are keywords with literal values. Runs no code."""
        try:
            call = ast.parse(f"f{self.arguments or '()'}", mode="eval").body
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
                raise ValueError
            if any(part.arg is None for part in call.keywords):
                raise ValueError
            values = {str(part.arg): ast.literal_eval(part.value) for part in call.keywords}
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            raise UserError(
                f"arguments: got {cut(self.arguments)}, expected name=value with numbers, text in quotes, True, False, "
                "None, lists or tables; correct them"
            ) from None
        if len(values) < len(call.keywords):
            raise UserError(f"arguments: got one twice in {cut(self.arguments)}, expected each once; leave one out")
        return values

    def check(self) -> None:
        """Raises UserError if the name cannot be imported. Runs no code."""
        self.keywords()
        if self.is_folder:
            return
        if self.is_library:
            if not _LIBRARY_NAME.fullmatch(self.attribute):
                raise UserError(
                    f"model {f'{self.place}:{self.attribute}'!r} names no network of {self.place}, expected a name such as "
                    f"{self.place}:resnet18; correct it"
                )
            return
        modules = self.place.split(".")
        if not self.attribute.isidentifier() or not (self.is_file or all(part.isidentifier() for part in modules)):
            raise UserError(
                f"model {f'{self.place}:{self.attribute}'!r} names no function, expected file.py:function or "
                "package.module:function; correct the name"
            )


def code_name(name: str) -> CodeName | None:
    """The parts of a name; None for a name without a colon, which runs no code."""
    match = _NAME.fullmatch(name)
    if match is None:
        place, colon, attribute = name.rpartition(":")
        return CodeName(place, attribute) if colon else None
    code = CodeName(match["place"], match["attribute"], match["arguments"] or "")
    if code.is_folder and not _CALL.fullmatch(code.arguments):
        return CodeName(code.place, code.attribute + code.arguments)
    return code


def with_arguments(name: str, arguments: Sequence[str]) -> str:
    """The name with further arguments, `NAME=VALUE` each. A value that is no Python literal is text.

    Raises UserError for other arguments, and for a name that runs no code.
    """
    code = code_name(name)
    if not arguments:
        return name
    if code is None:
        raise UserError(
            f"arg: got {cut(arguments[0])} with {cut(name)!r}, expected a network of your own code, of timm or of "
            "torchvision; leave it out"
        )
    values = code.keywords()
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"arg: got {cut(argument)!r}, expected NAME=VALUE, such as num_classes=10; correct it")
        if key in values:
            raise UserError(f"arg: got {key} twice, expected each argument once; leave one out")
        try:
            values[key] = ast.literal_eval(text)
        except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
            values[key] = text
    listed = ", ".join(f"{key}={value!r}" for key, value in values.items())
    return f"{code.place}:{code.attribute}({listed})"


@contextmanager
def without_code() -> Iterator[None]:
    """Inside this block `check_allowed` refuses, because the names come from a file and not from the user."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def code_allowed() -> bool:
    """Whether the user's code may run: not inside `without_code`."""
    return _ALLOWED.get()


def check_allowed(place: str) -> None:
    """Raises UserError inside `without_code`. Called right before a user's code is imported, and nowhere else."""
    if not code_allowed():
        raise UserError(
            f"that command runs the code {place!r}, which datafree rerun does only with --trust; add it if the code is "
            "yours, or you have read it"
        )
