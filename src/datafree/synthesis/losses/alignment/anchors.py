"""The few images that others are pulled to, and where they lie in the teacher's penultimate features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ...._core.errors import UserError
from ...._core.seeds import stream
from ...._core.slots import Slot, Slots
from ....data.augmentation import Augmentation
from ....models import hooks as tap_names
from ....models.network import Network, copied

__all__ = ["Anchors", "FeatureMatching", "check_anchors"]

MEASURED = 512


def check_anchors(teacher: Network, pixels: Tensor, labels: Tensor) -> None:
    """Raises UserError for anchors that `teacher` does not take, or labels (N, classes) that are no probabilities."""
    teacher.spec.check_set(pixels)
    if not len(pixels):
        raise UserError("got no anchor image, wanted one at least; give condensed images or a few real ones")
    wanted = (len(pixels), len(teacher.spec.classes))
    if tuple(labels.shape) != wanted:
        raise UserError(
            f"labels of the anchors: got shape {tuple(labels.shape)}, wanted {wanted} (images, classes); give each image "
            "the probabilities of the teacher's classes"
        )
    sums = labels.double().sum(1)
    if not bool((labels >= 0).all()) or not bool(((sums - 1).abs() < 1e-3).all()):
        raise UserError(
            "labels of the anchors: got rows that are no probabilities, wanted rows of sum 1; normalise them"
        )


class Anchors:
    """Images by class. Features are standardised by the anchors as they are shown: the mean of each, and one scale for all.

    The scale is the root of their mean variance: a feature that is dead on the few anchors has none of its own.
    """

    def __init__(self, teacher: Network, pixels: Tensor, labels: Tensor, how: Augmentation, seed: int):
        check_anchors(teacher, pixels, labels)
        self.teacher, self.how = _twin(teacher), how
        classes = labels.argmax(1).cpu()
        order = classes.argsort(stable=True)
        self.pixels = pixels.detach().float().cpu()[order].clone()
        self.counts = classes.bincount(minlength=len(teacher.spec.classes))
        self.centre, self.scale = torch.zeros(()), torch.ones(())
        self._measure(classes[order], stream(seed, "anchors"))

    def _measure(self, classes: Tensor, rng: torch.Generator) -> None:
        """Mean and scale of at least 512 showings."""
        found = self.features(classes.repeat(-(-MEASURED // len(classes))), rng)
        self.centre = found.mean(0)
        scale = found.var(0, correction=0).mean().sqrt()
        self.scale = scale if float(scale) > 0 else torch.ones_like(scale)

    def known(self, labels: Tensor) -> Tensor:
        """(N,) whether there is an anchor of that class."""
        return (self.counts > 0).to(labels.device)[labels]

    @torch.no_grad()
    def features(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Standardised (N, F) of one anchor a label, newly augmented; the labels are of classes that have one.

        The anchors of a class take turns, from a random one on, so that as many labels as anchors show each just once.
        """
        device, labels = self.teacher.device, labels.cpu()
        turns = one_hot(labels, len(self.counts)).cumsum(0).gather(1, labels[:, None])[:, 0] - 1
        first = (torch.rand(len(self.counts), generator=rng) * self.counts).long()
        rows = (self.counts.cumsum(0) - self.counts)[labels] + (turns + first[labels]) % self.counts[labels]
        shown = self.how.show(self.pixels[rows], self.teacher.spec, rng).to(device)
        with tap_names.watch(self.teacher, (tap_names.FEATURES,)) as seen:
            self.teacher.logits(shown)
        return self.standard(seen[tap_names.FEATURES].float().flatten(1))

    def standard(self, features: Tensor) -> Tensor:
        """Features (N, F) in units of the anchors' own spread."""
        return (features - self.centre.to(features)) / self.scale.to(features)

    def state(self) -> dict[str, Tensor]:
        own = {"pixels": self.pixels, "counts": self.counts, "centre": self.centre, "scale": self.scale}
        return {name: tensor.detach().cpu().clone() for name, tensor in own.items()}

    def slots(self, steps: int) -> Slots:  # noqa: ARG002
        slots = {name: Slot.like(tensor) for name, tensor in self.state().items()}
        return {**slots, "scale": Slot.like(self.scale, low=1e-30)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Raises UserError for the state of other anchors."""
        mine = self.state()
        for name in ("pixels", "counts"):
            if name not in state or not torch.equal(state[name], mine[name]):
                raise UserError("the guide of that run has other anchors; repeat that run's command")
        self.centre, self.scale = (state[name].to(self.centre.device).clone() for name in ("centre", "scale"))


Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FeatureMatching:
    """A guide that learns nothing: the distance of made features from those of as many anchors of the same classes."""

    anchors: Anchors
    distance: Distance
    """Distance of generated features (N, F) from anchors (N, F), given the classes (N,) of both; summed over images."""

    def loss(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        guided = self.anchors.known(labels)
        if not bool(guided.any()):
            return features.sum() * 0
        made, labels = self.anchors.standard(features[guided]), labels[guided]
        return self.distance(made, self.anchors.features(labels, rng), labels)

    def learn(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> float:  # noqa: ARG002
        return 0.0

    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.state().values())

    def state(self) -> dict[str, Tensor]:
        return self.anchors.state()

    def slots(self, steps: int) -> Slots:
        return self.anchors.slots(steps)

    def load(self, state: dict[str, Tensor]) -> None:
        self.anchors.load(state)


def _twin(network: Network) -> Network:
    """The network in eval mode with hooks of its own; weights and buffers are the same tensors.

    A guide asks for its anchors' features while somebody watches the teacher, and must not overwrite what is seen.
    """
    memo = {id(own): own for own in chain(network.module.parameters(), network.module.buffers())}
    return replace(network, module=copied(network.module, memo).eval())
