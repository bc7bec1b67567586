"""Removes channels from a network, consistently in all layers that write, scale or read them.

Which channels belong together is found by `models.channel_groups`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from .._core.errors import UserError
from ..models.channel_groups import ChannelGroup, Place, by_channel, channel_groups
from ..models.network import Network, copied
from ..models.reducing import channels_of, put_tensor, take_attributes

__all__ = ["WeightCount", "kept_channels", "narrower", "removable_groups", "with_channels"]

Masks = dict[Place, Tensor]
"""Place -> which of its channels are kept."""


@torch.no_grad()
def narrower(network: Network, share: float = 0.5) -> Network:
    """A copy of the network with about `share` of the channels of every layer whose channels can be followed.

    The first channels are kept, with their weights; inputs and classes are those of the network. A group of channels whose
    removal the network does not allow, since its code expects a fixed number of them, is kept whole. Raises UserError if
    that is so for all of them.
    """
    groups = removable_groups(network, share)
    narrow = with_channels(network, groups, [kept_channels(network, group, share) for group in groups])
    if narrow is None or narrow is network:
        raise UserError(
            f"student 'half': no channels of {network.name} can be left out, expected a network whose layers pass "
            "each other 2 channels or more that can be followed; name a student of the same input and classes"
        )
    return narrow


@torch.no_grad()
def removable_groups(network: Network, share: float) -> list[ChannelGroup]:
    """The groups of channels of which the network works with this share."""
    uses = Counter(id(tensor) for part in network.module.modules() for tensor in part.parameters(recurse=False))
    shared = {
        name
        for name, part in network.module.named_modules()
        if any(uses[id(tensor)] > 1 for tensor in part.parameters(recurse=False))
    }
    groups = [
        group
        for group in channel_groups(network, grouped=True)
        if {"out", "in"} <= {place.side for place in group.indices}
        and not shared & {place.layer for place in group.indices}
    ]
    return _possible(network, groups, [], share)


def _possible(
    network: Network, groups: list[ChannelGroup], others: list[ChannelGroup], share: float
) -> list[ChannelGroup]:
    """Those of the groups that can lose channels beside the others."""
    both = [*others, *groups]
    counts = [kept_channels(network, group, share) for group in both]
    if with_channels(network, both, counts, quick=True) is not None:
        return groups
    if len(groups) == 1:
        return []
    half = len(groups) // 2
    first = _possible(network, groups[:half], others, share)
    return first + _possible(network, groups[half:], [*others, *first], share)


def kept_channels(network: Network, group: ChannelGroup, share: float) -> int:
    """The number of channels of a group that are at least this share of them, one at least, as its norms allow."""
    together = math.lcm(*(_together(network, place, index.shape[1]) for place, index in group.indices.items()))
    return min(group.count, max(1, math.ceil(share * group.count / together)) * together)


def _together(network: Network, place: Place, positions: int) -> int:
    """Number of members of a group, with `positions` channels each, that a group norm normalises together; else 1."""
    part = network.module.get_submodule(place.layer)
    if not isinstance(part, nn.GroupNorm):
        return 1
    channels = part.num_channels // part.num_groups
    return channels // math.gcd(channels, positions)


def with_channels(
    network: Network, groups: Sequence[ChannelGroup], counts: Sequence[int], *, quick: bool = False
) -> Network | None:
    """A copy of the network with the first `counts` channels of the groups; itself if that is all of them.

    None if it does not work, or not in training mode, where this one does. `quick`: one forward pass in each mode is all
    that is tried.
    """
    masks = _masks(network, groups, counts)
    if not masks:
        return network
    narrow = replace(network.with_module(copied(network.module)), reduced=True)
    for place, mask in masks.items():
        part = narrow.module.get_submodule(place.layer)
        dim = int(place.side == "in")
        if dim and getattr(part, "groups", 1) > 1:  # its weights have only the inputs of a group
            continue
        for name, tensor in ({"weight": part.get_parameter("weight")} if dim else by_channel(part)).items():
            put_tensor(part, name, tensor.detach().index_select(dim, mask.nonzero()[:, 0].to(tensor.device)))
    for layer in dict.fromkeys(place.layer for place in masks):
        take_attributes(narrow.module.get_submodule(layer), network.module.get_submodule(layer))
    try:
        if quick:
            narrow.predict(narrow.probes()[:2])
        else:
            narrow.check()
    except Exception:  # of anybody's code, which may not take other sizes
        return None
    return narrow if _runs_in_training(narrow) or not _runs_in_training(network) else None


def _masks(network: Network, groups: Sequence[ChannelGroup], counts: Sequence[int]) -> Masks:
    """The channels that each place keeps; empty if all are kept."""
    dropped: dict[Place, list[Tensor]] = defaultdict(list)
    for group, count in zip(groups, counts, strict=True):
        for place, index in group.indices.items():
            dropped[place].append(index[count:].flatten())
    masks: Masks = {}
    for place, positions in dropped.items():
        if sum(map(len, positions)):
            masks[place] = torch.ones(_width(network.module.get_submodule(place.layer), place), dtype=torch.bool)
            masks[place][torch.cat(positions)] = False
    return masks


def _width(part: nn.Module, place: Place) -> int:
    if place.side != "in":
        return channels_of(part)
    return part.in_features if isinstance(part, nn.Linear) else part.in_channels  # type: ignore[return-value]


class WeightCount:
    """Counts the weights of a network with fewer channels, without building it."""

    def __init__(self, network: Network, groups: Sequence[ChannelGroup]):
        layers = list(dict.fromkeys(place.layer for group in groups for place in group.indices))
        sides = torch.zeros(2, len(layers), len(groups), dtype=torch.long)
        for number, group in enumerate(groups):
            for place, index in group.indices.items():
                sides[int(place.side == "in"), layers.index(place.layer), number] += index.shape[1]
        self.outputs, self.inputs = sides
        """Channels that a layer loses per channel of a group, where it writes or scales them, and where it reads them."""
        self.full = torch.tensor([group.count for group in groups], dtype=torch.long)
        sizes = [_sizes(network.module.get_submodule(layer)) for layer in layers]
        self.sizes = torch.tensor(sizes, dtype=torch.long).reshape(len(layers), 4).T
        counted = sum(outputs * (inputs * weight + other) for outputs, inputs, weight, other in sizes)
        self.others = network.parameters - counted

    def __call__(self, counts: Sequence[int]) -> int:
        """The number of weights with `counts` channels of the groups."""
        dropped = self.full - torch.tensor(list(counts), dtype=torch.long)
        outputs, inputs, weight, other = self.sizes
        outputs, inputs = outputs - self.outputs @ dropped, inputs - self.inputs @ dropped
        return self.others + int((outputs * (inputs * weight + other)).sum())


def _sizes(part: nn.Module) -> tuple[int, int, int, int]:
    """Channels that a layer writes, channels that it reads, weights for each pair of them, and for each that it writes.

    A convolution with groups counts as one that reads a single channel, since it has as many weights whatever it reads.
    """
    tensors = {name: tensor for name, tensor in by_channel(part).items() if isinstance(tensor, nn.Parameter)}
    outputs, weight = channels_of(part), tensors.get("weight")
    has_inputs = weight is not None and weight.ndim > 1 and getattr(part, "groups", 1) == 1
    inputs = weight.shape[1] if weight is not None and has_inputs else 1
    pairs = weight.numel() // (outputs * inputs) if weight is not None and has_inputs else 0
    others = sum(tensor.numel() for tensor in tensors.values()) // outputs - pairs * inputs
    return outputs, inputs, pairs, others


def _runs_in_training(network: Network) -> bool:
    try:
        network.outputs_on_probes(training=True)
    except Exception:  # of anybody's code
        return False
    return True
