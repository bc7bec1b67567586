"""The graph Fourier basis: orthonormal eigenvectors of a symmetric adjacency, the same on every machine.

Graph Fourier transform of Sandryhaila & Moura 2013, sec. III; on an undirected graph the Jordan basis is orthonormal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from ..._core.seeds import stream
from .build import Graph

__all__ = ["Basis", "canonical", "complement", "fourier"]

TOLERANCE = 1e-8
"""Eigenvalues count as equal if they differ by less than this share of the largest one."""


@dataclass(frozen=True, eq=False)
class Basis:
    """An orthonormal basis of signals (N, n), stored as a basis of the even layers and one of the odd layers.

    The first `rank` columns u of `even_basis` and v of `odd_basis` form the pairs (u, +v) / sqrt 2 and (u, -v) / sqrt 2; the
    remaining columns are single vectors. In a graph that is not bipartite all layers are even and the rank is 0.
    """

    values: Tensor
    """Eigenvalues (n,) by |value| descending; of two that differ only in sign, the positive one first."""
    even: Tensor
    odd: Tensor
    """Indices of the vertices of each side."""
    even_basis: Tensor
    odd_basis: Tensor
    rank: int
    order: Tensor
    """(n,): order of the concatenated pairs with +, pairs with -, remaining even and remaining odd vectors."""
    signs: Tensor
    """(n,): +1 or -1 in the order of `order`, so that the first of a vector's largest entries is positive."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Basis:
        """A copy on the device and in the number format."""
        numbers = {name: getattr(self, name).to(device, dtype) for name in ("even_basis", "odd_basis", "signs")}
        return replace(self, **numbers, **{name: getattr(self, name).to(device) for name in ("even", "odd", "order")})

    def analyse(self, signal: Tensor) -> Tensor:
        """Coefficients (N, n) of signals (N, n); differentiable."""
        a, b = signal[:, self.even] @ self.even_basis, signal[:, self.odd] @ self.odd_basis
        left, right, r = a[:, : self.rank], b[:, : self.rank], self.rank
        parts = [(left + right) * math.sqrt(0.5), (left - right) * math.sqrt(0.5), a[:, r:], b[:, r:]]
        return torch.cat(parts, 1)[:, self.order] * self.signs

    def synthesise(self, coefficients: Tensor) -> Tensor:
        """Signals (N, n) of coefficients (N, n): the inverse of `analyse`."""
        plain = torch.empty_like(coefficients)
        plain[:, self.order] = coefficients * self.signs
        rest_even = self.even_basis.shape[1] - self.rank
        plus, minus, a, b = plain.split(
            [self.rank, self.rank, rest_even, plain.shape[1] - 2 * self.rank - rest_even], 1
        )
        signal = torch.empty_like(coefficients)
        signal[:, self.even] = torch.cat([(plus + minus) * math.sqrt(0.5), a], 1) @ self.even_basis.T
        signal[:, self.odd] = torch.cat([(plus - minus) * math.sqrt(0.5), b], 1) @ self.odd_basis.T
        return signal

    def nbytes(self) -> int:
        return sum(t.numel() * t.element_size() for t in (self.even_basis, self.odd_basis))


def fourier(graph: Graph) -> Basis:
    """The graph's Fourier basis in float64, by a singular value decomposition if the graph is bipartite, else by eigh."""
    sides = graph.sides()
    adjacency = graph.adjacency()
    if sides is None:
        return _by_eigh(torch.from_numpy(adjacency.toarray()))
    even, odd = sides
    return _by_svd(torch.from_numpy(adjacency[even.numpy()][:, odd.numpy()].toarray()), even, odd)


