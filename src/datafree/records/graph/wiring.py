"""Finds which layer feeds which, from autograd in one forward pass, for any network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..._core.errors import UserError
from ..._core.seeds import stream
from ...models import hooks as tap_names
from ...models.network import Network, frozen

__all__ = ["Wiring", "wire"]


@dataclass(frozen=True)
class Wiring:
    """The layers that run once and their connections. Shapes are those of one image."""

    layers: dict[str, nn.Module]
    feeds: tuple[tuple[str, str], ...]
    """(i, j): layer i's output reaches layer j's input without passing another conv or linear layer; ordered by j,
    then i.
    """
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]


@dataclass
class _Probe:
    leaves: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)


def wire(network: Network) -> Wiring:
    """The wiring of every layer that an image passes exactly once. Layers that run more often interrupt a path."""
    names, modules = tap_names.layers(network), dict(network.module.named_modules())
    low, high = network.spec.low, network.spec.high
    image = torch.rand(2, *network.spec.shape, generator=stream(2017, "wiring")) * (high - low) + low
    with torch.enable_grad(), frozen(network.module), _layers_detached(network.module) as probe:
        network.logits(image.to(network.device))
        feeds = [(i, j) for j in names for i in _sources(probe, j, names)]
    outputs = {name: tuple(probe.leaves[name].shape[1:]) for name in names}
    return Wiring({name: modules[name] for name in names}, tuple(feeds), probe.inputs, outputs)


def _sources(probe: _Probe, target: str, names: tuple[str, ...]) -> list[str]:
    """The layers that feed `target`. A gradient of 0 (a dead ReLU) is a connection; only None means unconnected."""
    total = probe.sums[target]
    if not total.requires_grad:
        return []
    leaves = [probe.leaves[name] for name in names]
    try:
        grads = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise UserError(
            f"the layers that feed {target!r} cannot be found by gradients: {str(error).splitlines()[0]}; "
            "use the statistic 'moments' for this network"
        ) from None
    return [name for name, grad in zip(names, grads) if grad is not None]


@contextmanager
def _layers_detached(module: nn.Module) -> Iterator[_Probe]:
    """Makes every conv and linear layer's output a leaf and stores its input's sum, inside the block."""
    probe, handles = _Probe(), []

    def hook(name: str):
        def detach(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor:
            layer_input = args[0] if args else kwargs["input"]
            probe.sums[name], probe.inputs[name] = layer_input.sum(), tuple(layer_input.shape[1:])
            probe.leaves[name] = output.detach().requires_grad_()
            return probe.leaves[name].clone()  # an in-place ReLU on a leaf would fail

        return detach

    try:
        for name, part in module.named_modules():
            if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
                handles.append(part.register_forward_hook(hook(name), with_kwargs=True))
        yield probe
    finally:
        for handle in handles:
            handle.remove()
