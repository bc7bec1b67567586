"""Finds out which channels of a network's layers belong together, so that a narrower network can keep some of them.

A residual connection adds channel 3 of one layer to channel 3 of another: whoever drops one must drop both, in every
layer that writes or reads the sum. This file follows each channel from the layer that writes it to the layers that read
it, through additions, concatenations, padding and slices, by what changes there when the channel changes. No graph of the
network is needed, only forward passes in which layers pass on marked channels instead of computing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._core.errors import UserError
from . import hooks
from .missing_layers import LAYERS
from .network import Network, copied

__all__ = ["ChannelGroup", "Place", "by_channel", "channel_groups"]

Side = Literal["out", "in", "norm"]
NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.PReLU)
"""Modules with one entry of each tensor per channel, the second dimension of their input; or without tensors."""
CHANGED = 1e-3
"""Change of a value, as a share of its size, from which on it counts as changed."""


@dataclass(frozen=True)
class Place:
    """One side of a layer: what it writes, what it reads, or what a norm scales."""

    layer: str
    side: Side


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that occur at the same places; any of them can be dropped, everywhere, without touching the others."""

    count: int
    indices: dict[Place, Tensor]
    """Place -> the positions of each channel there (count, n); n above 1 where a map is flattened."""

    @property
    def key(self) -> frozenset[tuple[Place, int]]:
        """What a group of a network of the same layers, narrower or wider, has in common with this one."""
        return frozenset((place, index.shape[1]) for place, index in self.indices.items())


@torch.no_grad()
def channel_groups(network: Network, *, grouped: bool = False) -> list[ChannelGroup]:
    """The groups of a network, in the order of its layers. Empty if a layer is used more than once or cannot be watched, and
    if the pixels decide which layers are used.

    Groups that contain a layer whose channels depend on each other in another way are left out. With `grouped`, all channels
    of one group of a grouped convolution belong together; otherwise such groups are left out too.
    """
    try:
        order = hooks.order(network)
    except UserError:
        return []
    copy = network.with_module(copied(network.module).cpu().eval())
    modules = {name: copy.module.get_submodule(name) for name in order}
    if len(modules) < len(order):
        return []
    sizes = _output_sizes(copy, modules)
    if sizes is None:
        return []
    carried = _carried(copy, modules, sizes, grouped=grouped)
    return [] if carried is None else _groups(*carried)


def _output_sizes(network: Network, modules: dict[str, nn.Module]) -> dict[str, torch.Size] | None:
    """Size of an image's output of each layer, without the batch; None if one returns no tensor."""
    sizes: dict[str, torch.Size] = {}

    def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes[name] = output.shape[1:]

    handles = [module.register_forward_hook(partial(note, name)) for name, module in modules.items()]
    try:
        network.logits(network.probes()[:1])
    finally:
        for handle in handles:
            handle.remove()
    return sizes if sizes.keys() == modules.keys() else None


Links = list[tuple[Place, Place, Tensor, Tensor]]
"""Writing place, reading place, and the linked positions of each."""


