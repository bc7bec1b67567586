"""Limits of the numbers in a summary: the input spec's range for pixels, float32's for activations."""

from __future__ import annotations

from torch import Tensor

from ..._core.errors import UserError
from ...models.input_spec import InputSpec

__all__ = ["LARGEST", "check_counts", "check_pixels", "check_size"]

LARGEST = 1e12
"""Largest activation and standard deviation. Beyond it float32 cannot add 1."""
COUNT = 1 << 53
"""The largest count: sums are in float64, which holds every whole number up to it."""
ROUNDING = 1.02
"""Tolerance for float16 storage and for a covariance that is stored in part."""
ADVICE = "get the record again"


def check_counts(count: Tensor, subject: str) -> None:
    """Raises UserError for counts of samples below 1 or above `COUNT`."""
    low, high = int(count.min()), int(count.max())
    if low < 1 or high > COUNT or int(count.double().sum()) > COUNT:
        raise UserError(f"{subject} has counts from {low} to {high}, expected 1 to {COUNT:,} together; {ADVICE}")


def check_size(tensor: Tensor, subject: str, quantity: str, limit: float = LARGEST) -> None:
    """Raises UserError for a number that is not finite or whose magnitude is above `limit`."""
    largest = float(tensor.abs().max()) if tensor.numel() else 0.0
    if not largest <= limit:
        raise UserError(f"{subject} has a {quantity} of {largest:.4g}, expected at most {limit:.4g}; {ADVICE}")


def check_pixels(mean: Tensor, variance: Tensor | None, count: Tensor, spec: InputSpec, subject: str) -> None:
    """Raises UserError for means outside the range of pixels, or variances that are impossible for pixels in it.

    `count` is the number of samples for each row of `variance`, which is unbiased.
    """
    slack = (ROUNDING - 1) * (spec.high - spec.low)
    low, high = float(mean.min()), float(mean.max())
    if not (low >= spec.low - slack and high <= spec.high + slack):
        raise UserError(
            f"{subject} has pixel means from {low:.4g} to {high:.4g}, expected {spec.low:g} to {spec.high:g}; {ADVICE}"
        )
    if variance is None:
        return
    counts = count[count > 1].double()
    unbiased = float((counts / (counts - 1)).max()) if len(counts) else 1.0
    limit, largest = ((spec.high - spec.low) / 2) ** 2 * unbiased * ROUNDING, float(variance.max())
    if not largest <= limit:
        raise UserError(f"{subject} has a pixel variance of {largest:.4g}, expected at most {limit:.4g}; {ADVICE}")
