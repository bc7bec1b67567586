"""Progress of a long job: every verb takes a `Progress`; that of the command line shows a bar and the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

__all__ = ["Progress", "epoch_ended", "hear_share", "report_share", "share_of", "silent", "stage"]

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


_LISTENER: ContextVar[Callable[[float], None] | None] = ContextVar("listener", default=None)
"""What hears how much of a chunk is made; each thread makes its own chunk."""


@contextmanager
def hear_share(call: Callable[[float], None]) -> Iterator[None]:
    """Calls `call` with every share that `report_share` reports in this thread, inside the block."""
    token = _LISTENER.set(call)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def report_share(share: float) -> None:
    """Reports which share of a chunk is made, from 0 to 1, to whoever listens."""
    call = _LISTENER.get()
    if call is not None:
        call(share)


@contextmanager
def share_of(number: int, parts: int) -> Iterator[None]:
    """Inside the block, shares are those of part `number` of `parts` equal parts of a chunk."""
    call = _LISTENER.get()
    with nullcontext() if call is None else hear_share(lambda share: call((number + share) / parts)):
        yield
