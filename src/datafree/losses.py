"""Losses on logits, true to their names: KL(z, z) is 0."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

__all__ = ["kl"]


def kl(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """t^2 KL(teacher || student), mean over the batch, in nats; logits are (N, classes). Hinton et al. 2015, sec. 2."""
    return (
        t * t * kl_div(log_softmax(student / t, 1), log_softmax(teacher / t, 1), reduction="batchmean", log_target=True)
    )
