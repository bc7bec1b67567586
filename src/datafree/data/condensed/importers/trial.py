"""The test of a reading: does the teacher see the labels in the images? A wrong normalisation shows here alone."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ....models.network import Network

__all__ = ["ALPHA", "Trial", "tried"]

ALPHA = 0.01
CLEARLY = 10.0
"""Points of accuracy."""


@dataclass(frozen=True)
class Trial:
    """The teacher's hits among the images, and what guessing would give."""

    right: tuple[bool, ...]
    """Image by image, whether the teacher sees its label."""
    chance: float
    """The share of the commonest label: what a network that sees the same in every image gets right."""

    @property
    def images(self) -> int:
        return len(self.right)

    @property
    def hits(self) -> int:
        return sum(self.right)

    @property
    def accuracy(self) -> float:
        """In %."""
        return 100 * self.hits / self.images

    @property
    def tail(self) -> float:
        """The probability of as many hits or more by chance: binomial."""
        from scipy.stats import binom

        return float(binom.sf(self.hits - 1, self.images, self.chance))

    @property
    def wanted(self) -> float:
        """The least share of hits: twice chance, or a tenth of the way from chance to all, where that is less."""
        return min(2 * self.chance, 0.9 * self.chance + 0.1)

    @property
    def passed(self) -> bool:
        """Above chance beyond doubt (1 in 100), and by more than a large set's smallest significant bit."""
        return self.tail < ALPHA and self.hits >= self.wanted * self.images

    def beaten(self, other: Trial) -> bool:
        """Whether another reading of the same images is clearly better, and beyond doubt (1 in 100): a sign test."""
        from scipy.stats import binom

        won = sum(theirs and not mine for mine, theirs in zip(self.right, other.right, strict=True))
        lost = sum(mine and not theirs for mine, theirs in zip(self.right, other.right, strict=True))
        return other.accuracy - self.accuracy >= CLEARLY and float(binom.sf(won - 1, won + lost, 0.5)) < ALPHA

    def __str__(self) -> str:
        return f"{self.accuracy:.1f} % ({self.hits} of {self.images}; chance {100 * self.chance:.1f} %)"


def tried(teacher: Network, pixels: Tensor, labels: Tensor) -> Trial:
    """The teacher on the images, by the likeliest class of each label."""
    wanted = labels.argmax(1)
    right = teacher.predict(pixels).argmax(1) == wanted
    return Trial(tuple(right.tolist()), float(wanted.bincount().max()) / len(wanted))