def _carried(
    network: Network, modules: dict[str, nn.Module], sizes: dict[str, torch.Size], *, grouped: bool
) -> tuple[dict[Place, int], Links, set[Place]] | None:
    """The places with their sizes, the links between them, and places at which channels are mixed.

    Changes the network's module: layers write ones, and a code at the layer that is followed.
    """
    written: dict[str, Tensor] = {}
    read: dict[str, Tensor] = {}
    widths: dict[Place, int] = {}
    mixed: set[Place] = set()
    links: Links = []

    def write(name: str, inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        read[name] = inputs.transpose(1, _dim(modules[name], inputs)) if inputs.ndim > 2 else inputs
        size = torch.Size([len(inputs), *sizes[name]])
        output = torch.ones(size)
        if name in written:
            dim = _dim(modules[name], output)
            output += written[name].view(len(inputs), *(-1 if axis == dim else 1 for axis in range(1, output.ndim)))
        return output

    def scale(name: str, inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        read[name] = inputs.transpose(1, _dim(modules[name], inputs)) if inputs.ndim > 2 else inputs
        if inputs.shape[2:] == sizes[name][1:]:
            return inputs
        means = inputs.flatten(2).mean(2).view(*inputs.shape[:2], *[1] * (len(sizes[name]) - 1))
        return means.expand(-1, *sizes[name]).clone()  # the next layer may write into it

    for module in network.module.modules():
        if (isinstance(module, NORMS) or _is_layer_norm(module)) and not _entries(module):
            vars(module)["forward"] = _same
    for name, module in modules.items():
        if isinstance(module, NORMS) or _is_depthwise(module) or _is_layer_norm(module):
            if count := _entries(module):
                widths[Place(name, "norm")] = count
                vars(module)["forward"] = partial(scale, name)
        elif isinstance(module, LAYERS):
            weight = getattr(module, "weight", None)
            writes, reads = Place(name, "out"), Place(name, "in")
            dim = _dim(module, torch.empty(1, *sizes[name]))
            widths[writes] = (1, *sizes[name])[dim]
            if getattr(module, "transposed", False) or not _is_plain(module, weight):
                mixed |= {writes, reads}
            elif isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
                if grouped:
                    links += _links_of_groups(module, reads, writes)
                    widths[reads] = module.in_channels
                else:
                    mixed |= {writes, reads}
            vars(module)["forward"] = partial(write, name)
    for source in [place for place in widths if place.side == "out"]:
        codes = _codes(widths[source])
        written.clear()
        read.clear()
        written[source.layer] = codes
        try:
            network.module(torch.ones(len(codes), *network.spec.shape))
        except Exception:  # anybody's code, which may not take what it is given here
            return None
        for target in _readers(modules, widths):
            if target.layer not in read:  # the forward pass takes another way for other values
                return None
            changed = _changed(read[target.layer])
            if widths.setdefault(target, changed.shape[1]) != changed.shape[1]:
                return None
            sources, positions = _decoded(changed, widths[source])
            if sources is None:
                mixed |= {source, target}
            elif len(positions):
                links.append((source, target, sources, positions))
    return widths, links, mixed


def _links_of_groups(module: nn.modules.conv._ConvNd, reads: Place, writes: Place) -> Links:
    """Each channel of a group of a convolution with the first one that the group writes or reads."""
    inputs, outputs = module.in_channels // module.groups, module.out_channels // module.groups
    read, written = torch.arange(module.in_channels), torch.arange(module.out_channels)
    return [
        (reads, writes, read, read // inputs * outputs),
        (writes, reads, written, written // outputs * inputs),
    ]


def _readers(modules: dict[str, nn.Module], widths: dict[Place, int]) -> Iterator[Place]:
    for name in modules:
        if Place(name, "norm") in widths:
            yield Place(name, "norm")
        elif Place(name, "out") in widths:
            yield Place(name, "in")


def _same(inputs: Tensor, *_: Any, **__: Any) -> Tensor:
    return inputs


def _dim(module: nn.Module, values: Tensor) -> int:
    """The dimension of the channels."""
    return values.ndim - 1 if isinstance(module, nn.Linear) or _is_layer_norm(module) else 1


def _is_layer_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1


def by_channel(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a layer with an entry per channel in their first dimension, by name."""
    tensors = dict(chain(module.named_parameters(recurse=False), module.named_buffers(recurse=False)))
    tensors = {name: tensor for name, tensor in tensors.items() if tensor.ndim}
    channels = next(map(len, tensors.values()), 0)
    return {name: tensor for name, tensor in tensors.items() if len(tensor) == channels}


def _entries(module: nn.Module) -> int:
    """Number of channels of a norm's tensors; 0 if it has none, or one entry for all channels, as PReLU by default."""
    channels = next(map(len, by_channel(module).values()), 0)
    return 0 if isinstance(module, nn.PReLU) and channels == 1 else channels


def _is_depthwise(module: nn.Module) -> bool:
    groups = getattr(module, "groups", 1)
    return isinstance(module, nn.modules.conv._ConvNd) and 1 < groups == module.in_channels == module.out_channels


def _is_plain(module: nn.Module, weight: Any) -> bool:
    """Whether the weight is the layer's own tensor and not computed from others."""
    return isinstance(weight, Tensor) and any(name == "weight" for name, _ in module.named_parameters(recurse=False))


def _codes(count: int) -> Tensor:
    """One row without a mark; then for each bit of the channels' numbers those that have it, and those that do not."""
    bits = max(1, (count - 1).bit_length())
    marked = (torch.arange(count) >> torch.arange(bits)[:, None]) & 1
    return torch.cat([torch.zeros(1, count), marked.float(), 1.0 - marked.float()])


def _changed(values: Tensor) -> Tensor:
    """Per row of codes but the first (rows, channels): whether the channel changed anywhere."""
    rows = values.flatten(2).float() if values.ndim > 2 else values[..., None].float()
    return ((rows[1:] - rows[:1]).abs() > CHANGED * (1 + rows[:1].abs())).any(2)


def _decoded(changed: Tensor, count: int) -> tuple[Tensor | None, Tensor]:
    """The number of the channel that each position got, and those positions; None if one got several channels."""
    having, lacking = changed.chunk(2)
    positions = (having | lacking).any(0).nonzero()[:, 0]
    having, lacking = having[:, positions], lacking[:, positions]
    if not bool((having ^ lacking).all()):
        return None, positions
    sources = (having.long() << torch.arange(len(having))[:, None]).sum(0)
    return (sources if bool((sources < count).all()) else None), positions


def _groups(widths: dict[Place, int], links: Links, mixed: set[Place]) -> list[ChannelGroup]:
    """Connected channels, in groups of those with the same places."""
    places = list(widths)
    starts = dict(zip(places, torch.tensor([0, *widths.values()]).cumsum(0).tolist(), strict=False))
    roots = list(range(sum(widths.values())))

    def root(node: int) -> int:
        while roots[node] != node:
            roots[node] = node = roots[roots[node]]
        return node

    for source, target, sources, positions in links:
        for one, other in zip((sources + starts[source]).tolist(), (positions + starts[target]).tolist(), strict=True):
            first, second = sorted((root(one), root(other)))
            roots[second] = first
    members: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place in places:
        for index in range(widths[place]):
            members[root(starts[place] + index)][place].append(index)
    classes: dict[frozenset[tuple[Place, int]], list[dict[Place, list[int]]]] = defaultdict(list)
    for channel in members.values():
        key = frozenset(Counter({place: len(positions) for place, positions in channel.items()}).items())
        classes[key].append(channel)
    return [
        ChannelGroup(
            len(channels), {place: torch.tensor([channel[place] for channel in channels]) for place in channels[0]}
        )
        for channels in classes.values()
        if not mixed & channels[0].keys()
    ]
