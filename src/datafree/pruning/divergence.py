"""How much a changed network's answers differ."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import kl_div

from ..models.network import Network

__all__ = ["WORST", "divergence"]

WORST = 1e30
"""The divergence of answers that are not finite, and of a network that does not work."""


def divergence(network: Network, pixels: Tensor, expected: Tensor) -> float:
    """The Kullback-Leibler divergence of the classes' probabilities for `pixels` (N, C, H, W), in the spec's range, from the
    expected ones, given as logarithms (N, classes); a mean over the images, in nats.
    """
    logits = network.predict(pixels).log_softmax(1)
    value = float(kl_div(logits, expected, reduction="batchmean", log_target=True))
    return value if math.isfinite(value) else WORST
