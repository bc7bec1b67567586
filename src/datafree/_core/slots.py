"""What every tensor of a state file must be: derived from the networks and optimizers of this run, never from the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .files import Expected

__all__ = ["COUNT", "Slot", "Slots", "expected", "fault", "module_slots", "moments_of", "optimizer_slots", "prefixed"]

COUNT = 1 << 53
"""The largest count: float64 holds every whole number up to it."""
NOT_NEGATIVE = ("running_var", "exp_avg_sq", "max_exp_avg_sq", "square")
"""Last parts of the names of tensors that are means of squares."""


@dataclass(frozen=True)
class Slot:
    """One tensor: its number format and shape, the range of its numbers, and whether they are whole."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    rows: int | None = None
    """Where given, the first dimension may have any size up to it."""

    @classmethod
    def like(cls, tensor: Tensor, **rules: Any) -> Slot:
        """A slot of a tensor's format and shape."""
        return cls(tensor.dtype, tuple(tensor.shape), **rules)

    @classmethod
    def count(cls, high: int = COUNT, low: int = 0, shape: tuple[int, ...] = ()) -> Slot:
        """Whole numbers, int64."""
        return cls(torch.int64, shape, low, high, whole=True)


Slots = dict[str, Slot]


def expected(layout: Slots, table: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> Expected:
    """The layout as dtypes and shapes; a free first dimension is that of `table`, where it is within its bound."""
    found: Expected = {}
    for name, slot in layout.items():
        shape = slot.shape
        if slot.rows is not None:
            there = table[name][1] if name in table else ()
            if there and there[0] <= slot.rows:
                shape = (there[0], *shape[1:])
        found[name] = (slot.dtype, shape)
    return found


def fault(layout: Slots, tensors: Mapping[str, Tensor]) -> str | None:
    """The first thing wrong with the numbers of tensors whose formats and shapes are right; None where nothing is."""
    for name, slot in layout.items():
        tensor = tensors[name]
        if not tensor.numel() or tensor.dtype == torch.bool:
            continue
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"tensor {name!r} has NaN or infinity"
        low, high = (float(own) for own in tensor.aminmax())
        if low < slot.low or high > slot.high:
            return f"tensor {name!r} has numbers from {low:.6g} to {high:.6g}, wanted {slot.low:.6g} to {slot.high:.6g}"
        if slot.whole and tensor.is_floating_point() and not torch.equal(tensor, tensor.round()):
            return f"tensor {name!r} has numbers that are not whole"
    return None


def module_slots(module: nn.Module, prefix: str) -> Slots:
    """Of a network's state dict, as `prefix/name`."""
    return {f"{prefix}/{name}": _slot(name, tensor) for name, tensor in module.state_dict().items()}


def optimizer_slots(optimizer: torch.optim.Optimizer, prefix: str, steps: int) -> Slots:
    """Of every parameter's moments, as `prefix/index/key`, after at most `steps` steps."""
    return {
        f"{prefix}/{index}/{key}": replace(slot, low=0, high=steps, whole=True) if key == "step" else slot
        for index, moments in enumerate(moments_of(optimizer))
        for key, slot in moments.items()
    }


def moments_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Slot]]:
    """For each parameter, what the optimizer keeps of it; found by a step of a fresh one on parameters of one number."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    twins = {
        (own.dtype, own.ndim): torch.zeros((1,) * own.ndim, dtype=own.dtype, requires_grad=True) for own in parameters
    }
    twin = type(optimizer)(twins.values(), lr=0.0)  # type: ignore[call-arg]
    for own in twins.values():
        own.grad = torch.zeros_like(own)
    twin.step()

    def slot(parameter: Tensor, key: str, value: Any) -> Slot:
        own = torch.as_tensor(value)
        shape = tuple(parameter.shape) if own.shape == (1,) * parameter.ndim else tuple(own.shape)
        return replace(_slot(key, own), shape=shape)

    return [
        {key: slot(own, key, value) for key, value in twin.state[twins[own.dtype, own.ndim]].items()}
        for own in parameters
    ]


def prefixed(layout: Slots, prefix: str) -> Slots:
    """The same slots under `prefix/name`."""
    return {f"{prefix}/{name}": slot for name, slot in layout.items()}


def _slot(name: str, tensor: Tensor) -> Slot:
    """Whole numbers of several values (positions, an order) stay within those that a fresh network has: a position beyond
    them can end the process. One value, or the same everywhere, may be a count."""
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return Slot.like(tensor, low=0, high=COUNT, whole=True)
    if tensor.dtype in (torch.int64, torch.int32) and tensor.numel():
        low, high = (int(own) for own in tensor.aminmax())
        return Slot.like(tensor, low=low, high=high) if low < high else Slot.like(tensor, low=min(low, 0), high=COUNT)
    return Slot.like(tensor, low=0.0) if last in NOT_NEGATIVE else Slot.like(tensor)
