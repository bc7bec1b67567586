"""CORAL: generated images have the anchors' class means and covariance (Sun & Saenko 2016)."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ....data.augmentation import Augmentation
from ....models.network import Network
from .anchors import Anchors, FeatureMatching
from .means import class_means, mean_distance

__all__ = ["Coral", "coral_distance"]


class Coral(Augmentation):
    """Matches class means and the pooled covariance about them."""

    alignment: Literal["coral"] = "coral"
    covariance: float = Field(default=1.0, ge=0)
    """Weight of the covariance relative to the class means."""

    summary: ClassVar[str] = "matches the anchors' class means and the covariance about them (Sun & Saenko 2016)"
    guidance: ClassVar[float] = 10.0

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> FeatureMatching:
        return FeatureMatching(
            Anchors(teacher, pixels, labels, self, seed), partial(coral_distance, weight=self.covariance)
        )


def coral_distance(generated: Tensor, anchors: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
    """Distance of class means, plus |C - C'|^2 / 4F^2 (eq. 1 of Sun & Saenko), times the number of images; 0 at
    equality.

    Features are (N, F), labels (N,). C is the covariance (F, F) about the class means, pooled over classes.
    """
    # differs from the paper: it has neither classes nor means; a single class has too few images for a covariance.
    distance = (_within(generated, labels) - _within(anchors, labels)).square().sum() / (4 * generated.shape[1] ** 2)
    return mean_distance(generated, anchors, labels) + weight * distance * len(generated)


def _within(features: Tensor, labels: Tensor) -> Tensor:
    rows = labels.unique(return_inverse=True)[1]
    centred = features - class_means(features, labels)[0][rows]
    return centred.T @ centred / len(centred)
