"""How well an attacker could tell members of the training data from other images by a record."""

from __future__ import annotations

import math

from .._core.arguments import checked

__all__ = ["forecast_auc"]


@checked
def forecast_auc(released: float) -> float:
    """Area under the ROC curve of a membership attack that knows the population: Phi(sqrt(D / 2n)).

    `released` is D / n: statistics by sample. Exact for Gaussian features; deterministic functions of one another are
    counted twice, so for several layers it errs on the high side.
    """
    return 0.5 * (1 + math.erf(math.sqrt(max(released, 0.0) / 2) / math.sqrt(2)))
