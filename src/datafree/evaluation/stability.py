"""Stability of a training curve: how safe it is to stop at any epoch, since without data nobody can pick the best one.

Binici et al. 2022 ask for a student that gets better and never worse. Each figure below says how far a curve of
accuracies or agreements (in %) is from that.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from .._core.errors import UserError

__all__ = ["FIGURES", "HALF", "Spread", "Stability", "over_seeds", "stability"]

FIGURES = {
    "mean": ("%", "also what stopping at a uniformly random epoch is expected to give"),
    "sd": ("points", "sample standard deviation; also the risk of a random stop"),
    "best": ("%", "what nobody without data can pick"),
    "last": ("%", "after the last epoch, where a run ends"),
    "lost": ("points", "best - last"),
    "drawdown": ("points", "the largest fall from a value that was reached before"),
    "decreases": ("points", "sum of all falls from one epoch to the next"),
}
"""Figure -> (unit, in words)."""


HALF = 0.5
"""The window of reports and run.json: the second half of the epochs so far, rounded up."""


@dataclass(frozen=True)
class Stability:
    """Figures of the `epochs` values of a window, in the unit of the values (% for accuracies), differences in points.

    A curve that never falls has lost = drawdown = decreases = 0; lost <= drawdown <= decreases for every curve.
    """

    epochs: int
    mean: float
    sd: float | None
    """Sample standard deviation; None for one value."""
    best: float
    last: float
    lost: float
    """best - last."""
    drawdown: float
    """The largest fall from a running maximum; 0 where there is no fall."""
    decreases: float
    """Sum of the falls from one epoch to the next, as a number >= 0."""

    @property
    def random_stop(self) -> float:
        """The expected value at a uniformly random epoch of the window: the mean, by definition."""
        return self.mean


@dataclass(frozen=True)
class Spread:
    """One figure over `n` seeds."""

    mean: float
    sd: float | None
    """Sample standard deviation; None for one seed."""
    n: int

    @property
    def error(self) -> float | None:
        """Standard error of the mean. Seeds are independent, the epochs of one run are not, so only these have one."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)


def stability(values: Sequence[float], window: int | float | None = None) -> Stability:
    """Figures of a curve by epoch, over its last `window` epochs (a whole number) or that share of them (0.5: the second
    half, rounded up); over all of it by default. Best and running maximum are those of the window too.

    Raises UserError for no values, values that are not finite, and a window that does not fit.
    """
    curve = [float(value) for value in values]
    if not curve:
        raise UserError("values: got none, expected those of one epoch at least; run one")
    bad = next((index for index, value in enumerate(curve) if not math.isfinite(value)), None)
    if bad is not None:
        raise UserError(f"values: got {curve[bad]} in epoch {bad + 1}, expected finite numbers; leave that run out")
    curve = curve[len(curve) - _width(window, len(curve)) :]
    peak, drawdown = curve[0], 0.0
    for value in curve:
        peak = max(peak, value)
        drawdown = max(drawdown, peak - value)
    return Stability(
        epochs=len(curve),
        mean=statistics.fmean(curve),
        sd=statistics.stdev(curve) if len(curve) > 1 else None,
        best=max(curve),
        last=curve[-1],
        lost=max(curve) - curve[-1],
        drawdown=drawdown,
        decreases=math.fsum(max(0.0, before - after) for before, after in pairwise(curve)),
    )


def over_seeds(runs: Sequence[Stability]) -> dict[str, Spread]:
    """Mean and sample standard deviation of every figure over runs of several seeds, by its name.

    A figure that some run lacks (the sd of one value) is left out. Raises UserError for no runs, or runs over windows of
    different lengths, whose figures do not compare.
    """
    if not runs:
        raise UserError("runs: got none, expected those of one seed at least; give some")
    lengths = sorted({run.epochs for run in runs})
    if len(lengths) > 1:
        raise UserError(
            f"windows of {lengths[0]} and {lengths[-1]} epochs do not compare, expected the same for every seed; "
            "give one window"
        )
    spreads = {}
    for name in FIGURES:
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        if len(values) == len(runs):
            sd = statistics.stdev(values) if len(values) > 1 else None
            spreads[name] = Spread(statistics.fmean(values), sd, len(values))
    return spreads


def _width(window: int | float | None, count: int) -> int:
    """How many of the `count` epochs the window takes."""
    if window is None:
        return count
    if isinstance(window, float) and 0 < window <= 1:
        return max(1, math.ceil(round(window * count, 9)))
    if isinstance(window, int) and not isinstance(window, bool) and 1 <= window <= count:
        return window
    raise UserError(
        f"window: got {window} for {count} epochs, expected 1 to {count} epochs, or a share above 0.0 and up to 1.0; "
        "give another"
    )
