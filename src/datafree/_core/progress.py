"""How far a long job is: every verb takes a `Progress`, the command line gives one that shows a bar and an estimate."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[int, int], None]
"""Called with (done, total) from the thread that started the job."""


def silent(done: int, total: int) -> None:
    """Shows nothing."""
