"""Rules for every tensor of a state file, derived from the networks and optimizers of this run and never from the file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .files import Expected

__all__ = [
    "COUNT",
    "Slot",
    "Slots",
    "expected",
    "fault",
    "module_slots",
    "moments_of",
    "optimizer_slots",
    "prefixed",
]

COUNT = 1 << 53
"""The largest count: float64 holds every whole number up to it."""
NOT_NEGATIVE = ("running_var", "exp_avg_sq", "max_exp_avg_sq", "square")
"""Last parts of the names of tensors that hold means of squares."""


@dataclass(frozen=True)
class Slot:
    """The rule for one tensor: number format, shape, range of values, and whether they are whole numbers."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    low: float = -math.inf
    high: float = math.inf
    integral: bool = False
    rows: int | None = None
    """The largest size of the first dimension, which is then free; None: it is fixed."""

    @classmethod
    def like(cls, tensor: Tensor, **rules: Any) -> Slot:
        """A slot with a tensor's format and shape."""
        return cls(tensor.dtype, tuple(tensor.shape), **rules)

    @classmethod
    def count(cls, high: int = COUNT, low: int = 0, shape: tuple[int, ...] = ()) -> Slot:
        """Whole numbers, int64."""
        return cls(torch.int64, shape, low, high, integral=True)


Slots = dict[str, Slot]


def expected(layout: Slots, table: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]) -> Expected:
    """The layout as dtypes and shapes. A free first dimension takes its size from `table` if that is within its bound."""
    result: Expected = {}
    for name, slot in layout.items():
        shape = slot.shape
        if slot.rows is not None:
            stored_shape = table[name][1] if name in table else ()
            if stored_shape and stored_shape[0] <= slot.rows:
                shape = (stored_shape[0], *shape[1:])
        result[name] = (slot.dtype, shape)
    return result


def fault(layout: Slots, tensors: Mapping[str, Tensor]) -> str | None:
    """The first problem with the values of tensors whose formats and shapes are right; None if there is none."""
    for name, slot in layout.items():
        tensor = tensors[name]
        if not tensor.numel() or tensor.dtype == torch.bool:
            continue
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"tensor {name!r} has NaN or infinity"
        low, high = (float(bound) for bound in tensor.aminmax())
        if low < slot.low or high > slot.high:
            return (
                f"tensor {name!r} has numbers from {low:.6g} to {high:.6g}, expected {slot.low:.6g} to {slot.high:.6g}"
            )
        if slot.integral and tensor.is_floating_point() and not torch.equal(tensor, tensor.round()):
            return f"tensor {name!r} has numbers that are not whole"
    return None


def module_slots(module: nn.Module, prefix: str) -> Slots:
    """Slots of a network's state dict, as `prefix/name`."""
    return {f"{prefix}/{name}": _slot(name, tensor) for name, tensor in module.state_dict().items()}


def optimizer_slots(optimizer: torch.optim.Optimizer, prefix: str, steps: int) -> Slots:
    """Slots of every parameter's moments, as `prefix/index/key`, after at most `steps` steps."""
    return {
        f"{prefix}/{index}/{key}": replace(slot, low=0, high=steps, integral=True) if key == "step" else slot
        for index, moments in enumerate(moments_of(optimizer))
        for key, slot in moments.items()
    }


def moments_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Slot]]:
    """The slots of each parameter's optimizer state, found by one step of a new optimizer on parameters of one element."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kinds = {(parameter.dtype, parameter.ndim) for parameter in parameters}
    twins = {(dtype, ndim): torch.zeros((1,) * ndim, dtype=dtype, requires_grad=True) for dtype, ndim in kinds}
    twin_optimizer = type(optimizer)(twins.values(), lr=0.0)  # type: ignore[call-arg]
    for twin in twins.values():
        twin.grad = torch.zeros_like(twin)
    twin_optimizer.step()

    def slot(parameter: Tensor, key: str, value: Any) -> Slot:
        tensor = torch.as_tensor(value)
        shape = tuple(parameter.shape) if tensor.shape == (1,) * parameter.ndim else tuple(tensor.shape)
        return replace(_slot(key, tensor), shape=shape)

    return [
        {
            key: slot(parameter, key, value)
            for key, value in twin_optimizer.state[twins[parameter.dtype, parameter.ndim]].items()
        }
        for parameter in parameters
    ]


def prefixed(layout: Slots, prefix: str) -> Slots:
    """The same slots under `prefix/name`."""
    return {f"{prefix}/{name}": slot for name, slot in layout.items()}


def _slot(name: str, tensor: Tensor) -> Slot:
    """Integer tensors with several values (positions, an order) must stay within the range of a new network's, because a
    position beyond it can crash the process. A single value, or equal values, may be a count."""
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return Slot.like(tensor, low=0, high=COUNT, integral=True)
    if tensor.dtype in (torch.int64, torch.int32) and tensor.numel():
        low, high = (int(bound) for bound in tensor.aminmax())
        return Slot.like(tensor, low=low, high=high) if low < high else Slot.like(tensor, low=min(low, 0), high=COUNT)
    return Slot.like(tensor, low=0.0) if last in NOT_NEGATIVE else Slot.like(tensor)
