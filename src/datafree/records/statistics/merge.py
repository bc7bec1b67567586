"""Merges counts, means and centred sums per group in float64 (Chan, Golub, LeVeque 1979)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["group_means", "merge_means", "shift_weights"]


def group_means(signal: Tensor, labels: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Counts (groups,) and means (groups, D) in float64 of signal (N, D); a group without samples has mean 0."""
    one_hot = torch.zeros(groups, len(labels), dtype=torch.float64)
    one_hot[labels, torch.arange(len(labels))] = 1
    counts = one_hot.sum(1)
    # centred on the first sample, so that a large offset loses no digits
    origin = signal[:1] if len(signal) else signal.new_zeros(1, signal.shape[1])
    means = one_hot @ (signal - origin) / counts.clamp(min=1)[:, None]
    return counts, torch.where(counts[:, None] > 0, means + origin, 0.0)


def shift_weights(count_a: Tensor, count_b: Tensor) -> tuple[Tensor, Tensor]:
    """(n_b / n, n_a n_b / n) for each group: the weights of the mean's shift and of its outer product."""
    total = (count_a + count_b).clamp(min=1)
    return count_b / total, count_a * count_b / total


def merge_means(a: dict[str, Tensor], b: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """The merged `count`, `mean` and `residual`, and rows (G, D) whose outer products are the sum of squares between a
    and b.

    `residual` is the rounding error of `mean`; without it the shift of two means at an offset of 1e6 would lose 10 digits.
    """
    share, weight = shift_weights(a["count"], b["count"])
    shift = (b["mean"] - a["mean"]) + (b["rest"] - a["rest"])
    mean, residual = _two_sum(a["mean"], a["rest"] + shift * share[:, None])
    a_is_empty = (a["count"] == 0)[:, None]
    merged = {"count": a["count"] + b["count"], "mean": torch.where(a_is_empty, b["mean"], mean)}
    return merged | {"rest": torch.where(a_is_empty, b["rest"], residual)}, shift * weight.sqrt()[:, None]


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a + b and its exact rounding error (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)
