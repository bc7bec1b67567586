"""Latent correlations of clamped pixels from their covariance, by the Hermite expansion
``cov(x_i, x_j) = sum_k a_ik a_jk rho_ij^k``.

All matrices are symmetric, so only the lower triangle is computed, in panels of rows. The series is evaluated in parts of
a panel that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

import torch
from torch import Tensor

__all__ = ["Stopped", "correlation_rows"]

PANEL = 256
"""Rows of a matrix product."""
PART = 32_768
"""Numbers in each of the four buffers of the series: 128 KiB each, so that they fit in a level 2 cache of 512 KiB."""
BISECTIONS = 12


class Stopped(Exception):
    """Another thread has set the event of a fit."""


def correlation_rows(
    coefficients: Tensor, target: Tensor, *, rank: int, steps: int, stopped: Event | None = None
) -> Tensor:
    """Unit rows (D, R) whose inner products are the latent correlations for the covariance `target` (D, D), float32.

    `coefficients` (order, D) are those of `hermite`. Starts from the largest eigenvalues of the pairwise solution and takes
    `steps` of gradient descent on the covariance. Raises Stopped soon after `stopped` is set.
    """
    series = _Series(coefficients, stopped or Event())
    return _refine(series, _start(series, target, rank), target, steps)


class _Series:
    """The Hermite series of D pixels, and its buffers."""

    def __init__(self, coefficients: Tensor, stopped: Event):
        self.coefficients, self.stopped = coefficients, stopped
        size = coefficients.shape[1]
        self.panel = torch.empty(min(PANEL, size) * size)
        self.buffers = torch.empty(3, max(PART, size))

    def panels(self) -> Iterator[tuple[slice, Tensor]]:
        """(rows, a buffer for the lower triangle of these rows: all columns up to the last of them)."""
        size = self.coefficients.shape[1]
        for first in range(0, size, PANEL):
            if self.stopped.is_set():
                raise Stopped
            last = min(first + PANEL, size)
            yield slice(first, last), self.panel[: (last - first) * last].view(last - first, last)

    def parts(self, rows: slice, panel: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, the panel's rows, three buffers of their shape)."""
        columns = panel.shape[1]
        height = max(1, PART // columns)
        for first in range(rows.start, rows.stop, height):
            last = min(first + height, rows.stop)
            buffers = self.buffers[:, : (last - first) * columns].view(3, last - first, columns)
            yield slice(first, last), panel[first - rows.start : last - rows.start], buffers

    def evaluate(self, rows: slice, rho: Tensor, buffers: Tensor, *, slope: bool) -> tuple[Tensor, Tensor]:
        """Covariance for the correlations `rho` of `rows` with all pixels up to a column, and its derivative if `slope`, by
        Horner's scheme. Both are written to the buffers.
        """
        value, derivative, product = buffers
        *lower, highest = self.coefficients
        torch.mul(highest[rows, None], highest[None, : rho.shape[1]], out=value)
        if slope:
            derivative.zero_()
        for a in reversed(lower):
            if slope:
                torch.addcmul(value, derivative, rho, out=derivative)
            torch.mul(a[rows, None], a[None, : rho.shape[1]], out=product)
            value.mul_(rho).add_(product)
        if slope:
            torch.addcmul(value, derivative, rho, out=derivative)
        return value.mul_(rho), derivative


def _start(series: _Series, target: Tensor, rank: int) -> Tensor:
    """Rows (D, R) whose inner products approximate the pairwise correlations, from the largest eigenvalues."""
    correlation = torch.empty_like(target)
    for rows, panel in series.panels():
        panel.zero_()
        for part_rows, rho, buffers in series.parts(rows, panel):
            for bisection in range(1, BISECTIONS + 1):
                value, step = series.evaluate(part_rows, rho, buffers, slope=False)
                above = value.sub_(target[part_rows, : rho.shape[1]])
                rho.sub_(step.fill_(0.5**bisection).copysign_(above))
        correlation[rows, : panel.shape[1]] = panel
    correlation.fill_diagonal_(1)
    values, vectors = torch.linalg.eigh(correlation)  # reads the lower triangle
    return vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()


def _refine(series: _Series, rows: Tensor, target: Tensor, steps: int) -> Tensor:
    """Unit rows (D, R) whose clamped covariance is closer to `target`: Adam on the sphere with one scale per row."""
    momentum, squares = torch.zeros_like(rows), torch.zeros_like(rows)
    gradient = torch.empty_like(rows)
    for step in range(steps):
        norm = rows.norm(dim=1, keepdim=True).clamp(min=1e-6)
        unit = rows / norm
        _gradient(series, unit, target, out=gradient)
        gradient.sub_(unit * (gradient * unit).sum(1, keepdim=True)).div_(norm)
        momentum.mul_(0.9).add_(gradient, alpha=0.1)
        squares.mul_(0.95).addcmul_(gradient, gradient, value=0.05)
        scale = (squares.mean(1, keepdim=True) / (1 - 0.95 ** (step + 1))).sqrt() + 1e-9
        rows = rows - momentum / scale * (0.02 * (1 - step / steps) / (1 - 0.9 ** (step + 1)))
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-6)


def _gradient(series: _Series, unit: Tensor, target: Tensor, *, out: Tensor) -> None:
    """Writes the gradient (D, R) of a quarter of the squared error of the covariance with respect to unit rows."""
    out.zero_()
    for rows, panel in series.panels():
        torch.mm(unit[rows], unit[: rows.stop].T, out=panel)
        for part_rows, rho, buffers in series.parts(rows, panel):
            value, slope = series.evaluate(part_rows, rho, buffers, slope=True)
            value.sub_(target[part_rows, : rho.shape[1]]).diagonal(part_rows.start).zero_()
            torch.mul(value, slope, out=rho)
        out[rows].addmm_(panel, unit[: rows.stop])
        out[: rows.start].addmm_(panel[:, : rows.start].T, unit[rows])
