"""Forecasts how well an attacker with a record can distinguish training images from other images."""

from __future__ import annotations

import math

from .._core.arguments import checked
from .._core.errors import UserError, cut

__all__ = ["forecast_auc"]


@checked
def forecast_auc(released: float) -> float:
    """Area under the ROC curve of a membership attack that knows the population: Phi(sqrt(D / 2n)).

    `released` is D / n, the number of released statistics per sample. Exact for independent Gaussian features.
    Statistics that are functions of one another count twice, so the forecast is too high for several layers. Raises
    UserError for a number that is negative, infinite or not a number.
    """
    if not (isinstance(released, (int, float)) and math.isfinite(released) and released >= 0):
        raise UserError(f"released: got {cut(repr(released))}, expected a finite number of at least 0; correct it")
    return 0.5 * (1 + math.erf(math.sqrt(released / 2) / math.sqrt(2)))
