"""Estimates of what work costs in memory, refused before it is begun where the memory that is left cannot hold it.

An estimate is of the largest tensors that live together, in bytes. It is no bound: what it lets through may still fail.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from . import taps as tap_names
from .errors import UserError
from .network import Network
from .stats.moments import Moments, MomentsMeter

if TYPE_CHECKING:
    from .records import Record

__all__ = [
    "available",
    "check_cost",
    "check_distribution",
    "check_record",
    "distribution_bytes",
    "in_words",
    "inversion_bytes",
    "record_bytes",
]

Plan: TypeAlias = Mapping[str, tuple[Any, tuple[str, ...]]]
Chunk: TypeAlias = Callable[[Sequence[str]], int]

FLOAT64, FLOAT32 = 8, 4
SMALLER: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--conv channels", {"conv": "channels"}),
    ("--covariance diagonal", {"covariance": "diagonal"}),
    ("--covariance diagonal --conv channels", {"covariance": "diagonal", "conv": "channels"}),
    ("--pooled", {"pooled": True}),
    ("--covariance diagonal --pooled --conv channels", {"covariance": "diagonal", "pooled": True, "conv": "channels"}),
    ("--covariance none --conv channels", {"covariance": "none", "conv": "channels"}),
)
"""What a record of moments may be asked for instead, the least loss first."""


def available() -> int | None:
    """Bytes that this process can still take: of the machine, of its control group, under `ulimit -v`; None if unknown."""
    found = [own for own in (_machine(), _group(), _limit()) if own is not None]
    return max(0, min(found)) if found else None


def in_words(count: int) -> str:
    """`15.6 GB`, or in MB below a thousand of them."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def check_cost(needed: int, what: str, advice: Sequence[tuple[str, int]] = (), otherwise: str = "") -> None:
    """Raises UserError where `what` needs more bytes than there are, naming the first piece of advice that fits.

    `advice` are pairs of what to give instead and what that would cost.
    """
    there = available()
    if there is None or needed <= there:
        return
    fitting = next((f"{text} (about {in_words(cost)})" for text, cost in advice if cost <= there), None)
    do = f"give {fitting}" if fitting else otherwise or "use a machine with more memory"
    raise UserError(
        f"{what} needs about {in_words(needed)} of memory, expected at most the {in_words(there)} available; {do}"
    )


def check_record(network: Network, plan: Plan, chunk: Chunk, images: int) -> None:
    """Raises UserError where measuring a plan on so many images cannot fit, naming the first kind of record that would."""
    there = available()
    needed = record_bytes(network, plan, chunk, images)
    if there is not None and needed > there:
        check_cost(needed, "that record", list(smaller_records(network, plan, chunk, images)))


def record_bytes(network: Network, plan: Plan, chunk: Chunk, images: int) -> int:
    """What measuring a plan takes: entry name -> (statistic, taps); `chunk` says how many images a batch has at these taps.

    The sums of every entry, and those of the largest once more while they are put together; both twice where there are
    several batches. Activations as they come, and those of the largest tap three times in float64.
    """
    taps = sorted({tap for _, own in plan.values() for tap in own})
    shapes = tap_names.shapes(network, taps)
    units = {tap: _product(shape) for tap, shape in shapes.items()}
    batch = min(images, chunk(taps))
    states = [_state_bytes(network, statistic, own, shapes) for statistic, own in plan.values()]
    live = batch * (FLOAT32 * sum(units.values()) + 3 * FLOAT64 * max(units.values(), default=0))
    times = 1 if images <= batch else 2
    return times * (sum(states) + max(states, default=0)) + live


def smaller_records(network: Network, plan: Plan, chunk: Chunk, images: int) -> Iterator[tuple[str, int]]:
    """What may be recorded instead and its cost, for a plan of moments."""
    if not any(isinstance(statistic, Moments) for statistic, _ in plan.values()):
        return
    for text, change in SMALLER:
        other = {
            name: (statistic.model_copy(update=change) if isinstance(statistic, Moments) else statistic, own)
            for name, (statistic, own) in plan.items()
        }
        with suppress(UserError):  # units beyond what a covariance is measured of
            yield f"--kind moments {text}", record_bytes(network, other, chunk, images)
    top = (tap_names.layers(network)[-1],)
    yield "--preset small", record_bytes(network, {"top": (Moments(covariance="full"), top)}, chunk, images)


