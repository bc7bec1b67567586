"""Notices of a command: one line each on standard error, each once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .._core.distributed import first_started
from .._core.errors import Notice
from .flags import FLAGS, translated
from .terminal import Stream

__all__ = ["shown_notices"]


@contextmanager
def shown_notices(flags: Mapping[str, str]) -> Iterator[None]:
    """Prints what is warned of as a `Notice` inside, with `flags` for parameters; other warnings are left alone.

    `in_flags` then has these flags.
    """
    printed: set[str] = set()
    with warnings.catch_warnings():
        other = warnings.showwarning
        warnings.simplefilter("always", Notice)

        def show(message: Any, category: type[Warning], *details: Any, **named: Any) -> None:
            if not issubclass(category, Notice):
                other(message, category, *details, **named)
            elif str(message) not in printed and first_started():
                printed.add(str(message))
                Stream(sys.stderr, lines=True).write(f"datafree: note: {translated(str(message), flags)}\n")

        warnings.showwarning = show
        token = FLAGS.set(flags)
        try:
            yield
        finally:
            FLAGS.reset(token)
