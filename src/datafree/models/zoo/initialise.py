"""He initialisation, used for every network of the zoo."""

from __future__ import annotations

from torch import nn

__all__ = ["he"]


def he(module: nn.Module) -> None:
    """Weights of linear and conv layers ~ N(0, 2 / fan_in), biases 0 (He et al. 2015, eq. 10), in place.

    Networks on the meta device are left unchanged.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            if (
                part.weight.is_meta
            ):  # has no values, and torch would import its compiler for it, which takes two seconds
                continue
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
