"""Models named by code (`file.py:function` or `package.module:function`): parses the name and decides whether the code may
run. The loader and every check of a name use these functions. Does not import torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from .errors import UserError

__all__ = ["CodeName", "check_allowed", "code_allowed", "code_name", "without_code"]

_ALLOWED: ContextVar[bool] = ContextVar("allowed", default=True)


class CodeName(NamedTuple):
    """The place of the code, and the function or class in it that builds the network."""

    place: str
    """A path that ends in .py, or a dotted module name."""
    attribute: str

    @property
    def is_file(self) -> bool:
        return self.place.endswith(".py")

    def check(self) -> None:
        """Raises UserError if the name cannot be imported. Runs no code."""
        modules = self.place.split(".")
        if not self.attribute.isidentifier() or not (self.is_file or all(part.isidentifier() for part in modules)):
            raise UserError(
                f"model {f'{self.place}:{self.attribute}'!r} names no function, expected file.py:function or "
                "package.module:function; correct the name"
            )


def code_name(name: str) -> CodeName | None:
    """The two parts of a name, split at its last colon; None for a name without a colon, which runs no code."""
    place, colon, attribute = name.rpartition(":")
    return CodeName(place, attribute) if colon else None


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
