"""Progress of a long job: every verb takes a `Progress`; that of the command line shows a bar and the time left."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[int, int], None]
"""Called with (done, total) from the thread that started the job."""


def silent(done: int, total: int) -> None:
    """Shows nothing."""
