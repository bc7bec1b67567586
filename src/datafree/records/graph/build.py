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
"""`auto` takes a vertex per unit up to so many, one per channel beyond."""
VERTICES_AT_MOST = 16384
"""Above it no dense basis is tried: 16,384 vertices are 2 GB in float64."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected weighted graph; the vertices of tap t are the `sizes[t]` after those of the taps before it."""

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
        """A signal (N, vertices) as one (N, sizes[t]) for each tap."""
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
        """The vertices of even and of odd layers where every edge runs between them, else None."""
        colour: dict[int, int] = {}
        for start in range(len(self.taps)):
            waiting = [] if start in colour else [(start, 0)]
            while waiting:
                here, own = waiting.pop()
                if colour.setdefault(here, own) != own:
                    return None
                ends = (b if a == here else a for a, b in self.edges if here in (a, b))
                waiting += [(there, 1 - own) for there in ends if colour.get(there) != 1 - own]
        tap = torch.repeat_interleave(
            torch.tensor([colour[t] for t in range(len(self.taps))]), torch.tensor(self.sizes)
        )
        return (tap == 0).nonzero().flatten(), (tap == 1).nonzero().flatten()


def build(network: Network, taps: Sequence[str], kind: str = "auto") -> Graph:
    """The graph of those layers; `kind` is `units`, `channels`, or `auto`. Raises UserError for a layer without edges."""
    wiring = wire(network)
    graph = _assemble(wiring, _known(wiring, taps, network.name), kind)
    linked = {t for edge in graph.edges for t in edge}
    for t, tap in enumerate(graph.taps):
        if t not in linked:
            raise UserError(
                f"layer {tap!r} of {network.name} has no edge to another recorded layer, wanted at least one; record its "
                "neighbours too, leave it out, or take --kind moments"
            )
    return graph


def pairs(network: Network, taps: Sequence[str], kind: str = "auto") -> list[tuple[str, str]]:
    """The pairs of adjacent layers among `taps`, in the order of the second; raises UserError where there are none."""
    wiring = wire(network)
    chosen = _known(wiring, taps, network.name)
    joined = [pair for pair in wiring.feeds if set(pair) <= set(chosen) and _assemble(wiring, pair, kind).edges]
    if not joined:
        raise UserError(f"no two of the layers {', '.join(chosen)} are adjacent; record layers that follow one another")
    return joined


def _known(wiring: Wiring, taps: Sequence[str], where: str) -> tuple[str, ...]:
    for tap in taps:
        if tap not in wiring.layers:
            raise unknown("conv or linear layer", tap, wiring.layers, where)
    if len(set(taps)) != len(taps):
        raise UserError(f"layers {', '.join(taps)}: wanted each once; leave the repeated one out")
    return tuple(taps)


def _assemble(wiring: Wiring, taps: Sequence[str], kind: str) -> Graph:
    units = tuple(math.prod(wiring.outputs[tap]) for tap in taps)
    kind = ("units" if sum(units) <= UNITS_AT_MOST else "channels") if kind == "auto" else kind
    sizes = units if kind == "units" else tuple(wiring.outputs[tap][0] for tap in taps)
    if sum(sizes) > VERTICES_AT_MOST:
        do = "take --graph channels" if kind == "units" else "record fewer layers, or take --kind spectral-pairs"
        raise UserError(f"a graph of {sum(sizes)} {kind}, wanted at most {VERTICES_AT_MOST}; {do}")
    place, edges = {tap: t for t, tap in enumerate(taps)}, {}
    for source, target in wiring.feeds:
        if source in place and target in place:
            weights = _weights(wiring, source, target, kind)
            if weights is not None:
                edges[place[source], place[target]] = weights
    return Graph(tuple(taps), kind, sizes, edges)


def _weights(wiring: Wiring, source: str, target: str, kind: str) -> sp.csr_matrix | None:
    layer, given = wiring.layers[target], wiring.inputs[target]
    if isinstance(layer, nn.Linear) and len(given) != 1:
        raise UserError(f"linear layer {target!r} takes {given} an image, wanted one row of features; leave it out")
    return (unit_matrix if kind == "units" else channel_matrix)(layer, wiring.outputs[source], given)
