"""What a network is worth: accuracy against labels, agreement with a teacher. They are different words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .data import Dataset
from .images import labelled
from .network import Network

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Percentages over `images` images; `agreement` only where a teacher was given."""

    images: int
    accuracy: float
    by_class: tuple[float | None, ...]
    """None for a class without images."""
    agreement: float | None = None


def evaluate(network: Network, data: Dataset, teacher: Network | None = None) -> Evaluation:
    """Accuracy in % on `data`, in total and by class, and agreement with `teacher` in %."""
    own = labelled(network, data)
    said = network.predict(own.pixels).argmax(1)
    right = said == own.targets
    found = [right[own.targets == c] for c in range(len(data.classes))]
    by_class = [_percent(hits) if len(hits) else None for hits in found]
    agreement = None if teacher is None else _percent(said == teacher.predict(own.pixels).argmax(1))
    return Evaluation(len(data), _percent(right), tuple(by_class), agreement)


def _percent(hits: torch.Tensor) -> float:
    return round(100 * float(hits.double().mean()), 4)
