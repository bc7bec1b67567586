"""Counts of images and steps for a budget of seconds: a few of each are made, timed, and thrown away."""

from __future__ import annotations

import math

import torch

from ..._core.errors import UserError
from ..._core.seeds import stream
from ..._core.threads import one_thread
from ...distillation.distill import plan_distillation
from ...distillation.distill_online import plan_online
from ...distillation.sources import StoredImages
from ...distillation.students import StudentLike
from ...models.network import Network
from ...records.record import Record
from ...synthesis import methods as synthesis
from ...synthesis.made_chunk import made_chunk
from ...synthesis.methods import BoundMethod
from ...synthesis.synthetic_set import chunk_size
from .methods import ComparedMethod
from .passes import Passes
from .protocol import PER_GENERATOR_STEP, Counts, Protocol, distillation, epoch_shape, online_changes
from .stopwatch import clock_for

__all__ = ["budget_counts", "even_chunk", "image_count"]

SHARE_FOR_IMAGES = 0.5
"""Share of a budget for making images."""
MEASURED = 0.02
"""Share of a budget after which no larger chunk is measured."""
STEPS = 12
"""Number of student steps that are measured; the first two do not count."""
ITERATIONS = 3
"""Number of generator steps of an online method that are measured; the first does not count."""


def even_chunk(method: ComparedMethod, teacher: Network, images: int) -> int:
    """Images per chunk: the method's own number, or chunks of equal size, so that no more images are made than needed."""
    largest = chunk_size(method.settings, teacher, images)
    if hasattr(method.settings, "chunk_size"):
        return largest
    return math.ceil(images / math.ceil(images / largest))


def image_count(
    teacher: Network, record: Record | None, method: ComparedMethod, seed: int, protocol: Protocol, workers: int | None
) -> int:
    """The number of images that a method makes. Raises UserError for a budget that is too small for a batch of them."""
    if protocol.budget is None:
        return protocol.images
    clock, half, batch = clock_for(teacher.device), protocol.budget * SHARE_FOR_IMAGES, protocol.training.batch
    with one_thread():
        began = clock()
        bound = synthesis.bind(method.settings, teacher, record, workers=workers)
        fixed = clock() - began
        largest = chunk_size(method.settings, teacher, protocol.images)
        per_image, per_chunk = _line(_chunk_seconds(bound, method, largest, seed, protocol.budget))
    count = math.floor((half - fixed) / (per_image + per_chunk / largest))
    if count < largest:  # a single chunk
        count = min(largest, math.floor((half - fixed - per_chunk) / per_image))
    if count < batch:
        needed = (fixed + per_chunk + batch * per_image) / SHARE_FOR_IMAGES
        raise UserError(
            f"budget: got {protocol.budget:g} s, expected at least {math.ceil(needed)} s, half of it for a batch of {batch} "
            f"images of {method.name}; give more"
        )
    return min(protocol.images, count)


def _chunk_seconds(
    bound: BoundMethod, method: ComparedMethod, largest: int, seed: int, budget: float
) -> list[tuple[int, float]]:
    """Sizes of chunks, and the seconds that each took; two at least, unless the first takes most of the budget."""
    clock, size_of = clock_for(bound.teacher.device), getattr(method.settings, "chunk_size", None)
    size = 8 if size_of is None else size_of(len(bound.teacher.spec.classes), 1)
    times: list[tuple[int, float]] = []
    while True:
        size = min(size, largest)
        began = clock()
        batch = made_chunk(bound, 0, seed, size)
        bound.teacher.predict(batch.pixels)
        times.append((size, max(clock() - began, 1e-6)))
        seconds = times[-1][1]
        if size == largest or seconds > budget or (len(times) > 1 and seconds > MEASURED * budget):
            return times
        size *= 4


def _line(times: list[tuple[int, float]]) -> tuple[float, float]:
    """Seconds per image and per chunk, from chunks of two sizes; all of it per image if there is one."""
    if len(times) < 2 or times[-1][0] == times[-2][0]:
        return times[-1][1] / times[-1][0], 0.0
    (few, short), (many, long) = times[-2:]
    per_image = max((long - short) / (many - few), long / many / 10)
    return per_image, max(long - per_image * many, 0.0)


def budget_counts(
    teacher: Network, student: StudentLike | None, method: ComparedMethod, protocol: Protocol, seed: int, *,
    images: int, seconds: float,
) -> Counts:  # fmt: skip
    """The counts of a cell whose `images` took `seconds`. Raises UserError if no epoch fits in what is left."""
    assert protocol.budget is not None
    left, batch = protocol.budget - seconds, protocol.training.batch
    one_pass = max((images or protocol.images) // batch, 1)
    if method.kind == "online":
        per_step, per_epoch = _online_seconds(teacher, student, method, protocol, seed)
    else:
        per_step, per_epoch = _step_seconds(teacher, student, protocol, seed), 0.0
    shape = epoch_shape(images or protocol.images, batch, max(math.floor(left / per_step), one_pass))
    counts = Counts(images, 1, *shape)
    epoch = counts.epoch_steps * per_step + per_epoch
    epochs = math.floor(left / epoch)
    if epochs < 1:
        raise UserError(
            f"budget: got {protocol.budget:g} s, expected at least {math.ceil(seconds + epoch)} s for {method.name} and one "
            f"epoch of {counts.epoch_steps} student steps; give more"
        )
    return Counts(images, epochs, *shape)


def _step_seconds(teacher: Network, student: StudentLike | None, protocol: Protocol, seed: int) -> float:
    """Seconds per student step on stored images."""
    spec, batch = teacher.spec, protocol.training.batch
    rng = stream(seed, "measured")
    pixels = spec.low + (spec.high - spec.low) * torch.rand((2 * batch, *spec.shape), generator=rng)
    source = Passes(StoredImages(spec, pixels, teacher.predict(pixels)), STEPS, batch)
    settings = distillation(protocol, Counts(len(pixels), 1, STEPS, 1))
    plan = plan_distillation(teacher, student, images=source, settings=settings, start="random", seed=seed)
    times, clock = [], clock_for(teacher.device)
    plan.run(progress=lambda done, total: times.append(clock()))  # noqa: ARG005
    return max((times[-1] - times[1]) / (len(times) - 2), 1e-6)


def _online_seconds(
    teacher: Network, student: StudentLike | None, method: ComparedMethod, protocol: Protocol, seed: int
) -> tuple[float, float]:
    """Seconds per student step with its share of a generator step, and beside those per epoch."""
    student_steps = PER_GENERATOR_STEP[0]
    measured = Counts(0, 1, ITERATIONS * student_steps, student_steps)
    changes = online_changes(protocol, measured, method)
    plan = plan_online(
        teacher, student, preset=method.preset, replay=method.settings, start="random", seed=seed, **changes
    )
    times, clock = [], clock_for(teacher.device)
    plan.run(progress=lambda done, total: times.append(clock()))  # noqa: ARG005
    end = clock()
    per_iteration = (times[-1] - times[0]) / (len(times) - 1)
    return max(per_iteration / student_steps, 1e-6), end - times[-1]
