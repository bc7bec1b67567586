"""Estimates the memory of recording, which is refused before it starts if it does not fit.

An estimate is the size in bytes of the largest tensors that exist at the same time. It is no upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import torch

from .._core import memory
from .._core.errors import UserError
from .._core.memory import check_cost
from ..models import hooks as tap_names
from ..models.network import Network
from .statistics.moments import Moments, MomentsAccumulator

__all__ = [
    "check_record",
    "record_bytes",
]

Plan: TypeAlias = Mapping[str, tuple[Any, tuple[str, ...]]]
Chunk: TypeAlias = Callable[[Sequence[str]], int]

FLOAT64, FLOAT32 = 8, 4
SMALLER: tuple[dict[str, Any], ...] = (
    {"conv": "channels"},
    {"covariance": "diagonal"},
    {"covariance": "diagonal", "conv": "channels"},
    {"pooled": True},
    {"covariance": "diagonal", "pooled": True, "conv": "channels"},
    {"covariance": "none", "conv": "channels"},
)
"""Changes of settings for a smaller record of moments, the smallest loss first."""


def check_record(network: Network, plan: Plan, chunk: Chunk, images: int) -> None:
    """Raises UserError if measuring a plan on this many images does not fit; names the first smaller record that does."""
    free = memory.available()
    needed = record_bytes(network, plan, chunk, images)
    if free is not None and needed > free:
        check_cost(needed, "that record", list(smaller_records(network, plan, chunk, images)))


def record_bytes(network: Network, plan: Plan, chunk: Chunk, images: int) -> int:
    """Bytes for measuring a plan, entry name -> (statistic, taps). `chunk` returns the images in a batch at these taps.

    These are the sums of every entry, the largest ones once more while they are merged, both twice if there are several
    batches; the activations, and those of the largest tap three times in float64.
    """
    taps = sorted({tap for _, entry_taps in plan.values() for tap in entry_taps})
    shapes = tap_names.shapes(network, taps)
    units = {tap: math.prod(shape) for tap, shape in shapes.items()}
    batch = min(images, chunk(taps))
    states = [_state_bytes(network, statistic, entry_taps, shapes) for statistic, entry_taps in plan.values()]
    activations = batch * (FLOAT32 * sum(units.values()) + 3 * FLOAT64 * max(units.values(), default=0))
    times = 1 if images <= batch else 2
    return times * (sum(states) + max(states, default=0)) + activations


def smaller_records(network: Network, plan: Plan, chunk: Chunk, images: int) -> Iterator[tuple[str, int]]:
    """(a smaller record in words, its bytes), for a plan with moments."""
    if not any(isinstance(statistic, Moments) for statistic, _ in plan.values()):
        return
    for change in SMALLER:
        smaller_plan = {
            name: (statistic.model_copy(update=change) if isinstance(statistic, Moments) else statistic, entry_taps)
            for name, (statistic, entry_taps) in plan.items()
        }
        with suppress(UserError):  # too many units for a covariance
            words = " ".join(f"`{name}={value!r}`" for name, value in change.items())
            yield f"the statistic 'moments' with {words}", record_bytes(network, smaller_plan, chunk, images)
    top = (tap_names.layers(network)[-1],)
    yield "`preset='small'`", record_bytes(network, {"top": (Moments(covariance="full"), top)}, chunk, images)


def _measured_bytes(
    network: Network, statistic: Any, taps: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]
) -> int:
    """Bytes of the sums of one black image, for statistics that take images: sums have the same size for any number."""
    if not statistic.needs_data:
        return 0
    accumulator = statistic.bind(network, taps)
    black = [torch.zeros(1, *shapes[tap]) for tap in taps]
    state = accumulator.reduce(black, torch.zeros(1, dtype=torch.long))
    return sum(tensor.nbytes for tensor in state.values())


def _state_bytes(network: Network, statistic: Any, taps: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of one entry's sums; for a spectral entry also of its basis, in float64."""
    classes = len(network.spec.classes)
    if not isinstance(statistic, Moments):
        units = sum(math.prod(shapes[tap]) for tap in taps)
        if not str(statistic.kind).startswith("spectral"):
            return max(3 * FLOAT64 * units, _measured_bytes(network, statistic, taps, shapes))
        channels = sum(shapes[tap][0] for tap in taps)
        vertices = units if units <= 8192 else channels  # the choice of graph.build
        columns = 2 * statistic.rank + 8 if statistic.signal == "class-moments" else 2
        return FLOAT64 * (classes * vertices * columns + vertices * vertices)
    accumulator = MomentsAccumulator(statistic, taps[0], shapes[taps[0]], classes)
    size, groups = accumulator.size, 1 if statistic.pooled else classes
    per_group = 0
    if statistic.covariance in ("diagonal", "lowrank"):
        per_group += size
    if statistic.covariance == "lowrank":
        per_group += 2 * size * min(size, 2 * statistic.rank + 8)  # the sketch, twice while it is added to
    if statistic.covariance in ("full", "shrunk"):
        per_group += size * size
    return FLOAT64 * (2 * classes * size + groups * per_group)
