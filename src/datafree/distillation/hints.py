"""Hints: a student learns its teacher's hidden activations too (FitNets, Romero et al. 2015, eq. 3, without a regressor)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._core.errors import UserError
from ..models import hooks as tap_names
from ..models.network import Network

__all__ = ["hint_layers", "hint_loss"]

TINY = 1e-12
"""Added to mean squares, for layers that are silent on a whole batch."""


def hint_layers(student: Network, teacher: Network) -> tuple[str, ...]:
    """Convolutional and linear layers of the same name and output shape in both networks, without the last one.

    Raises UserError if there are none.
    """
    shared = set(tap_names.layers(student)) & set(tap_names.layers(teacher))
    names = [name for name in tap_names.layers(teacher)[:-1] if name in shared]
    student_shapes, teacher_shapes = (tap_names.shapes(network, names) for network in (student, teacher))
    layers = tuple(name for name in names if student_shapes[name] == teacher_shapes[name])
    if not layers:
        raise UserError(
            f"hints: got a student {student.name} without hidden layers of the same name and size as in {teacher.name}, "
            "expected at least one; give `hints=0`, or another student"
        )
    return layers


def hint_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], layers: Sequence[str]) -> Tensor:
    """Mean over `layers` of the squared difference of activations (N, ...), relative to the teacher's mean square."""
    losses = []
    for layer in layers:
        targets = teacher[layer].detach().float()
        scale = targets.square().mean() + TINY
        losses.append((student[layer].float() - targets).square().mean() / scale)
    return torch.stack(losses).mean()