def distribution_bytes(classes: int, pixels: int, rank: int) -> int:
    """What fitting the distribution of the pixels takes: all classes' covariances (classes x pixels^2) up to three times in
    float64, and a class's own in float32 some eight times while it is fitted.
    """
    square = pixels * pixels
    return 3 * FLOAT64 * classes * square + 8 * FLOAT32 * square + 2 * FLOAT32 * classes * pixels * min(rank, pixels)


def check_distribution(network: Network, record: Record, rank: int) -> None:
    """Raises UserError where the distribution of the pixels cannot be fitted here, naming a method that can."""
    top = tap_names.layers(network)[-1]
    one = inversion_bytes(network, 1)
    instead = [("--method inception", one)]
    if any(entry.taps == (top,) for entry in record.of_kind("moments").values()):
        instead.insert(0, ("--method top", one))
    classes, pixels = len(network.spec.classes), network.spec.pixels
    what = f"the distribution of {pixels:,} pixels in each of {classes:,} classes"
    check_cost(distribution_bytes(classes, pixels, rank), what, instead)


def inversion_bytes(network: Network, images: int) -> int:
    """What one step on so many images takes: activations and their gradients, the pixels with their gradient and moments."""
    units: list[int] = []

    def note(_: nn.Module, __: Any, output: Any) -> None:
        units.append(output.numel() if isinstance(output, Tensor) else 0)

    leaves = [part for part in network.module.modules() if not [*part.children()]]
    handles = [part.register_forward_hook(note) for part in leaves if not isinstance(part, torch.jit.ScriptModule)]
    try:
        network.predict(network.probes()[:1])
    finally:
        for handle in handles:
            handle.remove()
    return FLOAT32 * images * (2 * sum(units) + 6 * network.spec.pixels)


def _state_bytes(network: Network, statistic: Any, taps: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Of one entry's sums. A spectral entry's basis counts, in float64."""
    classes = len(network.spec.classes)
    if not isinstance(statistic, Moments):
        units = sum(_product(shapes[tap]) for tap in taps)
        if not str(statistic.kind).startswith("spectral"):
            return 3 * FLOAT64 * units
        channels = sum(shapes[tap][0] for tap in taps)
        vertices = units if units <= 8192 else channels  # as graph.build chooses
        columns = 2 * statistic.rank + 8 if statistic.signal == "class-moments" else 2
        return FLOAT64 * (classes * vertices * columns + vertices * vertices)
    meter = MomentsMeter(statistic, taps[0], shapes[taps[0]], classes)
    size, groups = meter.size, 1 if statistic.pooled else classes
    each = 0
    if statistic.covariance in ("diagonal", "lowrank"):
        each += size
    if statistic.covariance == "lowrank":
        each += 2 * size * min(size, 2 * statistic.rank + 8)  # the sketch, and as much again while it is added to
    if statistic.covariance in ("full", "shrunk"):
        each += size * size
    return FLOAT64 * (2 * classes * size + groups * each)


def _product(shape: Sequence[int]) -> int:
    total = 1
    for own in shape:
        total *= own
    return total


def _machine() -> int | None:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    names = getattr(os, "sysconf_names", {})
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if "SC_PHYS_PAGES" in names else None


def _group() -> int | None:
    """What the control groups of this process, and those above, leave; their file cache can be taken back."""
    left: list[int] = []
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, kinds, place = line.split(":", 2)
            if kinds == "":  # version 2
                root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
            elif "memory" in kinds.split(","):
                root = Path("/sys/fs/cgroup/memory")
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            own = root / place.lstrip("/")
            left += [count for folder in (own, *own.parents) if (count := _left(folder, *names)) is not None]
    return min(left, default=None)


def _left(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    with suppress(OSError, ValueError):
        most = (folder / limit).read_text().strip()
        if most != "max":
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return int(most) - int((folder / usage).read_text()) + int(stat.get(cache, 0))
    return None


def _limit() -> int | None:
    """What `ulimit -v` leaves of the address space."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            return soft - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return None
