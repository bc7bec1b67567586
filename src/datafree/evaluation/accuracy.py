"""Measures a network: accuracy against labels, and agreement with a teacher."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from .._core.arguments import checked
from .._core.progress import Progress, silent
from ..data import Dataset
from ..data.adapters import LabelledData, as_dataset
from ..data.dataset_checks import as_input
from ..models.agreement import Evaluation
from ..models.behaviour import check_finite
from ..models.class_names import class_positions
from ..models.network import Network

__all__ = ["Evaluation", "chance_level", "doubt", "evaluate", "in_words", "learned_little"]

BATCH = 2048
NEAR = 0.15
"""Share of the way from chance to 100 % up to which an accuracy is called near chance."""


@runtime_checkable
class QuantizedNetwork(Protocol):
    """The part of `quantization.QuantizedNetwork` that is read; importing that takes the packages of an extra."""

    @property
    def network(self) -> Network: ...


@checked
def evaluate(
    network: Network | QuantizedNetwork,
    data: LabelledData,
    teacher: Network | None = None,
    *,
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy in % on `data`, in total and per class, and agreement with `teacher` in %. Runs in batches.

    `data`: what `load_data` returns, a torch Dataset or DataLoader, or a pair (images, labels); see `as_dataset`.
    `network` may be what `load_model` returns, also for a quantized folder, or what `quantize` returns. If the data has
    only some of the network's classes, the network still chooses among all of its classes. Raises UserError for data of
    other classes or another shape, for logits with NaN or infinity, and for a network whose logits for an image depend on
    more than that image (`Network.check`).
    """
    network = network if isinstance(network, Network) else network.network
    data = as_dataset(data, network)
    for_teacher = None if teacher is None else as_input(teacher, data, part=True)
    data = as_input(network, data, part=True)
    shared = teacher is not None and _takes_same_pixels(network, teacher)
    network.check()
    if teacher is not None:
        teacher.check()
    logits, teacher_logits = [], []
    for start in range(0, len(data), BATCH):
        indices = torch.arange(start, min(start + BATCH, len(data)))
        pixels = _pixels(network, data, indices)
        logits.append(network.predict(pixels, finite=False))
        if teacher is not None and for_teacher is not None:
            teacher_pixels = pixels if shared else _pixels(teacher, for_teacher, indices)
            teacher_logits.append(teacher.predict(teacher_pixels, finite=False))
        progress(start + len(indices), len(data))
    predicted = _predicted(network, logits)
    hits = predicted == data.labels
    hits_by_class = [hits[data.labels == label] for label in range(len(data.classes))]
    by_class = [_percent(class_hits) if len(class_hits) else None for class_hits in hits_by_class]
    agreement = None
    if teacher is not None:
        agreement = _percent(predicted == _renumbered(_predicted(teacher, teacher_logits), teacher, network))
    fingerprint = None if teacher is None else teacher.fingerprint()
    return Evaluation(
        len(data), _percent(hits), tuple(by_class), agreement, network=network.fingerprint(), teacher=fingerprint
    )


def in_words(measured: Evaluation, data: str) -> str:
    """`accuracy 97.20 % on 500 test images of digits`, with the agreement if it was measured."""
    words = f"accuracy {measured.accuracy:.2f} % on {measured.images:,} test images of {data}"
    return words if measured.agreement is None else f"{words}, agreement with its teacher {measured.agreement:.2f} %"


def doubt(accuracy: float, images: int, classes: int, note: str = "") -> str | None:
    """A warning, with `note`, if an accuracy in % on `images` images is near chance or below, else None."""
    if (place := chance_level(accuracy, images, classes)) is None:
        return None
    return (
        f"{place}{note}: is this the data that the network was trained for, with its classes in "
        "this order, and are its mean and std right (datafree pack sets all three)?"
    )


def learned_little(accuracy: float, images: int, classes: int) -> str | None:
    """A warning if the accuracy in % of a network that was just trained is near chance or below, else None."""
    if (place := chance_level(accuracy, images, classes)) is None:
        return None
    return (
        f"{place}: the network learned little; train for more epochs, in smaller batches, or at another learning rate"
    )


def chance_level(accuracy: float, images: int, classes: int) -> str | None:
    """`near chance (10.0 %)` if an accuracy in % on `images` images is, else None."""
    chance = 100 / classes
    noise = 3 * (chance * (100 - chance) / images) ** 0.5
    if accuracy > chance + max(noise, NEAR * (100 - chance)):
        return None
    return f"{'below' if accuracy < chance - noise else 'near'} chance ({chance:.1f} %)"


def _takes_same_pixels(network: Network, other: Network) -> bool:
    """Whether both networks take pixels of the same shape and range. Each normalises them on its own."""
    return all(getattr(network.spec, name) == getattr(other.spec, name) for name in ("shape", "low", "high"))


def _pixels(network: Network, data: Dataset, indices: torch.Tensor) -> torch.Tensor:
    pixels = data.pixels(indices.numpy(), network.spec.shape[1:])
    network.spec.check(pixels)
    return pixels


def _predicted(network: Network, logits: list[torch.Tensor]) -> torch.Tensor:
    """The predicted classes (N,) of all batches. Raises UserError for logits that are not finite, over all batches."""
    joined = torch.cat(logits)
    check_finite(network.name, joined)
    return joined.argmax(1)


def _renumbered(classes: torch.Tensor, teacher: Network, network: Network) -> torch.Tensor:
    """The teacher's classes (N,) as positions among the network's classes, which may be in another order."""
    places = class_positions(teacher.spec.classes, network.spec.classes, teacher.name, network.name)
    return torch.tensor(places)[classes]


def _percent(hits: torch.Tensor) -> float:
    return round(100 * float(hits.double().mean()), 4)
