"""What is known of a run without data: health of the generator's images, and all that happened, epoch by epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..._core.slots import Slot, Slots

__all__ = ["ONE", "REASONS", "GeneratorHealth", "History", "history_of", "history_slots", "history_state"]

ONE = 1.05
"""Classes, fewer than which are one."""


REASONS = (
    "a loss that is not finite",
    "a student whose logits are not finite",
    "images that are not finite",
    "one image",
    "doubles of the same images",
    "one class",
)
"""Why an epoch is thrown away."""
SERIES = ("loss", "generator", "agreement", "average_agreement", "seconds")
SCORES = ("scores", "average_scores")
HEALTH = ("classes", "spread", "duplicates")
PHASES = ("generator", "student", "memory")


@dataclass(frozen=True)
class GeneratorHealth:
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


def history_state(history: History) -> dict[str, Tensor]:
    """The history as tensors: it grows with the epochs, which a file's header may not."""
    series = {name: getattr(history, name) for name in (*SERIES, *SCORES)}
    health = [[own[key] for key in HEALTH] for own in history.health]
    rollbacks = [own.removeprefix("epoch ").split(": ", 1) for own in history.rollbacks]
    return {
        **{name: torch.tensor(values, dtype=torch.float64) for name, values in series.items()},
        "health": torch.tensor(health, dtype=torch.float64).reshape(-1, len(HEALTH)),
        "phases": torch.tensor([history.phases[name] for name in PHASES], dtype=torch.float64),
        "rollback_epochs": torch.tensor([int(epoch) for epoch, _ in rollbacks], dtype=torch.int64),
        "rollback_reasons": torch.tensor([REASONS.index(why) for _, why in rollbacks], dtype=torch.int64),
        "images": torch.tensor(history.images),
        "memory_bytes": torch.tensor(history.memory_bytes),
    }


def history_slots(epochs: int, *, scored: int, images: int, attempts: int) -> Slots:
    """What `history_state` returns after `epochs` epochs of `images` images in all and that many rollbacks."""
    percent = Slot(torch.float64, (epochs,), 0.0, 100.0)
    return {
        "loss": Slot(torch.float64, (epochs,)),
        "generator": Slot(torch.float64, (epochs,)),
        "agreement": percent,
        "average_agreement": percent,
        "seconds": Slot(torch.float64, (epochs,), low=0.0),
        **dict.fromkeys(SCORES, Slot(torch.float64, (scored,))),
        "health": Slot(torch.float64, (epochs, len(HEALTH)), low=0.0),
        "phases": Slot(torch.float64, (len(PHASES),), low=0.0),
        "rollback_epochs": Slot.count(epochs, 1, (attempts,)),
        "rollback_reasons": Slot.count(len(REASONS) - 1, shape=(attempts,)),
        "images": Slot.count(images, images),
        "memory_bytes": Slot.count(),
    }


def history_of(tensors: dict[str, Tensor]) -> History:
    """The history that `history_state` was of."""
    rollbacks = zip(tensors["rollback_epochs"].tolist(), tensors["rollback_reasons"].tolist(), strict=True)
    return History(
        **{name: tensors[name].tolist() for name in (*SERIES, *SCORES)},
        health=[dict(zip(HEALTH, own, strict=True)) for own in tensors["health"].tolist()],
        rollbacks=[f"epoch {epoch}: {REASONS[why]}" for epoch, why in rollbacks],
        phases=dict(zip(PHASES, tensors["phases"].tolist(), strict=True)),
        images=int(tensors["images"]),
        memory_bytes=int(tensors["memory_bytes"]),
    )
