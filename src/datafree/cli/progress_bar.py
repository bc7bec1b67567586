"""Progress on standard error: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, cast

from .._core.distributed import main_process
from .._core.progress import Progress, silent
from .._core.text import escaped
from .terminal import Stream

__all__ = ["bar"]


@contextmanager
def bar(text: str, quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error with the time gone and an estimate of the time left."""
    if quiet or not main_process():
        yield silent
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    stream = Stream(sys.stderr, lines=False, logged=False)
    console, last = Console(file=cast(IO[str], stream)), [0.0]
    shown = Progress(*columns, console=console)
    task = shown.add_task(escaped(text), total=None)

    def update(done: int, total: int) -> None:
        if console.is_terminal or done >= total:  # in a log, once
            shown.start()  # not before: what is wrong with the settings is said without a bar
        if done >= total or time.perf_counter() - last[0] > 0.1:
            last[0] = time.perf_counter()
            shown.update(task, completed=done, total=total)

    try:
        yield update
    except BaseException:
        shown.live.transient = True  # the one line of the error stays alone
        raise
    finally:
        if shown.live.is_started:
            shown.stop()
