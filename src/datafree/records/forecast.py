"""Forecasts how well an attacker with a record can distinguish training images from other images."""

from __future__ import annotations

import math

from .._core.arguments import checked

__all__ = ["forecast_auc"]


@checked
def forecast_auc(released: float) -> float:
    """Area under the ROC curve of a membership attack that knows the population: Phi(sqrt(D / 2n)).

    `released` is D / n, the number of released statistics per sample. Exact for independent Gaussian features.
    Statistics that are functions of one another count twice, so the forecast is too high for several layers.
    """
    return 0.5 * (1 + math.erf(math.sqrt(max(released, 0.0) / 2) / math.sqrt(2)))
