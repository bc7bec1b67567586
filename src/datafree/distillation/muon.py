"""Muon (Jordan et al. 2024): an optimizer that needs fewer steps than Adam and uses the same learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Muon", "orthogonal"]

QUINTIC = (3.4445, -4.7750, 2.0315)
STEPS = 5
MATCH = 0.2
"""Root mean square of Muon's steps at a learning rate of 1, like Adam's typical steps (Liu et al. 2025)."""
EPSILON = 1e-8


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for weights with two or more dimensions; a convolution's weight is (outputs, the rest).

    Biases and the weights of norms take Adam's steps with the same learning rate.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ):  # fmt: skip
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    step = _muon_step if parameter.ndim > 1 else _adam_step
                    parameter.sub_(group["lr"] * step(parameter.grad, self.state[parameter], group))


def _muon_step(grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(grad)
    state["momentum"].lerp_(grad, 1 - group["momentum"])
    lookahead = grad.lerp(state["momentum"], group["momentum"]).flatten(1)  # Nesterov momentum
    return (MATCH * math.sqrt(max(lookahead.shape)) * orthogonal(lookahead)).view_as(grad)


def _adam_step(grad: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    beta_mean, beta_square = group["betas"]
    if not state:
        state |= {"step": torch.tensor(0.0), "mean": torch.zeros_like(grad), "square": torch.zeros_like(grad)}
    state["step"] += 1
    state["mean"].lerp_(grad, 1 - beta_mean)
    state["square"].lerp_(grad.square(), 1 - beta_square)
    count = float(state["step"])
    mean, square = state["mean"] / (1 - beta_mean**count), state["square"] / (1 - beta_square**count)
    return mean / (square.sqrt() + EPSILON)


def orthogonal(matrix: Tensor) -> Tensor:
    """`matrix` (M, N) with all singular values moved close to 1, by five steps of a quintic Newton-Schulz iteration.

    The values end between 0.7 and 1.2, which is close enough for an optimizer step (Jordan et al. 2024).
    """
    a, b, c = QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (torch.linalg.matrix_norm(x) + EPSILON)
    for _ in range(STEPS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x if wide else x.T
