"""Channels-last memory format, which is faster for convolutions, for networks that support it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr

import torch
from torch import nn

from .network import Network, copied, frozen

__all__ = ["channels_last"]

MODES = ((2, False, False), (2, False, True), (17, False, False), (17, True, True))
"""(images in a batch, training mode, gradients): a network's forward may differ in each."""


@contextmanager
def channels_last(*networks: Network) -> Iterator[None]:
    """Puts four-dimensional weights into channels-last format inside the block, for networks that run with it.

    A network that, for example, calls `view` on a convolution's output does not, and is left unchanged. Values do not
    change, only their place in memory; sums may be computed in another order.
    """
    with ExitStack() as stack:
        for network in networks:
            if not any(tensor.ndim == 4 for tensor in network.module.parameters()):
                continue
            stack.callback(_reorder, network.module, _format(network.module))
            _reorder(network.module, torch.channels_last)
            if not _runs(network):
                _reorder(network.module, torch.contiguous_format)
        yield


def _reorder(module: nn.Module, order: torch.memory_format) -> None:
    """Reorders four-dimensional tensors; Module.to would fail on five-dimensional ones."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=order)


def _format(module: nn.Module) -> torch.memory_format:
    """The module's present memory format; contiguous if its parts differ."""
    weights = [parameter for parameter in module.parameters() if parameter.ndim == 4]
    all_channels_last = bool(weights) and all(
        parameter.is_contiguous(memory_format=torch.channels_last) for parameter in weights
    )
    all_contiguous = all(parameter.is_contiguous() for parameter in weights)
    return torch.channels_last if all_channels_last and not all_contiguous else torch.contiguous_format


def _runs(network: Network) -> bool:
    """Whether the network runs in channels-last format in all `MODES`."""
    spec = network.spec
    twin = network.with_module(copied(network.module))  # a batch norm in training would update its statistics
    image = torch.full((1, *spec.shape), (spec.low + spec.high) / 2, device=network.device)
    cuda = [network.device] if network.device.type == "cuda" else []
    try:
        for images, mode, gradient in MODES:
            batch = image.expand(images, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            silence = redirect_stderr(io.StringIO()) if _prints(twin.module) else nullcontext()
            with torch.random.fork_rng(cuda), torch.set_grad_enabled(gradient), frozen(twin.module), silence:
                twin.module.train(mode)
                twin.logits(batch)
    except (RuntimeError, ValueError):  # caused by the memory format; any other error occurs again in the work itself
        return False
    return True


def _prints(module: nn.Module) -> bool:
    """Whether the module prints errors before raising them, as graphs of torch.fx do."""
    return any(isinstance(part, torch.fx.GraphModule) for part in module.modules())
