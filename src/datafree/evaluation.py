"""What a network is worth: accuracy against labels, agreement with a teacher. They are different words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .data import Dataset
from .network import Network
from .progress import Progress, silent
from .records import check_classes

__all__ = ["Evaluation", "evaluate"]

BATCH = 2048


@dataclass(frozen=True)
class Evaluation:
    """Percentages over `images` images; `agreement` only where a teacher was given."""

    images: int
    accuracy: float
    by_class: tuple[float | None, ...]
    """None for a class without images."""
    agreement: float | None = None


def evaluate(
    network: Network, data: Dataset, teacher: Network | None = None, *, progress: Progress = silent
) -> Evaluation:
    """Accuracy in % on `data`, in total and by class, and agreement with `teacher` in %, a batch at a time.

    Raises UserError for data of other classes or another shape.
    """
    check_classes(network, data)
    own, others = [], []
    for start in range(0, len(data), BATCH):
        indices = torch.arange(start, min(start + BATCH, len(data)))
        pixels = data.pixels(indices.numpy(), network.spec.shape[1:])
        network.spec.check(pixels)
        own.append(network.predict(pixels).argmax(1))
        if teacher is not None:
            others.append(teacher.predict(pixels).argmax(1))
        progress(start + len(indices), len(data))
    said = torch.cat(own)
    right = said == data.labels
    found = [right[data.labels == c] for c in range(len(data.classes))]
    by_class = [_percent(hits) if len(hits) else None for hits in found]
    agreement = _percent(said == torch.cat(others)) if others else None
    return Evaluation(len(data), _percent(right), tuple(by_class), agreement)


def _percent(hits: torch.Tensor) -> float:
    return round(100 * float(hits.double().mean()), 4)
