"""Tests an interpretation: does the teacher predict the labels? Only this detects a wrong normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....models.network import Network

__all__ = ["ALPHA", "Trial", "tried"]

ALPHA = 0.01
CLEARLY = 10.0
"""Minimum difference of a clearly better interpretation, in points of accuracy."""


@dataclass(frozen=True)
class Trial:
    """The teacher's hits on the images, and the accuracy of guessing."""

    right: tuple[bool, ...]
    """Whether the teacher predicts the label, per image."""
    chance: float
    """Share of the most common label: the accuracy of a constant prediction."""

    @property
    def images(self) -> int:
        return len(self.right)

    @property
    def hits(self) -> int:
        return sum(self.right)

    @property
    def accuracy(self) -> float:
        """Accuracy in %."""
        return 100 * self.hits / self.images

    @property
    def tail(self) -> float:
        """Probability of at least as many hits by chance (binomial)."""
        from scipy.stats import binom

        return float(binom.sf(self.hits - 1, self.images, self.chance))

    @property
    def required(self) -> float:
        """Minimum share of hits: twice chance, or chance plus a tenth of the rest, whichever is less."""
        return min(2 * self.chance, 0.9 * self.chance + 0.1)

    @property
    def passed(self) -> bool:
        """Whether the hits are above chance significantly (p < 0.01) and by a relevant amount, `required`."""
        return self.tail < ALPHA and self.hits >= self.required * self.images

    def beaten(self, other: Trial) -> bool:
        """Whether another interpretation is clearly and significantly better (sign test, p < 0.01)."""
        from scipy.stats import binom

        won = sum(other_hit and not own_hit for own_hit, other_hit in zip(self.right, other.right, strict=True))
        lost = sum(own_hit and not other_hit for own_hit, other_hit in zip(self.right, other.right, strict=True))
        return other.accuracy - self.accuracy >= CLEARLY and float(binom.sf(won - 1, won + lost, 0.5)) < ALPHA

    def __str__(self) -> str:
        return f"{self.accuracy:.1f} % ({self.hits} of {self.images}; chance {100 * self.chance:.1f} %)"


def tried(teacher: Network, pixels: Tensor, labels: Tensor) -> Trial:
    """Compares the teacher's predictions on the images with the most likely class of each label."""
    expected = labels.argmax(1)
    right = teacher.predict(pixels).argmax(1) == expected
    return Trial(tuple(right.tolist()), float(expected.bincount().max()) / len(expected))
