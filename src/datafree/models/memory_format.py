"""Channels last: the order of a convolution's numbers in memory that is the faster one, where a network runs in it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr

import torch
from torch import nn

from .network import Network, copied, frozen

__all__ = ["channels_last"]

WAYS = ((2, False, False), (2, False, True), (17, False, False), (17, True, True))
"""Images in a batch, whether in training, whether with gradients: a network may take another way through in each."""


@contextmanager
def channels_last(*networks: Network) -> Iterator[None]:
    """Weights of four axes in channels-last order inside, of those networks that run so; put back afterwards.

    A network that calls `view` on a convolution's output, say, does not, and stays as it is. No number changes, only where
    it lies; sums may be taken in another order.
    """
    with ExitStack() as stack:
        for network in networks:
            stack.callback(_turn, network.module, _format(network.module))
            _turn(network.module, torch.channels_last)
            if not _runs(network):
                _turn(network.module, torch.contiguous_format)
        yield


def _turn(module: nn.Module, wanted: torch.memory_format) -> None:
    """Puts the numbers of tensors of four axes in that order; Module.to would do so with those of five, and fail."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.ndim == 4:
            tensor.data = tensor.data.contiguous(memory_format=wanted)


def _format(module: nn.Module) -> torch.memory_format:
    """What it is in now; contiguous where its parts differ."""
    wide = [own for own in module.parameters() if own.ndim == 4]
    last = bool(wide) and all(own.is_contiguous(memory_format=torch.channels_last) for own in wide)
    plain = all(own.is_contiguous() for own in wide)
    return torch.channels_last if last and not plain else torch.contiguous_format


def _runs(network: Network) -> bool:
    """Whether it runs in that order in every way that it is used in: with and without gradients, in training, in batches."""
    spec = network.spec
    twin = Network(copied(network.module), spec, network.name)  # a batch norm in training would keep what it sees
    image = torch.full((1, *spec.shape), (spec.low + spec.high) / 2, device=network.device)
    cuda = [network.device] if network.device.type == "cuda" else []
    try:
        for images, mode, gradient in WAYS:
            shown = image.expand(images, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            quiet = redirect_stderr(io.StringIO()) if _prints(twin.module) else nullcontext()
            with torch.random.fork_rng(cuda), torch.set_grad_enabled(gradient), frozen(twin.module), quiet:
                twin.module.train(mode)
                twin.logits(shown)
    except (RuntimeError, ValueError):  # of the order in memory; any other comes again in the work itself
        return False
    return True


def _prints(module: nn.Module) -> bool:
    """Whether an error inside is printed before it is raised, as torch.fx's graphs do."""
    return any(isinstance(part, torch.fx.GraphModule) for part in module.modules())
