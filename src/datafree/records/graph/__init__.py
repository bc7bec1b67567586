"""A network as an undirected weighted graph, and its graph Fourier basis (Lopes et al. 2017, sec. 3.1.3).

``build(network, taps)`` returns the `Graph`, ``fourier(graph)`` its orthonormal `Basis`. They depend only on the weights, so
everyone with the network derives the same basis.
"""

from __future__ import annotations

from .basis import Basis, fourier
from .build import Graph, build, pairs

__all__ = ["Basis", "Graph", "build", "fourier", "pairs"]
