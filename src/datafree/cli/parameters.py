"""The library's errors name its parameters; those of the command line name flags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .._core.errors import UserError

__all__ = ["flags_named"]


@contextmanager
def flags_named(*parameters: str, **renamed: str) -> Iterator[None]:
    """Errors inside that begin with one of the parameters begin with its flag instead; `renamed` are parameter=flag."""
    flags = {name: name.replace("_", "-") for name in parameters} | renamed
    try:
        yield
    except UserError as error:
        name, colon, rest = str(error).partition(": ")
        if not colon or name not in flags:
            raise
        raise UserError(f"--{flags[name]}: {rest}") from None
