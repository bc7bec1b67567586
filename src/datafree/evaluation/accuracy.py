"""What a network is worth: accuracy against labels, agreement with a teacher. They are different words."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .._core.arguments import checked
from .._core.progress import Progress, silent
from ..data import Dataset
from ..data.adapters import LabelledData, as_dataset
from ..data.dataset_checks import as_input
from ..models.behaviour import check_finite
from ..models.class_names import class_positions
from ..models.network import Network

__all__ = ["Evaluation", "doubt", "evaluate", "in_words"]

BATCH = 2048
NEAR = 0.15
"""Share of the way from chance to 100 % up to which an accuracy is called near chance."""


@dataclass(frozen=True)
class Evaluation:
    """Percentages over `images` images; `agreement` only where a teacher was given."""

    images: int
    accuracy: float
    by_class: tuple[float | None, ...]
    """None for a class without images."""
    agreement: float | None = None


@checked
def evaluate(
    network: Network, data: LabelledData, teacher: Network | None = None, *, progress: Progress = silent
) -> Evaluation:
    """Accuracy in % on `data`, in total and by class, and agreement with `teacher` in %, a batch at a time.

    `data`: what `load_data` returns, a torch Dataset or DataLoader, or a pair (images, labels); see `as_dataset`.
    Data of some of the network's classes is measured on those: the network still chooses among all of its classes.
    Raises UserError for data of other classes or another shape, for logits with NaN or infinity, and for a network that
    does not answer each image by the image alone (`Network.check`).
    """
    data = as_dataset(data, network)
    theirs = None if teacher is None else as_input(teacher, data, part=True)
    data = as_input(network, data, part=True)
    shared = teacher is not None and _same_pixels(network, teacher)
    for one in (network,) if teacher is None else (network, teacher):
        one.check()
    own, others = [], []
    for start in range(0, len(data), BATCH):
        indices = torch.arange(start, min(start + BATCH, len(data)))
        pixels = _pixels(network, data, indices)
        own.append(network.predict(pixels, finite=False))
        if teacher is not None and theirs is not None:
            others.append(teacher.predict(pixels if shared else _pixels(teacher, theirs, indices), finite=False))
        progress(start + len(indices), len(data))
    said = _chosen(network, own)
    right = said == data.labels
    found = [right[data.labels == c] for c in range(len(data.classes))]
    by_class = [_percent(hits) if len(hits) else None for hits in found]
    agreement = _percent(said == _renamed(_chosen(teacher, others), teacher, network)) if teacher is not None else None
    return Evaluation(len(data), _percent(right), tuple(by_class), agreement)


def in_words(measured: Evaluation, data: str) -> str:
    """`accuracy 97.20 % on 500 test images of digits`, with the agreement where a teacher was there."""
    words = f"accuracy {measured.accuracy:.2f} % on {measured.images:,} test images of {data}"
    return words if measured.agreement is None else f"{words}, agreement with its teacher {measured.agreement:.2f} %"


def doubt(accuracy: float, images: int, classes: int, known: str = "") -> str | None:
    """A line where an accuracy in % on so many images is hardly above that of guessing; `known` is added to it."""
    chance = 100 / classes
    noise = 3 * (chance * (100 - chance) / images) ** 0.5
    if accuracy > chance + max(noise, NEAR * (100 - chance)):
        return None
    below = "below" if accuracy < chance - noise else "near"
    return (
        f"{below} chance ({chance:.1f} %){known}: is this the data that the network was trained for, with its classes in "
        "this order, and are its mean and std right (pack --classes, --mean and --std say them)?"
    )


def _same_pixels(network: Network, other: Network) -> bool:
    """Whether both take the same pixels of an image: its shape and range; each normalises for itself."""
    return all(getattr(network.spec, name) == getattr(other.spec, name) for name in ("shape", "low", "high"))


def _pixels(network: Network, data: Dataset, indices: torch.Tensor) -> torch.Tensor:
    pixels = data.pixels(indices.numpy(), network.spec.shape[1:])
    network.spec.check(pixels)
    return pixels


def _chosen(network: Network, logits: list[torch.Tensor]) -> torch.Tensor:
    """The likeliest class (N,) of logits, batch by batch. Raises UserError where one has none, of all batches together."""
    joined = torch.cat(logits)
    check_finite(network.name, joined)
    return joined.argmax(1)


def _renamed(classes: torch.Tensor, teacher: Network, network: Network) -> torch.Tensor:
    """The teacher's classes (N,) by their positions among the network's, which may be in another order."""
    places = class_positions(teacher.spec.classes, network.spec.classes, teacher.name, network.name)
    return torch.tensor(places)[classes]


def _percent(hits: torch.Tensor) -> float:
    return round(100 * float(hits.double().mean()), 4)
