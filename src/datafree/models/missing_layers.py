"""Explains why a network has no usable batch norm or no usable layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from .network import Network, OpaqueModule

__all__ = ["is_program", "no_batch_norm", "no_layer"]

LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
STATELESS = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []))
STATISTICS = ("running_mean", "running_var")


def no_batch_norm(network: Network) -> str:
    """The start of an error message: why `network` has no batch norm with readable statistics.

    `NAME has no batch norm` for a network without norms of any kind.
    """
    modules = list(network.module.named_modules())
    norms = [(name, part) for name, part in modules if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    other_norms = [(name, part) for name, part in modules if _keeps_statistics(part)]
    stateless = [(name, part) for name, part in modules if isinstance(part, STATELESS)]
    if program := _program(network):
        return f"{network.name} {program}, whose batch norms cannot be read"
    if norms and all(part.running_mean is None for _, part in norms):
        return f"the batch norms of {network.name} ({_first_names(norms)}) keep no running statistics"
    if norms:
        return f"no image passes a batch norm of {network.name} ({_first_names(norms)}) in one size, called as a module"
    if other_norms:
        return (
            f"the norms of {network.name} are {_kinds(other_norms)} ({_first_names(other_norms)}) and not "
            "torch.nn.BatchNorm, so it has no batch norm"
        )
    if stateless:
        return f"the norms of {network.name} are {_kinds(stateless)}, which keep no statistics, so it has no batch norm"
    if network.name.lower().endswith(".onnx"):
        return f"{network.name} has no batch norm (exporters fold them into convolutions in eval mode)"
    return f"{network.name} has no batch norm"


def no_layer(network: Network) -> str:
    """The start of an error message: why `network` has no conv or linear layer, and where its weights are.

    `NAME has no conv or linear layer` for a network without weights.
    """
    modules = list(network.module.named_modules())
    layers = [(name, part) for name, part in modules if isinstance(part, LAYERS)]
    other_layers = [
        (name, part)
        for name, part in modules
        if not isinstance(part, LAYERS)
        and not isinstance(part, nn.Embedding)
        and any(parameter.ndim >= 2 for parameter in part.parameters(recurse=False))
    ]
    if program := _program(network):
        return f"{network.name} {program}, whose layers cannot be watched"
    if layers:
        return (
            f"no image passes a conv or linear layer of {network.name} ({_first_names(layers)}) exactly once, "
            "called as a module"
        )
    if other_layers:
        return (
            f"the weights of {network.name} are in {_kinds(other_layers)} ({_first_names(other_layers)}) and not in "
            "torch.nn's own layers, so it has no conv or linear layer"
        )
    return f"{network.name} has no conv or linear layer"


def is_program(network: Network) -> bool:
    """Whether the network has compiled parts, in which nothing can be recorded."""
    return bool(_program(network))


def _program(network: Network) -> str:
    """A statement that the network is, or holds, a compiled program; empty for plain modules."""
    for name, part in network.module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            return f"holds a TorchScript program, {name!r}" if name else "is a TorchScript program"
    if isinstance(network.module, OpaqueModule):
        return "is a quantized file"
    if isinstance(network.module, torch.fx.GraphModule):
        kinds = {node.op for node in network.module.graph.nodes}
        if "call_module" not in kinds:
            return "is a captured graph of operations"
    return ""


def _keeps_statistics(part: nn.Module) -> bool:
    """Whether a module other than torch's batch norm has a running mean and variance, as FrozenBatchNorm2d does."""
    if isinstance(part, nn.modules.batchnorm._BatchNorm):
        return False
    tensors = {**part._buffers, **part._parameters}
    return isinstance(part, nn.modules.instancenorm._InstanceNorm) or all(
        tensors.get(key) is not None for key in STATISTICS
    )


def _kinds(parts: Iterable[tuple[str, nn.Module]]) -> str:
    return " and ".join(sorted({type(part).__name__ for _, part in parts}))


def _first_names(parts: Sequence[tuple[str, nn.Module]]) -> str:
    """The first two names, and "..." if there are more. The network itself has no name."""
    names = [name or "the network itself" for name, _ in parts]
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")
