"""What is known of a run without data: health of the generator's images, and all that happened, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["ONE", "Health", "History"]

ONE = 1.05
"""Classes, fewer than which are one."""


@dataclass(frozen=True)
class Health:
    """What a fresh batch of the generator looks like; nobody's data is needed to know."""

    classes: float
    """exp of the entropy of the teacher's answers: 1 where it sees one class alone."""
    spread: float
    """Standard deviation between images, averaged over pixels, as a share of the range: 0 where all are one image."""
    duplicates: float
    """Share of images that are, as bytes, another's double."""

    def collapsed(self, most: float = math.inf) -> str | None:
        """What is wrong, in words; None where nothing is. `most` is the most classes that were there before: a generator
        that has not found a second one yet is no collapse."""
        if not math.isfinite(self.spread):
            return "images that are not finite"
        if self.spread < 0.01:
            return "one image"
        if self.duplicates >= 0.5:
            return "doubles of the same images"
        return "one class" if self.classes < ONE and most > 1.5 else None


@dataclass
class History:
    """What happened, epoch by epoch."""

    loss: list[float] = field(default_factory=list)
    """Of the student."""
    generator: list[float] = field(default_factory=list)
    """Of the generator, all its terms."""
    agreement: list[float] = field(default_factory=list)
    """In %, of student and teacher on frozen images of the generator that no student learnt from; no data is needed."""
    average_agreement: list[float] = field(default_factory=list)
    """The same of the moving average."""
    health: list[dict[str, float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    """`score` of the student after each epoch, where one was asked for; the method cannot read it."""
    average_scores: list[float] = field(default_factory=list)
    """The same of the moving average."""
    rollbacks: list[str] = field(default_factory=list)
    """Why an epoch was thrown away and begun again with another generator."""
    phases: dict[str, float] = field(default_factory=lambda: {"generator": 0.0, "student": 0.0, "memory": 0.0})
    """Seconds."""
    images: int = 0
    """New images that the student learnt from."""
    memory_bytes: int = 0
    """Of what is replayed from, after the last epoch."""
