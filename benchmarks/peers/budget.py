"""A limit on CPU time for code that knows nothing of it: the run stops at an optimizer step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["Budget", "BudgetSpent"]


class BudgetSpent(BaseException):
    """Raised inside the peer's loop at its CPU limit. No `Exception`: a peer must not catch it."""


@dataclass
class Budget:
    """CPU seconds of this process for one run, with the student's accuracy at equal intervals.

    `measure` is called outside the clock: its time is not part of the run.
    """

    seconds: float
    measure: Callable[[], float]
    intervals: int = 10
    curve: list[tuple[float, float]] = field(default_factory=list)
    """(CPU seconds, accuracy in %) at the end of every interval."""
    steps: int = 0
    """Number of steps of all optimizers."""
    _start: float = 0.0
    _paused: float = 0.0
    _next: float = 0.0
    _stage_ends: list[float] = field(default_factory=list)

    def used(self) -> float:
        """CPU seconds since the start, without measurements."""
        return time.process_time() - self._start - self._paused

    def fraction(self) -> float:
        """Share of the limit that is used, 0 to 1."""
        return min(1.0, self.used() / self.seconds)

    @contextmanager
    def limit(self) -> Iterator[None]:
        """Runs the block until its end or the limit, whichever comes first, and measures the student once more."""
        self._start, self._paused, self._next = time.process_time(), 0.0, self.seconds / self.intervals
        hook = register_optimizer_step_post_hook(lambda *_: self._after_step())
        try:
            yield
        except BudgetSpent:
            pass
        finally:
            hook.remove()
        self._record()

    @contextmanager
    def stage(self, fraction: float) -> Iterator[None]:
        """Stops the block once `fraction` of the whole limit is used. For methods that train one part after another."""
        self._stage_ends.append(fraction * self.seconds)
        try:
            yield
        except BudgetSpent:
            if self.used() >= self.seconds:
                raise
        finally:
            self._stage_ends.pop()

    def _after_step(self) -> None:
        self.steps += 1
        used = self.used()
        if used >= min([self.seconds, *self._stage_ends]):
            raise BudgetSpent
        if used >= self._next:
            interval = self.seconds / self.intervals
            self._next = (used // interval + 1) * interval
            self._record()

    def _record(self) -> None:
        used, start = self.used(), time.process_time()
        self.curve.append((round(used, 2), self.measure()))
        self._paused += time.process_time() - start
