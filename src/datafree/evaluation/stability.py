"""Stability of a training curve: how safe it is to stop at any epoch. Without data, the best epoch is unknown.

Binici et al. 2022 want students that never get worse during training. Each figure below measures how far a curve of
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
    "mean": ("%", "also the expected value at a uniformly random epoch"),
    "sd": ("points", "sample standard deviation; also the risk of stopping at a random epoch"),
    "best": ("%", "cannot be chosen without data"),
    "last": ("%", "after the last epoch"),
    "lost": ("points", "best - last"),
    "drawdown": ("points", "largest drop below an earlier value"),
    "decreases": ("points", "sum of all drops from one epoch to the next"),
}
"""Figure -> (unit, description)."""


HALF = 0.5
"""Window in reports and run.json: the second half of the epochs so far, rounded up."""


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
    """Largest drop below the running maximum; 0 if there is none."""
    decreases: float
    """Sum of the drops from one epoch to the next, >= 0."""

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
        """Standard error of the mean. It exists over seeds only: they are independent, epochs of a run are not."""
        return None if self.sd is None else self.sd / math.sqrt(self.n)


def stability(values: Sequence[float], window: int | float | None = None) -> Stability:
    """Figures of a curve over its last `window` epochs, or that share of them (0.5: the second half, rounded up); by
    default over the whole curve. Best and running maximum are taken within the window.

    Raises UserError for no values, values that are not finite, and an invalid window.
    """
    curve = [float(value) for value in values]
    if not curve:
        raise UserError("values: got none, expected those of at least one epoch; run one")
    not_finite = next((index for index, value in enumerate(curve) if not math.isfinite(value)), None)
    if not_finite is not None:
        raise UserError(
            f"values: got {curve[not_finite]} in epoch {not_finite + 1}, expected finite numbers; leave that run out"
        )
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
        decreases=math.fsum(max(0.0, value - next_value) for value, next_value in pairwise(curve)),
    )


def over_seeds(runs: Sequence[Stability]) -> dict[str, Spread]:
    """Mean and sample standard deviation of every figure over runs of several seeds, by the figure's name.

    A figure that some run lacks (the sd of one value) is left out. Raises UserError for no runs, and for windows of
    different lengths, whose figures cannot be compared.
    """
    if not runs:
        raise UserError("runs: got none, expected those of at least one seed; give some")
    lengths = sorted({run.epochs for run in runs})
    if len(lengths) > 1:
        raise UserError(
            f"runs: got windows of {lengths[0]} and {lengths[-1]} epochs, expected the same for every seed; use one window"
        )
    spreads = {}
    for name in FIGURES:
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        if len(values) == len(runs):
            sd = statistics.stdev(values) if len(values) > 1 else None
            spreads[name] = Spread(statistics.fmean(values), sd, len(values))
    return spreads


def _width(window: int | float | None, count: int) -> int:
    """Number of epochs in the window, of `count` epochs."""
    if window is None:
        return count
    if isinstance(window, float) and 0 < window <= 1:
        return max(1, math.ceil(round(window * count, 9)))
    if isinstance(window, int) and not isinstance(window, bool) and 1 <= window <= count:
        return window
    raise UserError(
        f"window: got {window} for {count} epochs, expected 1 to {count} epochs, or a share above 0.0 and at most 1.0; "
        "give such a window"
    )
