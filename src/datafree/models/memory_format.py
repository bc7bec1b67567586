"""Channels-last memory format, which is faster for convolutions, for networks that support it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .network import Network, copied, frozen

__all__ = ["channels_last"]

FEW_CHANNELS = 16
"""Input channels below which oneDNN, as it is in torch 2.13, computes the weights' gradients of strided 1 x 1 convolutions
in channels-last format wrongly, or writes beyond its memory (oneDNN, issue 6035): 8 with AVX2, 16 with AVX-512."""
MODES = ((2, False, False), (2, False, True), (17, False, False), (17, True, True))
"""(images in a batch, training mode, gradients): a network's forward may differ in each."""


@contextmanager
def channels_last(*networks: Network) -> Iterator[None]:
    """Puts four-dimensional weights into channels-last format inside the block, for networks that run with it.

    A network that, for example, calls `view` on a convolution's output does not, and is left unchanged. One with strided
    1 x 1 convolutions of few channels is put into contiguous format on a CPU, since their gradients are wrong otherwise.
    Values do not change, only their place in memory; sums may be computed in another order. Afterwards each tensor has its
    own memory again, which others may share, with the values that the block left.
    """
    with ExitStack() as stack:
        for network in networks:
            if not any(tensor.ndim == 4 for tensor in network.module.parameters()):
                continue
            stack.callback(_restore, [(tensor, tensor.data) for tensor in _tensors(network.module)])
            _reorder(network.module, torch.channels_last)
            if not _runs(network):
                _reorder(network.module, torch.contiguous_format)
        yield


def _reorder(module: nn.Module, order: torch.memory_format) -> None:
    """Reorders four-dimensional tensors; Module.to would fail on five-dimensional ones."""
    for tensor in _tensors(module):
        tensor.data = tensor.data.contiguous(memory_format=order)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*module.parameters(), *module.buffers()) if tensor.ndim == 4]


def _restore(originals: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Puts tensors back into the memory that they had, and writes there only what changed: it may be read-only."""
    for tensor, original in originals:
        if (tensor.shape, tensor.dtype, tensor.device) != (original.shape, original.dtype, original.device):
            continue  # replaced inside the block
        if not torch.equal(tensor.data, original):
            original.copy_(tensor.data)
        tensor.data = original


def _runs(network: Network) -> bool:
    """Whether the network runs in channels-last format in all `MODES`, without convolutions whose gradients are wrong."""
    spec = network.spec
    twin = network.with_module(copied(network.module))  # a batch norm in training would update its statistics
    image = torch.full((1, *spec.shape), (spec.low + spec.high) / 2, device=network.device)
    cuda = [network.device] if network.device.type == "cuda" else []
    try:
        for images, mode, gradient in MODES:
            batch = image.expand(images, -1, -1, -1).contiguous(memory_format=torch.channels_last)
            silence = redirect_stderr(io.StringIO()) if _prints(twin.module) else nullcontext()
            with (
                torch.random.fork_rng(cuda),
                torch.set_grad_enabled(gradient),
                frozen(twin.module),
                silence,
                _Convolutions() as convolutions,
            ):
                twin.module.train(mode)
                twin.logits(batch)
            if convolutions.miscomputed:
                return False
    except (RuntimeError, ValueError):  # caused by the memory format; any other error occurs again in the work itself
        return False
    return True


class _Convolutions(TorchDispatchMode):
    """Notes whether a convolution is called whose gradients are wrong in channels-last format."""

    miscomputed = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.convolution.default, torch.ops.aten._convolution.default):  # the latter if traced
            weight, stride = args[1], args[3]
            if weight.device.type == "cpu" and weight.shape[1] < FEW_CHANNELS:
                self.miscomputed |= set(weight.shape[2:]) == {1} and max(stride) > 1
        return func(*args, **(kwargs or {}))


def _prints(module: nn.Module) -> bool:
    """Whether the module prints errors before raising them, as graphs of torch.fx do."""
    return any(isinstance(part, torch.fx.GraphModule) for part in module.modules())
