"""k-means centres of each class's pixels: the baseline of averaged images."""

from __future__ import annotations

import warnings
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ...._core.errors import UserError
from ...._core.memory import check_cost
from ...._core.seeds import seed_of
from ...._core.settings import Settings
from . import Job

__all__ = ["KMeans"]


class KMeans(Settings):
    """scikit-learn's k-means (Lloyd's algorithm with k-means++) on the pixels of each class."""

    method: Literal["kmeans"] = "kmeans"
    starts: int = Field(default=1, ge=1)
    """Number of random starts; the one with the tightest clusters is used."""

    keeps_state: ClassVar[bool] = False
    summary: ClassVar[str] = "k-means centres of each class's pixels"
    leakage: ClassVar[str] = (
        "Each image is the mean of similar training images. The mean of a small cluster is close to them, and a "
        "cluster of one is that training image."
    )

    def make(self, job: Job) -> Tensor:
        largest = int(job.data.labels.bincount().max())
        check_cost(
            3 * 4 * largest * job.spec.pixels,  # the pixels, scikit-learn's centred copy, and the memory of a step
            f"k-means on the {largest:,} images of one class",
            otherwise="use fewer images, or the method 'random'",
        )
        centres = [self._centres(job, label, job.pixels(positions)) for label, positions in job.by_class()]
        return torch.cat(centres)

    def _centres(self, job: Job, label: int, pixels: Tensor) -> Tensor:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        seed = seed_of(job.seed, "centres", label) % 2**32
        rng = np.random.RandomState(seed)
        kmeans = KMeans(job.per_class, n_init=self.starts, random_state=rng)  # pyright: ignore[reportArgumentType]
        with threadpool_limits(1), warnings.catch_warnings():  # more threads change the rounding of sums
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                kmeans.fit(pixels.flatten(1).numpy())
            except ConvergenceWarning:
                raise UserError(
                    f"per_class: got {job.per_class}, but class {job.spec.classes[label]!r} of {job.data.name} has "
                    "fewer distinct images; give a lower number, or use the method 'random'"
                ) from None
        return torch.from_numpy(kmeans.cluster_centers_).float().view(-1, *job.spec.shape)
