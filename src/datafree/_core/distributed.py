"""Several processes of one torchrun as one run: the same weights everywhere, gradients averaged, the first alone writes.

`together` starts what torchrun has prepared; without torchrun there is one process, and everything here does nothing.
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
    "gathered",
    "main_process",
    "say_first",
    "started",
    "summed",
    "together",
    "world",
]

PATIENCE = timedelta(hours=6)
"""How long a process waits for the others, which may be measuring or writing. One that ends is noticed at once."""

MOST = 1 << 20
"""Processes of a run."""

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a run, and which of them this is."""

    rank: int = 0
    size: int = 1

    def part(self, count: int) -> slice:
        """This process's share of `count` things in order: all shares together are all things, once.

        Raises UserError where one would get nothing.
        """
        if count < self.size:
            raise UserError(
                f"--batch: got {count} images a step for {self.size} processes, wanted one for each; "
                "give more, or fewer processes"
            )
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


def world() -> World:
    """Of the process group that is started; one process where none is."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def started() -> World:
    """The processes that torchrun has started, from the environment; one where it names no others, whatever RANK is.

    Raises UserError for what torchrun never sets.
    """
    size = _number("WORLD_SIZE", 1, 1, MOST)
    return World() if size == 1 else World(_number("RANK", 0, 0, size - 1), size)


NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets beside WORLD_SIZE, and each of several processes needs."""


def _number(name: str, default: int, low: int, high: int) -> int:
    text = os.environ.get(name, str(default))
    if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
        expected = f"a whole number from {low} to {high}"
        raise UserError(
            f"the environment's {name}: got {text[:40]!r}, expected {expected}; start with torchrun, or unset it"
        )
    return int(text)


def check_startable() -> None:
    """Raises UserError where the environment names several processes but not how they reach each other."""
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


@contextmanager
def together() -> Iterator[World]:
    """The processes of a torchrun as one run, until the slowest has come to the end of the block.

    Where a group is started already, or torchrun did not start this process, nothing is done. Each process of a machine
    gets a GPU of its own, where there are as many. Raises UserError where the others cannot be reached.
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
    dist.destroy_process_group()  # not after an error: the others are to notice first that this process has ended


def average_gradients(parameters: Iterable[nn.Parameter], weight: float = 1.0) -> None:
    """Gradients become their mean over the processes, each counted `weight` times (its images); one flat all-reduce.

    One that only some processes have counts as 0 in the others; one that none has stays None.
    """
    import torch

    if world().size == 1:
        return
    own = [parameter for parameter in parameters if parameter.requires_grad]
    there = [0.0 if parameter.grad is None else 1.0 for parameter in own]
    grads = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in own]
    counts = torch.tensor([*there, 1.0], device=own[0].device)
    flat = summed(weight * torch.cat([*(grad.flatten() for grad in grads), counts]))
    sizes = [grad.numel() for grad in grads]
    *sums, counts = flat.split([*sizes, len(counts)])
    for parameter, part, found in zip(own, sums, counts.tolist()):
        parameter.grad = (part / counts[-1]).view_as(parameter).to(parameter.dtype) if found else None


def summed(values: Tensor) -> Tensor:
    """The sum over all processes, the same bits in each."""
    import torch.distributed as dist

    if world().size == 1:
        return values
    total = values.detach().clone()
    with _reached():
        dist.all_reduce(total)
    return total


def broadcast(module: nn.Module) -> None:
    """Every process gets the parameters and buffers of the first."""
    if world().size > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            _from_first(tensor)


def agree(module: nn.Module) -> None:
    """Batch norms' statistics become their means over the processes, every other buffer that of the first process.

    Each process saw other images. Their unbiased variances have the mean that one of all images would have.
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
    """What `call` gives in the first process, in every process; its UserError too. The others do not call it."""
    import torch.distributed as dist

    own = world()
    if own.size == 1:
        return call()
    found: list[Any] = [None, None]
    if own.rank == 0:
        try:
            found[0] = call()
        except UserError as error:
            found[1] = str(error)
    with _reached():
        dist.broadcast_object_list(found, src=0)
    if found[1] is not None:
        raise UserError(found[1])
    return found[0]


def gathered(value: T) -> list[T]:
    """What every process has, by rank, in every process."""
    import torch.distributed as dist

    size = world().size
    if size == 1:
        return [value]
    found: list[Any] = [None] * size
    with _reached():
        dist.all_gather_object(found, value)
    return found


def say_first() -> bool:
    """Whether no other process of this torchrun has asked yet: what stops a run is said once, by whom it stops first."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=2), wait_for_workers=False)
        return store.add(f"datafree/said/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1
    except RuntimeError:  # torchrun itself is gone
        return os.environ.get("RANK", "0") == "0"


def _start() -> None:
    """Each group of a process has names of its own in torchrun's store, which outlives it."""
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise UserError(
            f"the environment's WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this torch has no torch.distributed; install "
            "one that has, or unset WORLD_SIZE"
        )
    backend, local = "gloo", _number("LOCAL_RANK", 0, 0, MOST)
    if torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"])):
        torch.cuda.set_device(local)  # what `cuda` means from here on
        backend = "cpu:gloo,cuda:nccl" if dist.is_nccl_available() else "gloo"
    with _reached():
        from torch.distributed.rendezvous import rendezvous

        store, rank, size = next(rendezvous("env://", timeout=timedelta(minutes=5)))
        turn = store.add(f"datafree/started/{rank}", 1)
        own = dist.PrefixStore(f"datafree/{turn}", store)  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)


def _from_first(tensor: Tensor) -> None:
    import torch.distributed as dist

    own = tensor.detach().contiguous()
    with _reached():
        dist.broadcast(own, src=0)
    tensor.detach().copy_(own)


@contextmanager
def _reached() -> Iterator[None]:
    """A process that has ended is how torch's RuntimeError comes about here."""
    try:
        yield
    except RuntimeError as error:
        why = str(error).splitlines()[0][:120]
        raise UserError(
            f"another process of this run has ended or cannot be reached ({why}); the part that is complete is kept: run "
            "the same command again"
        ) from None