def _by_svd(block: Tensor, even: Tensor, odd: Tensor) -> Basis:
    """The basis of [[0, B], [B^T, 0]]: eigenvalues +-sigma and 0, vectors (u, +-v) / sqrt 2 and complements of U and V."""
    left, sigma, right = torch.linalg.svd(block, full_matrices=False)
    rank = int((sigma > TOLERANCE * sigma[0]).sum())
    left, sigma, right = left[:, :rank], sigma[:rank], right[:rank].T
    for start, stop in _runs(sigma):
        if stop - start > 1:
            turn = canonical_turn(right[:, start:stop])
            left[:, start:stop] = left[:, start:stop] @ turn
            right[:, start:stop] = right[:, start:stop] @ turn
            sigma[start:stop] = sigma[start:stop].mean()
    flip, minus_signs = _pair_signs(left, right)
    even_basis = torch.cat([left * flip, complement(left)], 1)
    odd_basis = torch.cat([right * flip, complement(right)], 1)
    lone = even_basis.shape[1] + odd_basis.shape[1] - 2 * rank
    pair = torch.arange(rank)
    order = torch.cat([torch.stack([pair, pair + rank], 1).flatten(), torch.arange(lone) + 2 * rank])
    signs = torch.cat([torch.ones(rank).double(), minus_signs, torch.ones(lone).double()])
    values = torch.cat([torch.stack([sigma, -sigma], 1).flatten(), sigma.new_zeros(lone)])
    return Basis(values, even, odd, even_basis, odd_basis, rank, order, signs[order])


def _pair_signs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """(sign of u and v, sign of (u, -v)), each (rank,), that make the first of both vectors' largest entries positive."""
    stacked = torch.cat([left, right])
    pivots = _pivots(stacked)
    flip = stacked.gather(0, pivots[None])[0].sign()
    return flip, torch.where(pivots < len(left), 1.0, -1.0).double()


def _by_eigh(adjacency: Tensor) -> Basis:
    values, vectors = torch.linalg.eigh(adjacency)
    values, vectors = values.flip(0), vectors.flip(1)
    for start, stop in _runs(values):
        if stop - start > 1:
            vectors[:, start:stop] = canonical(vectors[:, start:stop])
            values[start:stop] = values[start:stop].mean()
    values = torch.where(values.abs() <= TOLERANCE * values.abs().max(), 0.0, values)
    order = _by_size(values)
    values, vectors = values[order], vectors[:, order]
    n = len(values)
    nothing = torch.empty(0, 0, dtype=torch.float64)
    everything = torch.arange(n)
    return Basis(values, everything, everything[:0], _signed(vectors), nothing, 0, everything, torch.ones(n).double())


def _by_size(values: Tensor) -> Tensor:
    """Indices by |value| descending. Of values that differ only in sign, up to rounding, the positive ones come first."""
    size, order = values.abs().sort(descending=True, stable=True)
    for start, stop in _runs(size):
        members = order[start:stop]
        order[start:stop] = members[values[members].sign().argsort(descending=True, stable=True)]
    return order


def _runs(values: Tensor) -> list[tuple[int, int]]:
    """[start, stop) of each run of equal values, up to the tolerance; `values` are descending."""
    if not len(values):
        return []
    gaps = (values[:-1] - values[1:]).abs() > TOLERANCE * values.abs().max()
    cuts = [0, *((gaps.nonzero().flatten() + 1).tolist()), len(values)]
    return list(pairwise(cuts))


def _signed(vectors: Tensor) -> Tensor:
    """The vectors (n, m) with positive pivots."""
    return vectors * vectors.gather(0, _pivots(vectors)[None])[0].sign() if vectors.numel() else vectors


def _pivots(vectors: Tensor) -> Tensor:
    """(columns,): the first row whose entry is the largest up to rounding, so that ties are broken equally everywhere."""
    size = vectors.abs()
    return (size >= size.amax(0) * (1 - 1e-6)).int().argmax(0)


def canonical(vectors: Tensor) -> Tensor:
    """An orthonormal basis (n, m) of the span of `vectors` (n, m orthonormal) that depends only on the span.

    Gram-Schmidt of m fixed random vectors projected into the span: a QR of vectors^T Omega with a positive diagonal.
    """
    return vectors @ canonical_turn(vectors)


def canonical_turn(vectors: Tensor) -> Tensor:
    """The rotation (m, m) that maps `vectors` to their canonical basis."""
    q, r = torch.linalg.qr(vectors.T @ _fixed(*vectors.shape))
    return q * r.diagonal().sign()


def complement(vectors: Tensor) -> Tensor:
    """The canonical orthonormal basis (n, n - m) of the orthogonal complement of `vectors` (n, m orthonormal)."""
    n, m = vectors.shape
    fixed = _fixed(n, n - m)
    return _signed(torch.linalg.qr(fixed - vectors @ (vectors.T @ fixed))[0])


def _fixed(n: int, m: int) -> Tensor:
    """Gaussian numbers (n, m) in float64, the same on every machine."""
    return torch.randn(n, m, generator=stream(2017, "span", n, m), dtype=torch.float64)
