"""The graph of a network: vertices are units or channels of its layers, edges the weights between adjacent layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import scipy.sparse as sp
import torch
from torch import Tensor, nn

from ..._core.errors import UserError, unknown
from ...models.network import Network
from .operators import channel_matrix, unit_matrix
from .wiring import Wiring, wire

__all__ = ["UNITS_AT_MOST", "VERTICES_AT_MOST", "Graph", "build", "pairs"]

UNITS_AT_MOST = 8192
"""`auto` uses one vertex per unit up to this number of units, and one per channel beyond."""
VERTICES_AT_MOST = 16384
"""Largest graph: a dense basis of 16,384 vertices takes 2 GB in float64."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected weighted graph. Tap t has `sizes[t]` vertices, which follow those of the taps before it."""

    taps: tuple[str, ...]
    kind: str  # "units" | "channels"
    sizes: tuple[int, ...]
    edges: dict[tuple[int, int], sp.csr_matrix]
    """(i, j): the weights from tap i to tap j, (sizes[j], sizes[i])."""

    @property
    def vertices(self) -> int:
        return sum(self.sizes)

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        """Activations (N, ...) of each tap as the graph's signal, each (N, sizes[t]): flat, or means over positions."""
        if self.kind == "units":
            return [a.flatten(1) for a in activations]
        return [a.flatten(2).mean(2) if a.ndim > 2 else a for a in activations]

    def split(self, signal: Tensor) -> list[Tensor]:
        """A signal (N, vertices) split into one (N, sizes[t]) per tap."""
        return list(signal.split(self.sizes, dim=1))

    def adjacency(self) -> sp.csr_matrix:
        """The symmetric adjacency (vertices, vertices), in float64."""
        blocks: list[list[sp.spmatrix | None]] = [[None] * len(self.taps) for _ in self.taps]
        for t, size in enumerate(self.sizes):
            blocks[t][t] = sp.csr_matrix((size, size))
        for (i, j), weights in self.edges.items():
            blocks[j][i], blocks[i][j] = weights, weights.T
        return sp.csr_matrix(sp.bmat(blocks))

    def sides(self) -> tuple[Tensor, Tensor] | None:
        """The vertices of the even and of the odd layers; None if an edge connects two layers of the same side."""
        colour: dict[int, int] = {}
        for start in range(len(self.taps)):
            pending = [] if start in colour else [(start, 0)]
            while pending:
                tap_index, side = pending.pop()
                if colour.setdefault(tap_index, side) != side:
                    return None
                ends = (b if a == tap_index else a for a, b in self.edges if tap_index in (a, b))
                pending += [(neighbour, 1 - side) for neighbour in ends if colour.get(neighbour) != 1 - side]
        tap = torch.repeat_interleave(
            torch.tensor([colour[t] for t in range(len(self.taps))]), torch.tensor(self.sizes)
        )
        return (tap == 0).nonzero().flatten(), (tap == 1).nonzero().flatten()


def build(network: Network, taps: Sequence[str], kind: str = "auto") -> Graph:
    """The graph of these layers; `kind` is `units`, `channels` or `auto`. Raises UserError for a layer without edges."""
    wiring = wire(network)
    graph = _assemble(wiring, _checked_taps(wiring, taps, network.name), kind)
    linked = {t for edge in graph.edges for t in edge}
    for t, tap in enumerate(graph.taps):
        if t not in linked:
            raise UserError(
                f"layer {tap!r} of {network.name} has no edge to another recorded layer, expected at least one; record its "
                "neighbours too, leave it out, or use the statistic 'moments'"
            )
    return graph


def pairs(network: Network, taps: Sequence[str], kind: str = "auto") -> list[tuple[str, str]]:
    """The pairs of adjacent layers among `taps`, in the order of the second layer. Raises UserError if there are none."""
    wiring = wire(network)
    chosen = _checked_taps(wiring, taps, network.name)
    joined = [pair for pair in wiring.feeds if set(pair) <= set(chosen) and _assemble(wiring, pair, kind).edges]
    if not joined:
        raise UserError(f"no two of the layers {', '.join(chosen)} are adjacent; record layers that follow one another")
    return joined


def _checked_taps(wiring: Wiring, taps: Sequence[str], network: str) -> tuple[str, ...]:
    for tap in taps:
        if tap not in wiring.layers:
            raise unknown("conv or linear layer", tap, wiring.layers, network)
    if len(set(taps)) != len(taps):
        raise UserError(f"layers {', '.join(taps)}: expected each once; leave the repeated one out")
    return tuple(taps)


def _assemble(wiring: Wiring, taps: Sequence[str], kind: str) -> Graph:
    units = tuple(math.prod(wiring.outputs[tap]) for tap in taps)
    kind = ("units" if sum(units) <= UNITS_AT_MOST else "channels") if kind == "auto" else kind
    sizes = units if kind == "units" else tuple(wiring.outputs[tap][0] for tap in taps)
    if sum(sizes) > VERTICES_AT_MOST:
        remedy = (
            "give `graph='channels'`"
            if kind == "units"
            else "record fewer layers, or use the statistic 'spectral-pairs'"
        )
        raise UserError(f"a graph of {sum(sizes)} {kind}, expected at most {VERTICES_AT_MOST}; {remedy}")
    index_of, edges = {tap: t for t, tap in enumerate(taps)}, {}
    for source, target in wiring.feeds:
        if source in index_of and target in index_of:
            weights = _weights(wiring, source, target, kind)
            if weights is not None:
                edges[index_of[source], index_of[target]] = weights
    return Graph(tuple(taps), kind, sizes, edges)


def _weights(wiring: Wiring, source: str, target: str, kind: str) -> sp.csr_matrix | None:
    layer, input_shape = wiring.layers[target], wiring.inputs[target]
    if isinstance(layer, nn.Linear) and len(input_shape) != 1:
        raise UserError(
            f"linear layer {target!r} takes {input_shape} per image, expected one row of features; leave it out"
        )
    return (unit_matrix if kind == "units" else channel_matrix)(layer, wiring.outputs[source], input_shape)
