"""k-means centres of each class's pixels: the control that is an average of images and not an image."""

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
    """Lloyd's algorithm with k-means++ on the pixels of one class after another; scikit-learn's."""

    method: Literal["kmeans"] = "kmeans"
    starts: int = Field(default=1, ge=1)
    """Number of random starts; the tightest clusters are kept."""

    summary: ClassVar[str] = "k-means centres of each class's pixels"
    gives_away: ClassVar[str] = (
        "Each image is the mean of training images that look alike; the mean of a small cluster comes close to them, and "
        "that of a cluster of one is that training image."
    )

    def make(self, job: Job) -> Tensor:
        most = int(job.data.labels.bincount().max())
        check_cost(
            3 * 4 * most * job.spec.pixels,  # the pixels, scikit-learn's centred copy, and what a step works on
            f"k-means on the {most:,} images of one class",
            otherwise="give a lower --limit, or --method random",
        )
        made = [self._centres(job, label, job.pixels(positions)) for label, positions in job.by_class()]
        return torch.cat(made)

    def _centres(self, job: Job, label: int, pixels: Tensor) -> Tensor:
        from sklearn.cluster import KMeans
        from sklearn.exceptions import ConvergenceWarning
        from threadpoolctl import threadpool_limits

        seed = seed_of(job.seed, "centres", label) % 2**32
        kmeans = KMeans(job.per_class, n_init=self.starts, random_state=np.random.RandomState(seed))  # pyright: ignore[reportArgumentType]
        with threadpool_limits(1), warnings.catch_warnings():  # on more threads the sums' rounding differs
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                kmeans.fit(pixels.flatten(1).numpy())
            except ConvergenceWarning:
                raise UserError(
                    f"--per-class: got {job.per_class}, but class {job.spec.classes[label]!r} of {job.data.name} has fewer "
                    "different images; give fewer, or --method random"
                ) from None
        return torch.from_numpy(kmeans.cluster_centers_).float().view(-1, *job.spec.shape)
