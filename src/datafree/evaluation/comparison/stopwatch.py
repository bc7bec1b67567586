"""The seconds that a cell takes, without evaluation, across stops and restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from ..._core.errors import UserError
from ..._core.files import read_json, write_json

__all__ = ["Clock", "Stopwatch", "clock_for", "warm_up"]

Clock = Callable[[], float]


def clock_for(device: torch.device) -> Clock:
    """Seconds of CPU time of this process, of all its threads; on a GPU, where those say nothing, of wall time."""
    if device.type == "cpu":
        return time.process_time

    def synchronised() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def warm_up() -> None:
    """Does what torch does once in a process, about a second, so that it is not counted as the first cell's time."""
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()


class Stopwatch:
    """Seconds by epoch, saved in `file` after each, so that a run that continues knows those of the stopped one."""

    def __init__(self, file: Path, clock: Clock, *, resumed: bool):
        self.file, self.clock = file, clock
        self.laps = _laps(file) if resumed and file.is_file() else []
        self.running, self.began = 0.0, clock()
        self.runs = True

    def stop(self) -> None:
        """Time from here to the next `lap` does not count: evaluation, and writing the state."""
        if self.runs:
            self.running += self.clock() - self.began
            self.runs = False

    def lap(self, wall_seconds: Sequence[float]) -> None:
        """Ends an epoch and starts the next. `wall_seconds` has one entry for each epoch, saved with the training's state.

        An epoch whose time was lost, as the run was killed between the two files, gets its wall time.
        """
        self.stop()
        if len(self.laps) < len(wall_seconds):
            missing = wall_seconds[len(self.laps) : -1]
            self.laps += [*missing, self.running]
            write_json(self.file, {"seconds": self.laps})
        self.running, self.began, self.runs = 0.0, self.clock(), True


def _laps(file: Path) -> list[float]:
    """The seconds in the file; none of a damaged one, as if their epochs' times were lost."""
    with suppress(UserError):
        laps = read_json(file).get("seconds")
        if isinstance(laps, list) and all(isinstance(lap, float) and lap >= 0 for lap in laps):
            return laps
    return []
