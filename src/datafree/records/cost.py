"""Estimates of what work costs in memory, refused before it is begun where the memory that is left cannot hold it.

An estimate is of the largest tensors that live together, in bytes. It is no bound: what it lets through may still fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from .._core import memory
from .._core.errors import UserError
from .._core.memory import check_cost
from ..models import hooks as tap_names
from ..models.network import Network
from .statistics.moments import Moments, MomentsAccumulator

if TYPE_CHECKING:
    pass

__all__ = [
    "check_record",
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


def check_record(network: Network, plan: Plan, chunk: Chunk, images: int) -> None:
    """Raises UserError where measuring a plan on so many images cannot fit, naming the first kind of record that would."""
    there = memory.available()
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
    meter = MomentsAccumulator(statistic, taps[0], shapes[taps[0]], classes)
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
