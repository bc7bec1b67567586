"""The leading directions of a covariance from one pass. C Omega is linear in the data, so any split gives the same
sketch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..._core.seeds import stream

__all__ = ["nystrom", "test_matrix"]


def test_matrix(size: int, rank: int) -> Tensor:
    """The fixed Gaussian Omega (size, s) in float64, with s = min(size, 2 rank + 8)."""
    columns = min(size, 2 * rank + 8)
    return torch.randn(size, columns, generator=stream(2017, "sketch", size), dtype=torch.float64)


def nystrom(sketch: Tensor, test: Tensor, rank: int) -> Tensor:
    """The best factor (G, D, rank) of a PSD matrix C from its sketch C Omega (Tropp et al. 2017, alg. 3)."""
    core = test.T @ sketch
    values, vectors = torch.linalg.eigh((core + core.transpose(1, 2)) / 2)
    usable = values > values[:, -1:].clamp(min=0) * 1e-10
    inverse_root = torch.where(usable, values.clamp(min=1e-300).rsqrt(), 0.0)
    left_vectors, singular, _ = torch.linalg.svd(sketch @ (vectors * inverse_root[:, None, :]), full_matrices=False)
    columns = min(rank, left_vectors.shape[2])
    return (left_vectors * singular[:, None, :])[:, :, :columns].contiguous()
