"""Activations compressed in the graph Fourier basis of the network or of pairs of layers (Lopes et al. 2017, sec. 3.1.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from ..._core.settings import Settings
from ...models.network import Network
from .. import graph
from .spectral_accumulator import SpectralAccumulator

__all__ = ["SpectralAll", "SpectralPairs"]


class _Spectral(Settings):
    """Fields of both kinds. Abstract: it has no `kind`."""

    fraction: float = Field(default=0.1, gt=0, le=1)
    """Share of the spectrum's coefficients that is stored, those of largest magnitude."""
    signal: Literal["class-mean", "class-moments", "examples"] = "class-moments"
    """Stored per class: the mean; mean and covariance; or N examples, which are compressed images of real data."""
    rank: int = Field(default=32, ge=1, le=4096)
    """Number of directions of the covariance in `class-moments`; the remaining variance is stored per coefficient."""
    examples: int = Field(default=32, ge=1, le=65536)
    """Number of examples per class in `examples`, chosen by a hash of their activations."""
    graph: Literal["auto", "units", "channels"] = "auto"
    """A vertex per unit, or per channel (spatial means); auto: units up to 8,192 of them."""
    directed: bool = False
    """Directed edges, as in the paper. Refused, because the directed graph has no Fourier basis."""

    needs_data: ClassVar[bool] = True

    @field_validator("directed")
    @classmethod
    def _undirected(cls, directed: bool) -> bool:
        if directed:
            raise ValueError(
                "false: the directed adjacency of a feed-forward network is strictly block-triangular, hence nilpotent: "
                "all its eigenvalues are 0 and it is not diagonalisable, so there is no Fourier basis; the symmetrised "
                "graph has one"
            )
        return directed


class SpectralAll(_Spectral):
    """The activations of all recorded layers in the Fourier basis of their graph, compressed per class."""

    kind: Literal["spectral-all"] = "spectral-all"

    def plan(self, network: Network, taps: Sequence[str]) -> dict[str, tuple[SpectralAll, tuple[str, ...]]]:  # noqa: ARG002
        return {"graph": (self, tuple(taps))}

    def bind(self, network: Network, taps: Sequence[str]) -> SpectralAccumulator:
        return SpectralAccumulator(self, graph.build(network, taps, self.graph), len(network.spec.classes))


class SpectralPairs(_Spectral):
    """The activations of each pair of adjacent layers in the Fourier basis of their weights, compressed per class."""

    kind: Literal["spectral-pairs"] = "spectral-pairs"

    def plan(self, network: Network, taps: Sequence[str]) -> dict[str, tuple[SpectralPairs, tuple[str, ...]]]:
        return {f"{a}--{b}": (self, (a, b)) for a, b in graph.pairs(network, taps, self.graph)}

    def bind(self, network: Network, taps: Sequence[str]) -> SpectralAccumulator:
        return SpectralAccumulator(self, graph.build(network, taps, self.graph), len(network.spec.classes))
