"""Data-parallel runs under torchrun: all processes have the same weights, gradients are averaged, and only the first writes.

`together` starts the process group that torchrun has prepared. Without torchrun there is one process, and all of this does
nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "World",
    "agree",
    "average_gradients",
    "broadcast",
    "check_startable",
    "first",
    "first_started",
    "gathered",
    "main_process",
    "say_first",
    "started",
    "summed",
    "together",
    "world",
]

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, which may be measuring or writing. A process that ends is noticed at once."""

MOST = 1 << 20
"""The largest number of processes in a run."""

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The number of processes in a run, and the index of this one."""

    rank: int = 0
    size: int = 1

    def part(self, count: int) -> slice:
        """This process's share of `count` items in order. Every item is in exactly one share.

        Raises UserError if a process would get no item.
        """
        if count < self.size:
            raise UserError(
                f"batch: got {count} images per step for {self.size} processes, expected one for each; "
                "give more, or fewer processes"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def world() -> World:
    """The running process group; a single process if there is none."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def started() -> World:
    """The processes that torchrun has started, from the environment; one process without torchrun, whatever RANK is.

    Raises UserError for values that torchrun never sets.
    """
    size = _number("WORLD_SIZE", 1, 1, MOST)
    return World() if size == 1 else World(_number("RANK", 0, 0, size - 1), size)


NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun sets besides WORLD_SIZE, and that each of several processes needs."""


def _number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        expected = f"a whole number from {low} to {high}"
        raise UserError(
            f"the environment's {name}: got {text[:40]!r}, expected {expected}; start with torchrun, or unset it"
        )
    return int(text)


def check_startable() -> None:
    """Raises UserError if the environment names several processes but not how they reach each other."""
    size = started().size
    if size == 1:
        return
    if missing := [name for name in NEEDED if not os.environ.get(name)]:
        raise UserError(
            f"the environment's WORLD_SIZE is {size}, but there is no {' or '.join(missing)}; start with torchrun, or unset "
            "WORLD_SIZE"
        )
    _number("MASTER_PORT", 0, 1, 65535)


def main_process() -> bool:
    """Whether this is the process that writes and prints."""
    return world().rank == 0


def first_started() -> bool:
    """Whether this is the first of the processes that torchrun has started, also before they join and after they part."""
    return started().rank == 0


@contextmanager
def together() -> Iterator[World]:
    """Joins the processes of a torchrun into one run; leaves the block when the slowest process has reached its end.

    Does nothing if a group is already running or if torchrun did not start this process. Each process on a machine gets its
    own GPU if there are enough. Raises UserError if the other processes cannot be reached.
    """
    if started().size == 1 or world().size > 1:
        yield world()
        return
    check_startable()
    import torch.distributed as dist

    _start()
    yield world()
    with _reached():
        dist.barrier()
    dist.destroy_process_group()  # not after an error: the others must notice that this process has ended


def average_gradients(parameters: Iterable[nn.Parameter], weight: float = 1.0) -> None:
    """Replaces gradients by their mean over the processes, weighted by `weight` (a process's images), in one all-reduce.

    A gradient that only some processes have counts as 0 in the others; one that no process has stays None.
    """
    import torch

    if world().size == 1:
        return
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    has_gradient = [0.0 if parameter.grad is None else 1.0 for parameter in trainable]
    grads = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in trainable]
    counts = torch.tensor([*has_gradient, 1.0], device=trainable[0].device)
    flat = summed(weight * torch.cat([*(grad.flatten() for grad in grads), counts]))
    sizes = [grad.numel() for grad in grads]
    *sums, counts = flat.split([*sizes, len(counts)])
    for parameter, part, any_gradient in zip(trainable, sums, counts.tolist()):
        parameter.grad = (part / counts[-1]).view_as(parameter).to(parameter.dtype) if any_gradient else None


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, bitwise equal in each."""
    import torch.distributed as dist

    if world().size == 1:
        return values
    total = values.detach().clone()
    with _reached():
        dist.all_reduce(total)
    return total


def broadcast(module: nn.Module) -> None:
    """Copies the first process's parameters and buffers to every process."""
    if world().size > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            _from_first(tensor)


def agree(module: nn.Module) -> None:
    """Replaces batch norm statistics by their means over the processes, and every other buffer by the first process's.

    Each process saw different images. The mean of their unbiased variances is unbiased as well.
    """
    size = world().size
    if size == 1:
        return
    running = {
        id(getattr(part, name))
        for part in module.modules()
        for name in ("running_mean", "running_var")
        if getattr(part, name, None) is not None
    }
    for buffer in module.buffers():
        if id(buffer) in running:
            buffer.copy_(summed(buffer) / size)
        else:
            _from_first(buffer)


def first(call: Callable[[], T]) -> T:
    """Calls `call` in the first process only, and returns its result, or raises its UserError, in every process."""
    import torch.distributed as dist

    process = world()
    if process.size == 1:
        return call()
    answer: list[Any] = [None, None]
    if process.rank == 0:
        try:
            answer[0] = call()
        except UserError as error:
            answer[1] = str(error)
    with _reached():
        dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def gathered(value: T) -> list[T]:
    """The values of all processes by rank, in every process."""
    import torch.distributed as dist

    size = world().size
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    with _reached():
        dist.all_gather_object(values, value)
    return values


def say_first() -> bool:
    """Whether this is the first process of the torchrun to ask: an error that stops a run is reported once."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=2), wait_for_workers=False)
        return store.add(f"datafree/said/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except RuntimeError:  # torchrun has ended
        return os.environ.get("RANK", "0") == "0"


def _start() -> None:
    """Starts the process group. Its keys in torchrun's store get a prefix, because the store outlives the group."""
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise UserError(
            f"the environment's WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this torch has no torch.distributed; install "
            "one that has, or unset WORLD_SIZE"
        )
    backend, local = "gloo", _number("LOCAL_RANK", 0, 0, MOST)
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])):
        torch.cuda.set_device(local)  # the device that `cuda` means from now on
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
    with _reached():
        from torch.distributed.rendezvous import rendezvous

        store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=5)))
        turn = store.add(f"datafree/started/{rank}", 1)
        group_store = dist.PrefixStore(f"datafree/{turn}", store)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=group_store, rank=rank, world_size=size, timeout=PATIENCE)


def _from_first(tensor: Tensor) -> None:
    import torch.distributed as dist

    values = tensor.detach().contiguous()
    with _reached():
        dist.broadcast(values, src=0)
    tensor.detach().copy_(values)


@contextmanager
def _reached() -> Iterator[None]:
    """Reports torch's RuntimeError as a UserError; here it means that another process has ended."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(
            f"another process of this run has ended or cannot be reached ({reason}); the part that is complete is kept: run "
            "the same command again"
        ) from None
