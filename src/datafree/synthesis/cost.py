"""Estimates of the memory that synthesis needs, checked before it starts."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .._core import memory
from .._core.errors import UserError
from .._core.memory import check_cost
from .._core.threads import one_thread
from ..models import hooks as tap_names
from ..models.input_spec import InputSpec
from ..models.memory_format import channels_last
from ..models.network import PROBES, Network, frozen
from ..records.cost import FLOAT32, FLOAT64

if TYPE_CHECKING:
    from ..records.record import Record

__all__ = [
    "StepCost",
    "affordable_chunk",
    "check_chunk",
    "check_distribution",
    "check_images",
    "classes_at_a_time",
    "distribution_bytes",
    "fitting_workers",
    "inversion_bytes",
    "step_cost",
]

CHUNK_BYTES = 4 * 10**9
"""Memory that a chunk of optimised images needs at most by default."""
MULTIPLE = 8
"""Default chunks that are smaller than the largest have a multiple of this number of images."""
SHARE = 0.8
"""Share of the available memory that chunks made at the same time may need by default."""
KEPT = 1.3
"""Largest memory of a step over what autograd keeps."""
OVERHEAD = 2 * 10**8
"""Bytes of a step for no image at all: buffers of oneDNN, and memory that the allocator keeps."""
TIMED = 32
"""Number of images of up to `SMALL` pixels that a step is timed on."""
SMALL = 3 * 32 * 32
FIT_COPIES = 8
"""float32 copies of a class's covariance while it is fitted; the eigendecomposition needs most of them."""


def check_images(count: int, spec: InputSpec) -> None:
    """Raises UserError if `count` new images do not fit in memory twice: in parts and joined."""
    needed, available = 2 * FLOAT32 * count * spec.pixels, memory.available()
    if available is not None and needed > available:
        raise UserError(
            f"images: got {count:,}, which need {needed:,} bytes, expected at most the {available:,} bytes of memory "
            "available; give a smaller count"
        )


def check_chunk(count: int, spec: InputSpec) -> None:
    """Raises UserError if the target classes, pixels and a copy of the pixels of a chunk of images do not fit in memory."""
    needed, available = count * (8 + 2 * FLOAT32 * spec.pixels), memory.available()
    if available is not None and needed > available:
        raise UserError(
            f"chunk: got {count:,}, which needs about {memory.in_words(needed)} of memory, expected at most the "
            f"{memory.in_words(available)} available; give a smaller chunk"
        )


def distribution_bytes(classes: int, pixels: int, rank: int) -> int:
    """Bytes needed to fit the distribution of the pixels, one class at a time: the fit, and the factors of all classes."""
    return _fit_bytes(pixels) + FLOAT32 * classes * pixels * (min(rank, pixels) + 1)


def _fit_bytes(pixels: int) -> int:
    """Bytes to fit one class: its covariance in float64, which is computed from two others at most, and `FIT_COPIES`."""
    return (3 * FLOAT64 + FIT_COPIES * FLOAT32) * pixels * pixels


