"""Makes a smaller network of another one, by leaving out channels or blocks, and gives a network the sizes of its weights.

Which channels belong together is found by `channel_groups`. A reduced network is built by the code of the larger one; it has
the channels and blocks that are in its weights, so a file of weights is all that is needed beside the code.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import kl_div

from .._core.errors import UserError
from .._core.seeds import seed_of
from .channel_groups import NORMS, ChannelGroup, Place, by_channel, channel_groups
from .missing_layers import LAYERS
from .network import Network, copied

__all__ = [
    "Passed",
    "narrower",
    "new_weights",
    "pass_block",
    "passed_blocks",
    "shallower",
    "take_blocks",
    "take_sizes",
]

RESIZED = (*LAYERS, *NORMS, nn.LayerNorm)
"""Modules whose tensors may have other sizes than their code gives them."""

PROBES, IMAGES, PIXELS = 16, 64, 64 * 3 * 64 * 64
"""Images on which the removal of blocks is measured: at least, at most, and their pixels together."""
CONTAINERS = (nn.Sequential, nn.ModuleList)

Masks = dict[Place, Tensor]
"""Place -> which of its channels are kept."""


@torch.no_grad()
def narrower(network: Network, share: float = 0.5) -> Network:
    """A copy of the network with about `share` of the channels of every layer whose channels can be followed.

    The first channels are kept, with their weights; inputs and classes are those of the network. A group of channels whose
    removal the network does not allow, since its code expects a fixed number of them, is kept whole. Raises UserError if
    that is so for all of them.
    """
    masks = _masks(network, _possible(network, _removable(network), [], share), share)
    narrow = _if_possible(network, masks) if masks else None
    if narrow is None:
        raise UserError(
            f"student 'half': no channels of {network.name} can be left out, expected a network whose layers pass "
            "each other 2 channels or more that can be followed; name a student of the same input and classes"
        )
    return narrow


def _possible(
    network: Network, groups: list[ChannelGroup], others: list[ChannelGroup], share: float
) -> list[ChannelGroup]:
    """Those of the groups that can lose channels beside the others."""
    masks = _masks(network, [*others, *groups], share)
    if not masks or _if_possible(network, masks, quick=True) is not None:
        return groups
    if len(groups) == 1:
        return []
    half = len(groups) // 2
    first = _possible(network, groups[:half], others, share)
    return first + _possible(network, groups[half:], [*others, *first], share)


def _removable(network: Network) -> list[ChannelGroup]:
    """Groups that some layers write and others read, without weights that several layers share."""
    uses = Counter(id(tensor) for part in network.module.modules() for tensor in part.parameters(recurse=False))
    shared = {
        name
        for name, part in network.module.named_modules()
        if any(uses[id(tensor)] > 1 for tensor in part.parameters(recurse=False))
    }
    return [
        group
        for group in channel_groups(network, grouped=True)
        if {"out", "in"} <= {place.side for place in group.indices}
        and not shared & {place.layer for place in group.indices}
    ]


def _masks(network: Network, groups: list[ChannelGroup], share: float) -> Masks:
    """The channels that each place keeps; empty if all are kept."""
    dropped: dict[Place, list[Tensor]] = defaultdict(list)
    for group in groups:
        together = math.lcm(*(_together(network, place, index.shape[1]) for place, index in group.indices.items()))
        kept = max(1, math.ceil(share * group.count / together)) * together
        for place, index in group.indices.items():
            dropped[place].append(index[kept:].flatten())
    masks: Masks = {}
    for place, positions in dropped.items():
        if sum(map(len, positions)):
            masks[place] = torch.ones(_width(network.module.get_submodule(place.layer), place), dtype=torch.bool)
            masks[place][torch.cat(positions)] = False
    return masks


def _together(network: Network, place: Place, positions: int) -> int:
    """Number of members of a group, with `positions` channels each, that a group norm normalises together; else 1."""
    part = network.module.get_submodule(place.layer)
    if not isinstance(part, nn.GroupNorm):
        return 1
    channels = part.num_channels // part.num_groups
    return channels // math.gcd(channels, positions)


def _width(part: nn.Module, place: Place) -> int:
    if place.side != "in":
        return _channels(part)
    return part.in_features if isinstance(part, nn.Linear) else part.in_channels  # type: ignore[return-value]


def _channels(part: nn.Module) -> int:
    return len(next(iter(by_channel(part).values())))


def _if_possible(network: Network, masks: Masks, *, quick: bool = False) -> Network | None:
    """The network with the kept channels alone; None if it does not work, or not in training mode, where this one does.

    `quick`: one forward pass in each mode is all that is tried.
    """
    narrow = replace(network.with_module(copied(network.module)), reduced=True)
    for place, mask in masks.items():
        part = narrow.module.get_submodule(place.layer)
        dim = int(place.side == "in")
        if dim and getattr(part, "groups", 1) > 1:  # its weights have only the inputs of a group
            continue
        for name, tensor in ({"weight": part.get_parameter("weight")} if dim else by_channel(part)).items():
            _put(part, name, tensor.detach().index_select(dim, mask.nonzero()[:, 0].to(tensor.device)))
    for layer in dict.fromkeys(place.layer for place in masks):
        _take_attributes(narrow.module.get_submodule(layer), network.module.get_submodule(layer))
    try:
        if quick:
            narrow.predict(narrow.probes()[:2])
        else:
            narrow.check()
    except Exception:  # of anybody's code, which may not take other sizes
        return None
    return narrow if _runs_in_training(narrow) or not _runs_in_training(network) else None


def _runs_in_training(network: Network) -> bool:
    try:
        network.outputs_on_probes(training=True)
    except Exception:  # of anybody's code
        return False
    return True


def _put(part: nn.Module, name: str, tensor: Tensor) -> None:
    """Replaces a parameter or buffer."""
    old = getattr(part, name)
    if isinstance(old, nn.Parameter):
        setattr(part, name, nn.Parameter(tensor.contiguous(), requires_grad=old.requires_grad))
    else:
        setattr(part, name, tensor.contiguous())


def _take_attributes(part: nn.Module, original: nn.Module) -> None:
    """Sets the numbers of channels that a layer states beside its tensors."""
    if isinstance(part, nn.Linear):
        part.out_features, part.in_features = part.weight.shape
    elif isinstance(part, nn.modules.conv._ConvNd):
        assert isinstance(original, nn.modules.conv._ConvNd)
        part.out_channels = len(part.weight)
        if original.groups > 1:
            part.groups = len(part.weight) * original.groups // original.out_channels
        part.in_channels = part.weight.shape[1] * part.groups
    elif isinstance(part, nn.LayerNorm):
        part.normalized_shape = tuple(next(iter(by_channel(part).values())).shape)
    elif isinstance(part, nn.GroupNorm):
        assert isinstance(original, nn.GroupNorm)
        part.num_channels = _channels(part)
        part.num_groups = max(1, part.num_channels * original.num_groups // original.num_channels)
    else:
        for name in ("num_features", "num_parameters"):
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, _channels(part))


class Passed(nn.Module):
    """In the place of a block that was left out: returns a copy of its input, into which the network may write."""

    def forward(self, inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        return inputs.clone()


@torch.no_grad()
def shallower(network: Network, pixels: Tensor, share: float = 1 / 3) -> Network:
    """A copy of the network without about `share` of its blocks: those whose removal changes its logits least.

    A block is a module beside others of its class in a Sequential or ModuleList, each of which keeps at least one. The
    change is that of the classes' probabilities for `pixels` (N, C, H, W), in the spec's range, when the block alone is left
    out: their Kullback-Leibler divergence. Only blocks that return one tensor of the shape of their input can be left out.
    Raises UserError if there are too few.
    """
    blocks, removable = _blocks(network)
    pixels = pixels[: max(PROBES, min(IMAGES, PIXELS // network.spec.pixels))]
    expected = network.predict(pixels).log_softmax(1)
    shallow = replace(network.with_module(copied(network.module)), reduced=True)
    changes: dict[str, float] = {}
    for name in removable:
        block = pass_block(shallow.module, name)
        with suppress(Exception):  # anybody's code, which may not work without it
            logits = shallow.predict(pixels).log_softmax(1)
            changes[name] = float(kl_div(logits, expected, reduction="batchmean", log_target=True))
        shallow.module.set_submodule(name, block)
    left = Counter(name.rpartition(".")[0] for name in blocks)
    for name in sorted(changes, key=lambda name: changes[name]):
        container = name.rpartition(".")[0]
        if len(passed_blocks(shallow.module)) < max(1, int(share * len(blocks))) and left[container] > 1:
            pass_block(shallow.module, name)
            left[container] -= 1
    if not passed_blocks(shallow.module):
        raise UserError(
            f"student 'shallow': {network.name} has {len(blocks)} blocks, {len(changes)} of which can be left out, "
            "expected at least 2 of one class in a Sequential or ModuleList, one of them with outputs like its inputs; "
            "name a student of the same input and classes"
        )
    shallow.check()
    return shallow


def _blocks(network: Network) -> tuple[list[str], list[str]]:
    """The names of all blocks, and of those that return a tensor of their input's shape, in the order of the modules.

    Where blocks are nested, as in stages, those of the outermost class of which at least half can be left out.
    """
    module = copied(network.module)
    names = _named_blocks(module)
    kinds = {name: type(module.get_submodule(name)) for name in names}
    same: dict[str, list[bool]] = defaultdict(list)

    def note(name: str, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        same[name].append(
            bool(inputs)
            and isinstance(output, Tensor)
            and isinstance(inputs[0], Tensor)
            and inputs[0].shape == output.shape
        )

    for name in names:
        module.get_submodule(name).register_forward_hook(partial(note, name))
    copy = network.with_module(module)
    copy.predict(copy.probes()[:2])
    removable = [name for name in names if same[name] == [True]]
    blocks: list[str] = []
    for name in names:
        alike = [other for other in names if kinds[other] is kinds[name]]
        has_inner = any(other.startswith(f"{name}.") for other in names)
        is_stage = has_inner and 2 * len(set(alike) & set(removable)) < len(alike)
        if not is_stage and not any(name.startswith(f"{outer}.") for outer in blocks):
            blocks.append(name)
    classes = {kinds[name] for name in blocks} - set(CONTAINERS)
    blocks = [name for name in blocks if not _has_outer(module, name, classes)]
    return blocks, [name for name in blocks if name in removable]


def _has_outer(module: nn.Module, name: str, classes: set[type[nn.Module]]) -> bool:
    """Whether it lies in a module of one of these classes, such as the only block of its stage."""
    parts = name.split(".")
    outer = (".".join(parts[:depth]) for depth in range(1, len(parts)))
    return any(type(module.get_submodule(path)) in classes for path in outer)


def _named_blocks(module: nn.Module) -> list[str]:
    """The names of modules with parts, and with linear or convolution layers among them, that stand beside others of their
    class in a Sequential or ModuleList; the outer ones before those inside them.
    """
    names: list[str] = []
    for name, container in module.named_modules():
        if not isinstance(container, CONTAINERS):
            continue
        kinds = Counter(type(part) for part in container)
        names += [
            f"{name}.{key}" if name else key
            for key, part in container.named_children()
            if kinds[type(part)] > 1
            and not isinstance(part, (nn.ModuleList, *LAYERS))
            and any(isinstance(inner, LAYERS) for inner in part.modules())
        ]
    return names


def pass_block(module: nn.Module, name: str) -> nn.Module:
    """Leaves a block out, in place, and returns it. Raises AttributeError for a module without it."""
    block = module.get_submodule(name)
    module.set_submodule(name, Passed())
    return block


def passed_blocks(module: nn.Module) -> list[str]:
    """The names of the blocks that are left out."""
    return [name for name, part in module.named_modules() if isinstance(part, Passed)]


def take_blocks(module: nn.Module, tensors: Iterable[str]) -> None:
    """Leaves out the blocks of `module` of which none of these names of tensors is."""
    names = list(tensors)
    for block in _named_blocks(module):
        with suppress(AttributeError):  # inside a block that is left out
            if not any(name.startswith(f"{block}.") for name in names):
                pass_block(module, block)


def take_sizes(module: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
    """Gives the layers of `module` the sizes in `shapes`, by the names of their tensors, where these are smaller.

    The first entries are kept. A tensor whose sizes are larger, of other dimensions or of another kernel is left as it is.
    """
    for name, part in module.named_modules():
        if not isinstance(part, RESIZED):
            continue
        original = copied(part)
        for key, tensor in [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]:
            shape = shapes.get(f"{name}.{key}" if name else key)
            if shape is None or len(shape) != tensor.ndim or shape == tensor.shape or 0 in shape:
                continue
            if shape[2:] != tensor.shape[2:]:  # the size of a kernel
                continue
            if all(small <= large for small, large in zip(shape, tensor.shape, strict=True)):
                _put(part, key, tensor.detach()[tuple(slice(size) for size in shape)].clone())
        if by_channel(part):
            _take_attributes(part, original)


def _draw(tensor: Tensor) -> None:
    """Draws anew, in place, from a normal distribution with the mean and standard deviation that the values have."""
    if tensor.is_floating_point() and tensor.numel() > 1 and (deviation := float(tensor.float().std())) > 0:
        tensor.copy_(float(tensor.float().mean()) + deviation * torch.randn(tensor.shape))


@torch.no_grad()
def new_weights(network: Network, *, seed: int) -> Network:
    """A copy on the CPU with random weights that depend only on the seed: those with which its layers are created in torch.

    Parameters that their modules do not create anew, such as those of weight norm, are drawn from a normal distribution
    with the mean and standard deviation that they have.
    """
    module = copied(network.module).cpu().train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights", network.name))
        for part in module.modules():
            before = {name: tensor.clone() for name, tensor in part.named_parameters(recurse=False)}
            reset = getattr(part, "reset_parameters", None)
            if callable(reset) and (before or isinstance(part, NORMS)):
                with suppress(Exception):  # anybody's code, which may need arguments
                    reset()
            for name, tensor in part.named_parameters(recurse=False):
                if name in before and torch.equal(tensor, before[name]):
                    _draw(tensor)
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    return network.with_module(module)
