"""Generated images have the anchors' mean feature in each class."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ....data.augmentation import Augmentation
from ....models.network import Network
from .anchors import Anchors, FeatureMatching

__all__ = ["Means", "class_means", "mean_distance"]


class Means(Augmentation):
    """Matches the mean of each class, not its spread."""

    alignment: Literal["means"] = "means"

    summary: ClassVar[str] = "matches the anchors' mean feature in each class"
    guidance: ClassVar[float] = 10.0

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> FeatureMatching:
        return FeatureMatching(Anchors(teacher, pixels, labels, self, seed), mean_distance)


def class_means(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Means (K, F) and counts (K,) of the K classes that occur in `labels` (N,), ascending; features are (N, F)."""
    _, rows, counts = labels.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(counts), features.shape[1], dtype=features.dtype, device=features.device)
    return sums.index_add(0, rows, features) / counts[:, None], counts


def mean_distance(generated: Tensor, anchors: Tensor, labels: Tensor) -> Tensor:
    """Mean squared difference of class means, summed over images; 0 at equality. Features are (N, F), labels (N,)."""
    generated_means, counts = class_means(generated, labels)
    anchor_means, _ = class_means(anchors, labels)
    return (counts * (generated_means - anchor_means).square().mean(1)).sum()
