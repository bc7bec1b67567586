"""Gives a network the sizes of its weights, where these have fewer channels or blocks than its code builds.

A reduced network is built by the code of the larger one; it has the channels and blocks that are in its weights, so a file
of weights is all that is needed beside the code. What is left out is decided in the package `pruning`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from .._core.seeds import seed_of
from .channel_groups import NORMS, by_channel
from .missing_layers import LAYERS
from .network import Network, copied

__all__ = [
    "CONTAINERS",
    "Passed",
    "channels_of",
    "named_blocks",
    "new_weights",
    "pass_block",
    "passed_blocks",
    "put_tensor",
    "take_attributes",
    "take_blocks",
    "take_sizes",
]

RESIZED = (*LAYERS, *NORMS, nn.LayerNorm)
"""Modules whose tensors may have other sizes than their code gives them."""
CONTAINERS = (nn.Sequential, nn.ModuleList)


def channels_of(part: nn.Module) -> int:
    """Number of channels that a layer writes or scales."""
    return len(next(iter(by_channel(part).values())))


def put_tensor(part: nn.Module, name: str, tensor: Tensor) -> None:
    """Replaces a parameter or buffer."""
    old = getattr(part, name)
    if isinstance(old, nn.Parameter):
        setattr(part, name, nn.Parameter(tensor.contiguous(), requires_grad=old.requires_grad))
    else:
        setattr(part, name, tensor.contiguous())


def take_attributes(part: nn.Module, original: nn.Module) -> None:
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
        part.num_channels = channels_of(part)
        part.num_groups = max(1, part.num_channels * original.num_groups // original.num_channels)
    else:
        for name in ("num_features", "num_parameters"):
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, channels_of(part))


class Passed(nn.Module):
    """In the place of a block that was left out: returns a copy of its input, into which the network may write."""

    def forward(self, inputs: Tensor, *_: Any, **__: Any) -> Tensor:
        return inputs.clone()


def named_blocks(module: nn.Module) -> list[str]:
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
    for block in named_blocks(module):
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
                put_tensor(part, key, tensor.detach()[tuple(slice(size) for size in shape)].clone())
        if by_channel(part):
            take_attributes(part, original)


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
