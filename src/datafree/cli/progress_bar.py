"""Progress on standard error: a bar on a terminal; elsewhere a line for each epoch, or every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, cast

from .._core.distributed import main_process
from .._core.progress import Progress, silent
from .._core.text import escaped
from .terminal import Stream

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

__all__ = ["Bar", "Lines", "bar"]

EVERY = 5.0
"""Seconds between two lines of work without epochs."""


@contextmanager
def bar(text: str, quiet: bool, opening: str | None = None) -> Iterator[Progress]:
    """Progress with the time taken and an estimate of the time left; none where `quiet`, and in further processes.

    `opening` is a line before the first report.
    """
    if quiet or not main_process():
        yield silent
    elif sys.stderr.isatty():
        with _bar(text, opening) as update:
            yield update
    else:
        yield Lines(text, opening)


class Lines:
    """A line for each epoch, with its loss; for work without epochs one every few seconds, and one at its end."""

    def __init__(self, text: str, opening: str | None = None):
        self.text, self.began, self.last = text, time.monotonic(), time.monotonic()
        self.opening = opening
        self.first: tuple[int, float] | None = None
        """Steps and time at the first report: a run that continues begins with the steps of the earlier one."""
        self.place = (0, 0)
        self.has_epochs = False

    def __call__(self, steps: int, total: int) -> None:
        now = time.monotonic()
        if self.opening is not None:
            self.note(self.opening)
            self.opening = None
        if self.first is None:
            self.first = (0, self.began) if steps <= 1 else (steps, now)
        self.place = (steps, total)
        if self.has_epochs:
            return
        if now - self.last >= EVERY or steps >= total:
            self.last = now
            self._say(f"{steps:,} of {total:,}")

    def epoch(self, number: int, epochs: int, loss: float) -> None:
        """The line of an epoch that has ended."""
        self.has_epochs = True
        self._say(f"epoch {number} of {epochs}, loss {loss:.4g}")

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """Lines of a stage before the job itself, whose time does not count as the job's."""
        yield Lines(name)
        self.began = self.last = time.monotonic()

    def note(self, line: str) -> None:
        """A line about a part of the job that has ended."""
        Stream(sys.stderr, lines=True).write(f"{self.text}: {line}\n")

    def _say(self, state: str) -> None:
        steps, total = self.place
        now, left = time.monotonic(), ""
        first_steps, first_time = self.first or (steps, now)
        if first_steps < steps < total:
            left = f", about {duration((now - first_time) * (total - steps) / (steps - first_steps))} left"
        Stream(sys.stderr, lines=True).write(f"{self.text}: {state}, {duration(now - self.began)}{left}\n")


def duration(seconds: float) -> str:
    """`3.2 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, remainder = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {remainder} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Bar:
    """A bar, and one more for each stage before the job itself; nothing is shown before the first number arrives."""

    def __init__(self, text: str, display: RichProgress, opening: str | None = None):
        self.text, self.display, self.last, self.opening = escaped(text), display, 0.0, opening
        self.task: TaskID | None = None

    def __call__(self, steps: int, total: int) -> None:
        if self.task is None:  # not before: what is wrong with the settings is said without a bar
            if self.opening is not None:
                self.note(self.opening)
            self.task = self.display.add_task(self.text, total=total)
            self.display.start()
        if steps >= total or time.perf_counter() - self.last > 0.1:
            self.last = time.perf_counter()
            self.display.update(self.task, completed=steps, total=total)

    def note(self, line: str) -> None:
        """A line above the bar about a part of the job that has ended."""
        self.display.console.print(escaped(line), markup=False, highlight=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[Progress]:
        """The bar of a stage."""
        yield Bar(name, self.display)


@contextmanager
def _bar(text: str, opening: str | None = None) -> Iterator[Progress]:
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
    display = Progress(*columns, console=Console(file=cast(IO[str], stream)))
    try:
        yield Bar(text, display, opening)
    except BaseException:
        display.live.transient = True  # the one line of the error stays alone
        raise
    finally:
        if display.live.is_started:
            display.stop()
