"""Images as a censored Gaussian: x = clamp(z, 0, 1), z normal, with the mean, variance and covariance of a record.

A Gaussian with the recorded moments leaves [0, 1], and clamping changes its moments. So the latent normal z is fitted
such that x has the recorded moments: two equations per pixel for mean and variance, and one per pair for the
correlation, by the Hermite expansion of the clamp, ``cov(x_i, x_j) = sum_k a_ik a_jk rho_ij^k``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr

__all__ = ["Censored", "censored_moments", "fit_censored", "hermite"]

ORDER = 10
CONSTANT = 1e-8


@dataclass(frozen=True)
class Censored:
    """Latent means (K, D) and factors (K, D, R): images of class c are clamp(mean_c + factor_c g, 0, 1), g ~ N(0, I)."""

    mean: Tensor
    factor: Tensor

    def latent(self, labels: Tensor, spread: Tensor, rng: torch.Generator) -> Tensor:
        """Latent images (N, D), one per label (N,), with deviations from the class mean multiplied by `spread` (N,)."""
        g = torch.randn(len(labels), self.factor.shape[2], generator=rng) * spread[:, None]
        z = self.mean[labels]
        for c in labels.unique().tolist():
            rows = labels == c
            z[rows] += g[rows] @ self.factor[c].T
        return z


def fit_censored(mean: Tensor, covariance: Tensor, *, rank: int = 256, steps: int = 60) -> Censored:
    """Fits latent normals to the `mean` (K, D) and `covariance` (K, D, D) of K classes of pixels in [0, 1].

    Means and variances are exact. Correlations are approximated with the given rank: an eigendecomposition of the
    pairwise solution, refined by `steps` of gradient descent on the covariance.
    """
    variance = covariance.diagonal(dim1=1, dim2=2)
    latent_mean, latent_std = _marginals(mean.double(), variance.double())
    factors = []
    for c in range(len(mean)):
        factor = torch.zeros(mean.shape[1], min(rank, mean.shape[1]))
        varying = (variance[c] > CONSTANT).nonzero().flatten()
        if len(varying):
            coefficients = hermite(latent_mean[c, varying], latent_std[c, varying], ORDER).float()
            target = covariance[c][varying][:, varying].float()
            rows = _refine(_start(coefficients, target, rank), coefficients, target, steps)
            factor[varying, : rows.shape[1]] = rows * latent_std[c, varying].float()[:, None]
        factors.append(factor)
    return Censored(torch.where(variance > CONSTANT, latent_mean, mean.double()).float(), torch.stack(factors))


def censored_moments(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of clamp(N(mean, std^2), 0, 1), elementwise in float64."""
    low, high = -mean / std, (1 - mean) / std
    inside, above = ndtr(high) - ndtr(low), ndtr(-high)
    p, q = _density(low), _density(high)
    clamped_mean = mean * inside + std * (p - q) + above
    square = mean**2 + std**2
    clamped_square = square * inside + 2 * mean * std * (p - q) + std**2 * (low * p - high * q) + above
    return clamped_mean, clamped_square - clamped_mean**2


def _density(x: Tensor) -> Tensor:
    return torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _marginals(mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Latent mean and std of every pixel, by bisection on the std and, inside it, on the mean.

    The variance of a pixel in [0, 1] with mean m is at most m (1 - m). For larger recorded values the std ends at its
    bound of 1000, which gives that maximum to three digits.
    """
    mean, variance = mean.clamp(1e-7, 1 - 1e-7), variance.clamp(min=1e-12)
    low, high = torch.full_like(mean, math.log(1e-3)), torch.full_like(mean, math.log(1e3))
    for _ in range(30):
        middle = (low + high) / 2
        std = middle.exp()
        narrow = censored_moments(_mean_for(mean, std), std)[1] < variance
        low, high = torch.where(narrow, middle, low), torch.where(narrow, high, middle)
    std = ((low + high) / 2).exp()
    return _mean_for(mean, std), std


def _mean_for(mean: Tensor, std: Tensor) -> Tensor:
    """The latent mean whose clamped mean is `mean`."""
    low, high = -9 * std, 1 + 9 * std
    for _ in range(45):
        middle = (low + high) / 2
        under = censored_moments(middle, std)[0] < mean
        low, high = torch.where(under, middle, low), torch.where(under, high, middle)
    return (low + high) / 2


def hermite(mean: Tensor, std: Tensor, order: int) -> Tensor:
    """Coefficients (order, D) of clamp(mean + std u, 0, 1) in the normalised Hermite polynomials 1..order of u."""
    low, high = -mean / std, (1 - mean) / std
    coefficients = [std * (ndtr(high) - ndtr(low))]
    p, q = _density(low), _density(high)
    below, a = torch.zeros_like(low), torch.ones_like(low)  # normalised He_{k-3}, He_{k-2} at `low`
    above, b = torch.zeros_like(high), torch.ones_like(high)
    for k in range(2, order + 1):
        coefficients.append(std * (a * p - b * q) / math.sqrt(k * (k - 1)))
        n = k - 2
        a, below = (low * a - math.sqrt(n) * below) / math.sqrt(n + 1), a
        b, above = (high * b - math.sqrt(n) * above) / math.sqrt(n + 1), b
    return torch.stack(coefficients)


def _series(coefficients: Tensor, rho: Tensor) -> tuple[Tensor, Tensor]:
    """Covariance (D, D) of clamped pixels with latent correlations `rho`, and its derivative, by Horner's scheme."""
    value = coefficients[-1][:, None] * coefficients[-1][None]
    slope = torch.zeros_like(value)
    for a in coefficients[:-1].flip(0):
        slope = slope.mul_(rho).add_(value)
        value = value.mul(rho).add_(a[:, None] * a[None])
    slope = slope.mul_(rho).add_(value)
    return value.mul_(rho), slope


def _start(coefficients: Tensor, target: Tensor, rank: int) -> Tensor:
    """Rows (D, R) whose inner products approximate the pairwise correlations, from the largest eigenvalues."""
    low, high = torch.full_like(target, -1.0), torch.full_like(target, 1.0)
    for _ in range(12):
        rho = (low + high) / 2
        under = _series(coefficients, rho)[0] < target
        low, high = torch.where(under, rho, low), torch.where(under, high, rho)
    rho = (low + high) / 2
    rho.fill_diagonal_(1)
    values, vectors = torch.linalg.eigh(rho)
    return vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()


def _refine(rows: Tensor, coefficients: Tensor, target: Tensor, steps: int) -> Tensor:
    """Unit rows (D, R) whose clamped covariance is closer to `target`: Adam on the sphere with one scale per row."""
    momentum, squares = torch.zeros_like(rows), torch.zeros_like(rows)
    for step in range(steps):
        norm = rows.norm(dim=1, keepdim=True).clamp(min=1e-6)
        unit = rows / norm
        value, slope = _series(coefficients, unit @ unit.T)
        error = (value - target).fill_diagonal_(0)
        gradient = (error * slope) @ unit
        gradient = (gradient - unit * (gradient * unit).sum(1, keepdim=True)) / norm
        momentum = momentum.mul_(0.9).add_(gradient, alpha=0.1)
        squares = squares.mul_(0.95).addcmul_(gradient, gradient, value=0.05)
        scale = (squares / (1 - 0.95 ** (step + 1))).mean(1, keepdim=True).sqrt() + 1e-9
        rows = rows - 0.02 * (1 - step / steps) * momentum / (1 - 0.9 ** (step + 1)) / scale
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-6)
