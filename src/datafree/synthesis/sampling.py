"""Synthetic images in memory: the same as `synthesize` writes, without a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._core.arguments import check_count, checked
from .._core.errors import UserError
from .._core.memory import check_cost
from .._core.progress import Progress, silent
from ..models.network import Network
from ..models.pixel_bytes import to_pixels
from ..records.record import Record
from . import methods
from .methods import Synthesizer
from .synthetic_set import balanced_cut, chunk_size, images_made, in_order, prepare, stored_chunk

__all__ = ["Samples", "sample"]

ROUNDING = 1e-3
"""Difference of logits, as a share of the largest, up to which they are of the same network."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with the teacher's logits. `pixels, logits = samples` unpacks the first two fields."""

    pixels: Tensor
    """float32 (N, C, H, W), in the spec's range if the method keeps them there."""
    logits: Tensor
    """float32 (N, classes), the teacher's on these pixels."""
    labels: Tensor
    """int64 (N,), the target class of each image; the teacher may predict another."""
    border: tuple[float, ...] | None = None
    """Colour of the border on which the method shifted them, if it found that out; see `InputSpec`."""

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.pixels, self.logits))

    def __len__(self) -> int:
        return len(self.pixels)

    def labelled_by(self, network: Network, name: str) -> tuple[Tensor, Tensor, bool]:
        """Pixels, `network`'s logits on them, and whether these are the stored ones, which they are if no two differ by
        more than rounding.

        Pixels beyond the network's range are accepted only if they are. Raises UserError, with `name` as the parameter's
        name, for images that do not fit.
        """
        try:
            network.spec.check_finite(self.pixels)
            if not len(self):
                raise UserError("got no image, expected at least one; give some images")
            pixels = self.pixels.detach().cpu().float().clone()
            logits = network.predict(pixels)
            own = self.logits.shape == logits.shape and _largest(self.logits - logits) <= ROUNDING * (
                1 + _largest(logits)
            )
            if not own:
                network.spec.check_set(pixels)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        return pixels, self.logits.detach().clone() if own else logits, own


def _largest(values: Tensor) -> float:
    return float(values.detach().abs().max())


@checked
def sample(
    teacher: Network,
    method: str | Mapping[str, Any] | Synthesizer | None = None,
    *,
    n: int = 256,
    record: Record | None = None,
    seed: int = 0,
    chunk: int | None = None,
    workers: int | None = None,
    progress: Progress = silent,
) -> Samples:
    """`n` images made with `method`, on the CPU, with the teacher's logits. Writes nothing.

    `method` is a name, a mapping with `method`, or settings; by default as in `synthesize`. These are the images that
    `synthesize` writes for the same seed and `chunk`, rounded to bytes as a set stores them. `chunk` is the number of images
    that are made together, by default chosen by the method, at most `n`. `workers` chunks are made at a time; the images do
    not depend on it. Raises UserError if method, record and teacher do not fit each other, and if the images do not fit in
    memory.
    """
    check_count("n", n)
    settings = methods.resolve_for(method, teacher, record)
    if chunk is None:
        chunk = min(n, chunk_size(settings, teacher, n, None))
    check_cost(
        8 * n * teacher.spec.pixels, f"{n:,} images in memory", otherwise="give a smaller n, or use synthesize(...)"
    )
    settings, bound, chunk, workers = prepare(teacher, record, settings, n, chunk, workers, out=None, progress=progress)
    indices = range(-(-n // chunk))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    progress(0, n)
    chunks = in_order(
        bound, indices, lambda index, thread_method: stored_chunk(thread_method, index, seed, chunk, settings.in_range),
        workers, lambda finished, share: progress(images_made(finished, share, chunk, n), n),
    )  # fmt: skip
    with closing(chunks):
        parts.extend(chunks)
    rows = balanced_cut(parts[-1][1], indices[-1], chunk, n, len(teacher.spec.classes))
    parts[-1] = parts[-1][0][rows], parts[-1][1][rows], parts[-1][2][rows]
    pixels, labels, logits = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return Samples(to_pixels(pixels, teacher.spec), logits, labels, bound.teacher.spec.border)
