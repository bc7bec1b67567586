"""Cross-layer equalisation (Nagel et al. 2019, sec. 4.1): neighbours' weight ranges made alike, the function kept."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .annotate import parameter_of, weighted

__all__ = ["equalize", "pairs"]

ROUNDS = 20
_aten = torch.ops.aten
RELUS = (_aten.relu.default, _aten.relu_.default)


def pairs(graph: GraphModule) -> list[tuple[Node, Node]]:
    """Every (layer, next layer) with nothing but a ReLU, and grids, between them, and no other reader in between.

    Only ungrouped convolutions and linear layers: there, channel i of the first is input i of the second.
    """
    found = []
    for node in weighted(graph):
        after = _sole(node)
        if after is None or after.target not in RELUS:
            continue
        after = _sole(after)
        while after is not None and after.op == "call_module":
            after = _sole(after)
        if after is not None and after in weighted(graph) and not (_groups(node) or _groups(after)):
            found.append((node, after))
    return found


def _sole(node: Node) -> Node | None:
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def _groups(node: Node) -> bool:
    """Whether it is a convolution of several groups."""
    groups = node.args[6] if len(node.args) > 6 else 1
    return "conv" in str(node.target) and bool(groups != 1)


@torch.no_grad()
def equalize(graph: GraphModule) -> dict[str, Tensor]:
    """Scales each pair's weights, in place, until both have the same range in every channel they share (eq. 11).

    Returns node name -> what its channels (C,) were divided by, for the first of each pair and the ReLU behind it.
    """
    found = [
        (first, parameter_of(graph, first.args[1]), parameter_of(graph, second.args[1]))
        for first, second in pairs(graph)
    ]
    found = [own for own in found if own[1].shape[0] == own[2].shape[1]]  # not so behind a flattened image
    scales = {first.name: torch.ones(len(weight)) for first, weight, _ in found}
    for _ in range(ROUNDS):
        change = 0.0
        for first, a, b in found:
            over, under = _range(a, 0), _range(b, 1)
            scale = torch.where((over > 0) & (under > 0), (over / under).sqrt(), torch.ones_like(over))
            a.data /= scale.view(-1, *[1] * (a.ndim - 1))
            b.data *= scale.view(1, -1, *[1] * (b.ndim - 2))
            if len(first.args) > 2 and first.args[2] is not None:
                parameter_of(graph, first.args[2]).data /= scale
            scales[first.name] *= scale
            change = max(change, float((scale - 1).abs().max()))
        if change < 1e-3:
            break
    for first, _, _ in found:
        scales[next(iter(first.users)).name] = scales[first.name]
    return scales


def _range(weight: Tensor, axis: int) -> Tensor:
    return weight.abs().transpose(0, axis).flatten(1).amax(1)
