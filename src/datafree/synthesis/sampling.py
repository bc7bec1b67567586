"""Synthetic images in memory: what `synthesize` would write into a folder, without one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core.arguments import check_count, checked
from .._core.memory import check_cost
from .._core.progress import Progress, silent
from ..models.network import Network
from ..models.pixel_bytes import to_pixels
from ..records.record import Record
from . import methods
from .methods import Synthesizer
from .synthetic_set import balanced_cut, in_order, prepare, stored_chunk, unit_of

__all__ = ["Samples", "sample"]


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with the teacher's answers. `pixels, logits = samples` unpacks the first two."""

    pixels: Tensor
    """float32 (N, C, H, W), in the spec's range where the method keeps them there."""
    logits: Tensor
    """float32 (N, classes), the teacher's on these pixels."""
    labels: Tensor
    """int64 (N,), the class each image was made for; the teacher may see another."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.pixels, self.logits))


@checked
def sample(
    teacher: Network,
    method: str | Mapping[str, Any] | Synthesizer = methods.DEFAULT,
    *,
    n: int = 256,
    record: Record | None = None,
    seed: int = 0,
    chunk: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Samples:
    """`n` images by `method`, on the CPU, with the teacher's logits; nothing is written.

    `method` is a name, a mapping with `method`, or settings. These are the images that `synthesize` writes for the same
    seed and `chunk`, rounded to bytes as a set stores them. `chunk` images are made together, by default as many as suits
    the method, but no more than `n`. `workers` chunks are made at a time; the images do not depend on it. Raises UserError
    for a method, record or teacher that do not fit each other, and for images that do not fit in memory.
    """
    check_count("n", n)
    settings = methods.resolve(method)
    if chunk is None:
        chunk = min(n, unit_of(settings, teacher, n, None))
    check_cost(
        8 * n * teacher.spec.pixels, f"{n:,} images in memory", otherwise="give a smaller n, or use synthesize(...)"
    )
    settings, bound, chunk = prepare(teacher, record, settings, n, chunk, workers, out=None)
    indices = range(-(-n // chunk))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    progress(0, n)
    made = in_order(
        bound, indices, lambda index, own: stored_chunk(own, index, seed, chunk, settings.in_range),
        workers or os.cpu_count() or 1,
    )  # fmt: skip
    with closing(made):
        for part in made:
            parts.append(part)
            progress(min(len(parts) * chunk, n), n)
    rows = balanced_cut(parts[-1][1], indices[-1], chunk, n, len(teacher.spec.classes))
    parts[-1] = parts[-1][0][rows], parts[-1][1][rows], parts[-1][2][rows]
    stored, labels, logits = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Samples(to_pixels(stored, teacher.spec), logits, labels)
