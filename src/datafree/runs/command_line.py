"""The command line being run, for run.json; empty for a call from Python. Free of torch."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["ARGV"]

ARGV: ContextVar[tuple[str, ...]] = ContextVar("argv", default=())
