"""A student that begins with part of its teacher: the first channels of every layer (after Samragh et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from .network import Network

__all__ = ["inherited"]


@torch.no_grad()
def inherited(student: Network, teacher: Network) -> bool:
    """Copies the first channels of the teacher's layers into a student of the same layers, none wider; says whether it did.

    A weight (M, N, ...) of a teacher's (P, Q, ...) becomes Q / N times its first M x N: with fewer inputs, a sum as large.
    Everything else (biases, a norm's weights and running statistics) is copied as it stands. No graph is asked for: first
    channels fit each other wherever channels are neither concatenated, nor padded in front, nor grouped in groups of a
    share of them. Where they are (the shortcuts of CIFAR's ResNets), that part begins with weights that do not match; a
    student of other layers stays as it is.
    """
    own, found = student.module.state_dict(), teacher.module.state_dict()
    if own.keys() != found.keys() or not all(_fits(tensor, found[name]) for name, tensor in own.items()):
        return False
    for name, tensor in own.items():
        tensor.copy_(_first(found[name], tensor))
    return True


def _fits(own: Tensor, found: Tensor) -> bool:
    return own.ndim == found.ndim and all(a <= b for a, b in zip(own.shape, found.shape, strict=True))


def _first(found: Tensor, own: Tensor) -> Tensor:
    part = found[tuple(slice(side) for side in own.shape)]
    return part * (found.shape[1] / own.shape[1]) if own.ndim > 1 else part
