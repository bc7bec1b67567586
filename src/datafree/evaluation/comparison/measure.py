"""Counts of images and steps for a budget of seconds: a few of each are made, timed, and thrown away."""

from __future__ import annotations

import math

import torch

from ..._core.errors import UserError
from ..._core.seeds import seed_of, stream
from ..._core.threads import one_thread
from ...distillation.distill import plan_distillation
from ...distillation.distill_online import plan_online
from ...distillation.sources import StoredImages
from ...distillation.students import StudentLike
from ...models.network import Network
from ...records.record import Record
from ...synthesis import methods as synthesis
from ...synthesis.made_chunk import made_chunk
from ...synthesis.synthetic_set import chunk_size
from .methods import ComparedMethod
from .passes import Passes
from .protocol import Counts, Protocol, distillation, epoch_shape, online_changes
from .stopwatch import clock_for

__all__ = ["budget_counts", "image_count"]

SHARE_FOR_IMAGES = 0.5
"""Share of a budget for making images."""
MEASURED = 0.02
"""Share of a budget after which no larger chunk is measured."""
STEPS = 12
"""Number of student steps that are measured; the first two do not count."""
ITERATIONS = 3
"""Number of generator steps of an online method that are measured; the first does not count."""


def image_count(
    teacher: Network, record: Record | None, method: ComparedMethod, seed: int, protocol: Protocol, workers: int | None
) -> int:
    """The number of images that a method makes. Raises UserError for a budget that is too small for a batch of them."""
    if protocol.budget is None:
        return protocol.images
    clock, half = clock_for(teacher.device), protocol.budget * SHARE_FOR_IMAGES
    largest = chunk_size(method.settings, teacher, protocol.images)
    size_of = getattr(method.settings, "chunk_size", None)
    with one_thread():
        began = clock()
        bound = synthesis.bind(method.settings, teacher, record, workers=workers)
        fixed, size = clock() - began, 8 if size_of is None else size_of(len(teacher.spec.classes), 1)
        times: list[tuple[int, float]] = []
        while True:
            size = min(size, largest)
            began = clock()
            batch = made_chunk(bound, 0, seed_of(seed, "measured"), size)
            teacher.predict(batch.pixels)
            times.append((size, max(clock() - began, 1e-6)))
            if size == largest or times[-1][1] > MEASURED * protocol.budget:
                break
            size *= 4
    per_image, per_chunk = _line(times)
    per_chunk_image = per_image + per_chunk / largest
    count = min(protocol.images, math.floor((half - fixed) / per_chunk_image))
    if count < protocol.training.batch:
        needed = (fixed + protocol.training.batch * per_chunk_image) / SHARE_FOR_IMAGES
        batch = f"a batch of {protocol.training.batch} images"
        raise UserError(
            f"budget: got {protocol.budget:g} s, expected at least {math.ceil(needed)} s, half of it for {batch} of "
            f"{method.name}; give more"
        )
    return count


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
    left = protocol.budget - seconds
    shape = epoch_shape(images or protocol.images, protocol.training.batch, 1 << 30)
    counts = Counts(images, 1, *shape)
    if method.kind == "online":
        per_step, per_epoch = _online_seconds(teacher, student, method, protocol, counts, seed)
    else:
        per_step, per_epoch = _step_seconds(teacher, student, protocol, seed), 0.0
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
    teacher: Network, student: StudentLike | None, method: ComparedMethod, protocol: Protocol, counts: Counts, seed: int
) -> tuple[float, float]:
    """Seconds per student step with its share of a generator step, and beside those per epoch."""
    measured = Counts(0, 1, ITERATIONS * counts.student_steps, counts.student_steps)
    changes = online_changes(protocol, measured, method)
    plan = plan_online(
        teacher, student, preset=method.preset, replay=method.settings, start="random", seed=seed, **changes
    )
    times, clock = [], clock_for(teacher.device)
    plan.run(progress=lambda done, total: times.append(clock()))  # noqa: ARG005
    end = clock()
    per_iteration = (times[-1] - times[0]) / (len(times) - 1)
    return max(per_iteration / counts.student_steps, 1e-6), end - times[-1]
