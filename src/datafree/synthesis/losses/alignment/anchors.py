"""Anchors: a few images that generated ones are pulled towards, and their penultimate features."""

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
    """Raises UserError unless `pixels` (N, C, H, W) fit the teacher and `labels` (N, classes) are probabilities."""
    teacher.spec.check_set(pixels)
    if not len(pixels):
        raise UserError("got no anchor image, expected at least one; give condensed images or a few real ones")
    expected = (len(pixels), len(teacher.spec.classes))
    if tuple(labels.shape) != expected:
        raise UserError(
            f"labels of the anchors: got shape {tuple(labels.shape)}, expected {expected} (images, classes); give each "
            "image the probabilities of the teacher's classes"
        )
    sums = labels.double().sum(1)
    if not bool((labels >= 0).all()) or not bool(((sums - 1).abs() < 1e-3).all()):
        raise UserError(
            "labels of the anchors: got rows that are not probabilities, expected rows that sum to 1; normalise them"
        )


class Anchors:
    """Anchor images by class, with standardised features: a mean per feature and one scale for all features.

    Mean and scale are measured on augmented anchors. The scale is the root of the mean variance, because a feature that
    is constant on all anchors has no scale of its own.
    """

    def __init__(self, teacher: Network, pixels: Tensor, labels: Tensor, augmentation: Augmentation, seed: int):
        check_anchors(teacher, pixels, labels)
        self.teacher, self.augmentation = _with_own_hooks(teacher), augmentation
        classes = labels.argmax(1).cpu()
        order = classes.argsort(stable=True)
        self.pixels = pixels.detach().float().cpu()[order].clone()
        self.counts = classes.bincount(minlength=len(teacher.spec.classes))
        self.centre, self.scale = torch.zeros(()), torch.ones(())
        self._measure(classes[order], stream(seed, "anchors"))

    def _measure(self, classes: Tensor, rng: torch.Generator) -> None:
        """Measures mean and scale on at least 512 augmented anchors."""
        features = self.features(classes.repeat(-(-MEASURED // len(classes))), rng)
        self.centre = features.mean(0)
        scale = features.var(0, correction=0).mean().sqrt()
        self.scale = scale if float(scale) > 0 else torch.ones_like(scale)

    def has_anchor(self, labels: Tensor) -> Tensor:
        """Whether each label's class has an anchor, (N,)."""
        return (self.counts > 0).to(labels.device)[labels]

    @torch.no_grad()
    def features(self, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Standardised features (N, F) of one newly augmented anchor per label. Each label's class must have an anchor.

        The anchors of a class are used in turn from a random start, so each is used once if there are as many labels.
        """
        device, labels = self.teacher.device, labels.cpu()
        turns = one_hot(labels, len(self.counts)).cumsum(0).gather(1, labels[:, None])[:, 0] - 1
        starts = (torch.rand(len(self.counts), generator=rng) * self.counts).long()
        rows = (self.counts.cumsum(0) - self.counts)[labels] + (turns + starts[labels]) % self.counts[labels]
        augmented = self.augmentation.show(self.pixels[rows], self.teacher.spec, rng).to(device)
        with tap_names.watch(self.teacher, (tap_names.FEATURES,)) as activations:
            self.teacher.logits(augmented)
        return self.standardise(activations[tap_names.FEATURES].float().flatten(1))

    def standardise(self, features: Tensor) -> Tensor:
        """Standardises features (N, F) by the anchors' mean and scale."""
        return (features - self.centre.to(features)) / self.scale.to(features)

    def state(self) -> dict[str, Tensor]:
        tensors = {"pixels": self.pixels, "counts": self.counts, "centre": self.centre, "scale": self.scale}
        return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}

    def slots(self, steps: int) -> Slots:  # noqa: ARG002
        slots = {name: Slot.like(tensor) for name, tensor in self.state().items()}
        return {**slots, "scale": Slot.like(self.scale, low=1e-30)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores a `state`. Raises UserError if it belongs to other anchors."""
        expected = self.state()
        for name in ("pixels", "counts"):
            if name not in state or not torch.equal(state[name], expected[name]):
                raise UserError("the saved guide has other anchors; repeat that run's command")
        self.centre, self.scale = (state[name].to(self.centre.device).clone() for name in ("centre", "scale"))


Distance = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class FeatureMatching:
    """A guide that does not learn: the distance of generated features from those of anchors of the same classes."""

    anchors: Anchors
    distance: Distance
    """Distance of generated features (N, F) from anchors (N, F), given the classes (N,) of both; summed over images."""

    def loss(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        guided = self.anchors.has_anchor(labels)
        if not bool(guided.any()):
            return features.sum() * 0
        generated, labels = self.anchors.standardise(features[guided]), labels[guided]
        return self.distance(generated, self.anchors.features(labels, rng), labels)

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


def _with_own_hooks(network: Network) -> Network:
    """The network in eval mode with separate hooks; it shares weights and buffers with the original.

    A guide computes anchor features while the teacher is being watched, and must not overwrite the watched activations.
    """
    memo = {id(tensor): tensor for tensor in chain(network.module.parameters(), network.module.buffers())}
    return replace(network, module=copied(network.module, memo).eval())
