"""The distillation loss on logits; KL(z, z) is exactly 0."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from .._core.errors import UserError

__all__ = ["kl"]


def kl(student: Tensor, teacher: Tensor, t: float) -> Tensor:
    """t^2 KL(teacher || student), averaged over the batch, in nats. Hinton et al. 2015, sec. 2.

    Logits are (N, classes). Raises UserError for different shapes or a temperature that is not above 0.
    """
    if student.shape != teacher.shape or not t > 0:
        raise UserError(
            f"kl: got logits {tuple(student.shape)} and {tuple(teacher.shape)} at temperature {t:g}, expected equal "
            "shapes and a temperature above 0; check the arguments"
        )
    return (
        t * t * kl_div(log_softmax(student / t, 1), log_softmax(teacher / t, 1), reduction="batchmean", log_target=True)
    )