def classes_at_a_time(workers: int, pixels: int) -> int:
    """How many classes' pixels to fit at the same time: `workers`, or fewer if they need over half of the memory left."""
    free = memory.available()
    return workers if free is None else max(1, min(workers, free // (2 * _fit_bytes(pixels))))


def check_distribution(network: Network, record: Record, rank: int) -> None:
    """Raises UserError if there is too little memory to fit the distribution; it names a method that fits."""
    top = tap_names.layers(network)[-1]
    inversion = step_cost(network).image
    alternatives = [("the method 'inception'", inversion)]
    if any(entry.taps == (top,) for entry in record.of_kind("moments").values()):
        alternatives.insert(0, ("the method 'top'", inversion))
    classes, pixels = len(network.spec.classes), network.spec.pixels
    description = f"the distribution of {pixels:,} pixels in each of {classes:,} classes"
    check_cost(distribution_bytes(classes, pixels, rank), description, alternatives)


class StepCost(NamedTuple):
    """Memory and time of a step of optimising pixels on a network."""

    fixed: int
    """Bytes, for any number of images: copies of the weights in other orders, and the libraries' buffers."""
    image: int
    """Bytes for each image."""
    seconds: float
    """For each image, on one thread or on all."""

    def bytes(self, images: int) -> int:
        return self.fixed + images * self.image

    def duration(self, images: int, chunk: int, workers: int, steps: int) -> float:
        """Seconds to make `images` images in whole chunks, `workers` of them at a time on one thread each."""
        rounds = -(-images // (chunk * workers))
        return steps * self.seconds * chunk * rounds


_COSTS: WeakKeyDictionary[nn.Module, dict[tuple[InputSpec, bool], StepCost]] = WeakKeyDictionary()
"""What was measured in this process."""


def step_cost(network: Network, *, all_threads: bool = False) -> StepCost:
    """The cost of a step, measured on one and on two of the network's probe images; its time on one or on all threads."""
    try:
        costs = _COSTS.setdefault(network.module, {})
    except TypeError:  # a module with an equality of its own has no hash
        return _measured(network, all_threads)
    if (network.spec, all_threads) not in costs:
        costs[network.spec, all_threads] = _measured(network, all_threads)
    return costs[network.spec, all_threads]


def _measured(network: Network, all_threads: bool) -> StepCost:
    """The cost of a step.

    What autograd keeps for the gradient of the pixels is counted; the rest follows from seven networks of 32 and 224 pixels
    (docs/benchmarks.md), for which the estimate was 0.9 to 1.5 times what was measured. Zero for a network without gradient.
    """
    timed = max(2, min(TIMED, TIMED * SMALL // network.spec.pixels))
    try:
        with channels_last(network), frozen(network.module), nullcontext() if all_threads else one_thread():
            kept = [_kept(network, images) for images in (1, 2)]
            began = time.perf_counter()
            _gradient(network, timed)
            seconds = (time.perf_counter() - began) / timed
    except (RuntimeError, ValueError, IndexError):
        # it does not take its images, or has no gradient, which is refused later
        return StepCost(0, 0, 0.0)
    (one, _), (two, largest) = kept
    copies = 6 * FLOAT32 * network.spec.pixels  # pixels, their gradient, Adam's moments and what it computes
    image = int(KEPT * max(0, two - one)) + copies + largest  # that of two images, and so two of the largest of one
    return StepCost(OVERHEAD + 3 * network.nbytes(), image, seconds)


def _kept(network: Network, images: int) -> tuple[int, int]:
    """Bytes of all tensors that autograd keeps for the gradient of the pixels, and of the largest activation."""
    storages: dict[int, torch.UntypedStorage] = {}
    largest = 0

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    def see(_: nn.Module, __: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size())

    leaves = [part for part in network.module.modules() if not [*part.children()]]
    handles = [part.register_forward_hook(see) for part in leaves if not isinstance(part, torch.jit.ScriptModule)]
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, _same):
            _gradient(network, images)
    finally:
        for handle in handles:
            handle.remove()
    return sum(storage.nbytes() for storage in storages.values()), largest


def _gradient(network: Network, images: int) -> None:
    pixels = network.probes().repeat(-(-images // PROBES), 1, 1, 1)[:images].to(network.device).requires_grad_(True)
    torch.autograd.grad(network.logits(pixels).sum(), pixels)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def inversion_bytes(network: Network, images: int) -> int:
    """Bytes of one step on the pixels of `images` images."""
    return step_cost(network).bytes(images)


def affordable_chunk(network: Network, largest: int) -> int:
    """Default number of images that are optimised together: `largest`, or as many as need `CHUNK_BYTES`.

    It does not depend on the machine, so that the same seed makes the same images everywhere.
    """
    cost = step_cost(network)
    if cost.bytes(largest) <= CHUNK_BYTES:
        return largest
    return max(MULTIPLE, (CHUNK_BYTES - cost.fixed) // cost.image // MULTIPLE * MULTIPLE)


def fitting_workers(cost: StepCost, chunk: int, chunks: int, workers: int | None, *, started: bool = False) -> int:
    """Number of chunks that are made at a time: `workers`, or by default as many as there are cores and memory for.

    Raises UserError if one chunk, or that many, cannot fit into memory; it names what fits. The chunks of a set that was
    started keep their size.
    """
    cores, free, one = os.cpu_count() or 1, memory.available(), cost.bytes(chunk)
    count = min(chunks, cores if workers is None else workers)
    if workers is None and free is not None:
        count = max(1, min(count, int(SHARE * free) // max(1, one)))
    smaller = [("`workers=1`", one)] if count > 1 else []
    sizes = [] if started else [size for size in (chunk // 4, chunk // 16, 1) if size]
    smaller += [(f"`workers=1` and `chunk={size}`", cost.bytes(size)) for size in sizes]
    otherwise = "continue on a machine with more memory, or make another set with a smaller `chunk`" if started else ""
    check_cost(one * count, f"making {count} x {chunk:,} images at a time", smaller, otherwise)
    return count
