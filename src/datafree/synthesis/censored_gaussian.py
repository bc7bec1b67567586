"""Images as a censored Gaussian: x = clamp(z, 0, 1), z normal, with the mean, variance and covariance of a record.

A Gaussian with the recorded moments leaves [0, 1], and clamping changes its moments. So the latent normal z is fitted
such that x has the recorded moments: two equations per pixel for mean and variance, and one per pair for the
correlation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event

import torch
from torch import Tensor
from torch.special import ndtr

from .._core.progress import Progress, silent
from .._core.threads import one_thread
from .latent_correlations import correlation_rows

__all__ = ["Censored", "censored_moments", "fit_censored", "hermite"]

ORDER = 10
CONSTANT = 1e-8


@dataclass(frozen=True)
class Censored:
    """Latent means (K, D) and factors (K, D, R): images of class c are clamp(mean_c + factor_c g, 0, 1), g ~ N(0, I)."""

    mean: Tensor
    factor: Tensor
    images: Callable[[Tensor], Tensor] | None = None
    """Linear map of rows (N, D) to images (N, P), for means and factors on a coarser grid than the images."""

    def latent(self, labels: Tensor, spread: Tensor, rng: torch.Generator) -> Tensor:
        """Latent images (N, P), one per label (N,), with deviations from the class mean multiplied by `spread` (N,)."""
        g = torch.randn(len(labels), self.factor.shape[2], generator=rng) * spread[:, None]
        z = self.mean[labels]
        for c in labels.unique().tolist():
            rows = labels == c
            z[rows] += g[rows] @ self.factor[c].T
        return z if self.images is None else self.images(z)


def fit_censored(
    mean: Tensor,
    covariance: Tensor | Sequence[Tensor],
    *,
    rank: int = 256,
    steps: int = 60,
    workers: int = 1,
    progress: Progress = silent,
) -> Censored:
    """Fits latent normals to the `mean` (K, D) and `covariance` (K, D, D) of K classes of pixels in [0, 1].

    Means and variances are exact. Correlations are approximated with the given rank: an eigendecomposition of the
    pairwise solution, refined by `steps` of gradient descent on the covariance. `workers` classes are fitted at a time,
    one thread each, so that the result does not depend on it; `covariance[c]` is read once. `progress` counts the classes.
    """
    latent = mean.float().clone()
    factor = torch.zeros(*mean.shape, min(rank, mean.shape[1]))
    stopped = Event()

    def fit(c: int) -> None:
        target = covariance[c]
        varying = (target.diagonal() > CONSTANT).nonzero().flatten()
        if not len(varying):
            return
        if len(varying) < len(target):
            target = target[varying][:, varying]
        latent_mean, latent_std = _marginals(mean[c, varying].double(), target.diagonal().double())
        coefficients = hermite(latent_mean, latent_std, ORDER).float()
        rows = correlation_rows(coefficients, target.float(), rank=rank, steps=steps, stopped=stopped)
        latent[c, varying] = latent_mean.float()
        factor[c, varying, : rows.shape[1]] = rows * latent_std.float()[:, None]

    progress(0, len(mean))
    with one_thread(), ThreadPoolExecutor(max(1, min(workers, len(mean)))) as pool:
        try:
            futures = [pool.submit(fit, c) for c in range(len(mean))]
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                progress(done, len(mean))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Censored(latent, factor)


def censored_moments(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of clamp(N(mean, std^2), 0, 1), elementwise in float64."""
    low, high = -mean / std, (1 - mean) / std
    inside, above = ndtr(high) - ndtr(low), ndtr(-high)
    p, q = _density(low), _density(high)
    clamped_mean = mean * inside + std * (p - q) + above
    square = mean**2 + std**2
    clamped_square = square * inside + 2 * mean * std * (p - q) + std**2 * (low * p - high * q) + above
    return clamped_mean, clamped_square - clamped_mean**2


def _censored_mean(mean: Tensor, std: Tensor) -> Tensor:
    """The first of `censored_moments`, without the cost of the second."""
    low, high = -mean / std, (1 - mean) / std
    return mean * (ndtr(high) - ndtr(low)) + std * (_density(low) - _density(high)) + ndtr(-high)


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
        under = _censored_mean(middle, std) < mean
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
