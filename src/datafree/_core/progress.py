"""Progress of a long job: every verb takes a `Progress`; that of the command line shows a bar and the time left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

__all__ = ["Progress", "epoch_ended", "silent", "stage"]

Progress = Callable[[int, int], None]
"""Called with (done, total) from the thread that started the job."""


def silent(done: int, total: int) -> None:
    """Shows nothing."""


def epoch_ended(progress: Progress, epoch: int, epochs: int, loss: float) -> None:
    """Reports the mean loss of epoch `epoch` of `epochs` to a progress that has a method `epoch`."""
    show = getattr(progress, "epoch", None)
    if show is not None:
        show(epoch, epochs, loss)


def stage(progress: Progress, name: str) -> AbstractContextManager[Progress]:
    """The progress of a stage before the job itself, with its own count: silent if `progress` has no method `stage`."""
    show = getattr(progress, "stage", None)
    return nullcontext(silent) if show is None else show(name)
