"""Measurements of a run that need no data: health of the generator's images and a history by epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..._core.slots import Slot, Slots

__all__ = ["ONE_CLASS", "REASONS", "GeneratorHealth", "History", "history_from_state", "history_slots", "history_state"]

ONE_CLASS = 1.05
"""Effective number of classes below which the generator counts as collapsed to one class."""


REASONS = (
    "a non-finite loss",
    "non-finite student logits",
    "non-finite images",
    "identical images",
    "duplicate images",
    "a single class",
)
"""Reasons to discard an epoch. State files store the index: never reorder."""
SERIES = ("loss", "generator", "agreement", "average_agreement", "seconds")
SCORES = ("scores", "average_scores")
HEALTH = ("classes", "spread", "duplicates")
PHASES = ("generator", "student", "memory")


@dataclass(frozen=True)
class GeneratorHealth:
    """Diversity of a fresh batch of generated images, measured without data."""

    classes: float
    """Effective number of predicted classes: exp of the entropy of the teacher's predictions, at least 1."""
    spread: float
    """Standard deviation between images, averaged over pixels, as a share of the range; 0 for identical images."""
    duplicates: float
    """Share of images that equal another image byte by byte."""

    def collapsed(self, most_classes: float = math.inf) -> str | None:
        """The reason that the generator counts as collapsed, or None.

        `most_classes` is the highest number of `classes` so far: one that never had two classes has not collapsed.
        """
        if not math.isfinite(self.spread):
            return "non-finite images"
        if self.spread < 0.01:
            return "identical images"
        if self.duplicates >= 0.5:
            return "duplicate images"
        return "a single class" if self.classes < ONE_CLASS and most_classes > 1.5 else None


@dataclass
class History:
    """Measurements of a run; lists have one entry per epoch."""

    loss: list[float] = field(default_factory=list)
    """Mean loss of the student."""
    generator: list[float] = field(default_factory=list)
    """Mean total loss of the generator."""
    agreement: list[float] = field(default_factory=list)
    """Agreement of student and teacher on fixed generated images that are not used for training, in %."""
    average_agreement: list[float] = field(default_factory=list)
    """As `agreement`, for the moving average."""
    health: list[dict[str, float]] = field(default_factory=list)
    """Fields of GeneratorHealth."""
    seconds: list[float] = field(default_factory=list)
    """Duration of each epoch."""
    scores: list[float] = field(default_factory=list)
    """Result of `score` for the student, if one is given; training never uses it."""
    average_scores: list[float] = field(default_factory=list)
    """As `scores`, for the moving average."""
    rollbacks: list[str] = field(default_factory=list)
    """Discarded epochs with the reason; each was repeated with a new generator."""
    phases: dict[str, float] = field(default_factory=lambda: {"generator": 0.0, "student": 0.0, "memory": 0.0})
    """Total seconds by phase."""
    images: int = 0
    """Number of new images that the student was trained on."""
    memory_bytes: int = 0
    """Size of the replay memory after the last epoch."""


def history_state(history: History) -> dict[str, Tensor]:
    """The history as tensors. It grows with the epochs, so it cannot be part of a file's header."""
    series = {name: getattr(history, name) for name in (*SERIES, *SCORES)}
    health = [[entry[key] for key in HEALTH] for entry in history.health]
    rollbacks = [line.removeprefix("epoch ").split(": ", 1) for line in history.rollbacks]
    return {
        **{name: torch.tensor(values, dtype=torch.float64) for name, values in series.items()},
        "health": torch.tensor(health, dtype=torch.float64).reshape(-1, len(HEALTH)),
        "phases": torch.tensor([history.phases[name] for name in PHASES], dtype=torch.float64),
        "rollback_epochs": torch.tensor([int(epoch) for epoch, _ in rollbacks], dtype=torch.int64),
        "rollback_reasons": torch.tensor([REASONS.index(reason) for _, reason in rollbacks], dtype=torch.int64),
        "images": torch.tensor(history.images),
        "memory_bytes": torch.tensor(history.memory_bytes),
    }


def history_slots(epochs: int, *, scored: int, images: int, attempts: int) -> Slots:
    """Expected dtypes, shapes and ranges of `history_state`. `images` is the total; `attempts` counts rollbacks."""
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


def history_from_state(tensors: dict[str, Tensor]) -> History:
    """The history from the tensors of `history_state`."""
    rollbacks = zip(tensors["rollback_epochs"].tolist(), tensors["rollback_reasons"].tolist(), strict=True)
    return History(
        **{name: tensors[name].tolist() for name in (*SERIES, *SCORES)},
        health=[dict(zip(HEALTH, values, strict=True)) for values in tensors["health"].tolist()],
        rollbacks=[f"epoch {epoch}: {REASONS[reason]}" for epoch, reason in rollbacks],
        phases=dict(zip(PHASES, tensors["phases"].tolist(), strict=True)),
        images=int(tensors["images"]),
        memory_bytes=int(tensors["memory_bytes"]),
    )
