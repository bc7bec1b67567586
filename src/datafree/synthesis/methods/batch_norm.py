"""Images from a network's batch norms alone: Gaussian, Inception, batch-norm statistics, both (Haroush et al. 2020).

The batch-norm loss and the kinds of images are the paper's; step counts, weights and priors are ours, since the paper's
text was not at hand. DeepInversion (Yin et al. 2020) is `bns-inception` with `--form l2 --jitter 2 --flip` and its priors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from ..._core.seeds import stream
from ..._core.settings import Settings
from ...models import hooks as tap_names
from ...models.network import Network
from ...records.divergence import Form, stored_statistics
from ...records.record import Record
from ..losses import Objective
from ..losses.batchnorm import BatchNormDivergence
from ..losses.classes import ClassBalance, WantedClass, WantedLogit
from ..losses.priors import PixelNorm, Smoothness, TotalVariation
from . import Batch, unit_labels
from .inversion import BoundInversion, InversionSettings, noise

__all__ = ["BatchNormInception", "BatchNormSamples", "Gaussian", "Inception", "PriorSettings"]


class Gaussian(Settings):
    """Noise, which is what any other method has to be better than."""

    method: Literal["gaussian"] = "gaussian"
    box: bool = True
    """Cut pixels to their range; without it they are normal to the network, and stored as floats."""

    targeted: ClassVar[bool] = False
    summary: ClassVar[str] = "standard normal noise: the control (Haroush et al. 2020)"

    @property
    def in_range(self) -> bool:
        return self.box

    def bind(self, teacher: Network, record: Record | None) -> BoundGaussian:
        return BoundGaussian(self, teacher, record)


@dataclass(frozen=True)
class BoundGaussian:
    """Units of noise, with the input's recorded mean and std where there is a record of them."""

    settings: Gaussian
    teacher: Network
    record: Record | None

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = unit_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        pixels = noise(self.teacher, self.record, labels, rng)
        return Batch(self.teacher.spec.clamp(pixels) if self.settings.box else pixels, labels)


class PriorSettings(InversionSettings):
    """The fields of every method that optimises pixels under priors, which take pixels as shares of their range."""

    steps: int = Field(default=100, ge=1)
    """Number of Adam steps on the pixels; more images in fewer steps teach more."""
    learning_rate: float = Field(default=0.03, gt=0, le=10)
    """Learning rate of Adam on the pixels, as a share of the range of pixel values."""
    box: bool = True
    """Keep pixels in their range."""
    smooth: float = Field(default=0.0, ge=0)
    """Weight of the distance to the blurred image."""
    total_variation: float = Field(default=0.0, ge=0)
    """Weight of the total variation."""
    pixel_norm: float = Field(default=0.0, ge=0)
    """Weight of the mean square of the pixels, which draws them to the dark end of the range."""
    balance: float = Field(default=0.0, ge=0)
    """Weight of the batch's class balance."""
    jitter: int = Field(default=0, ge=0)
    """Shift the batch by up to this many pixels before the network, each step."""
    flip: bool = False
    """Mirror the batch left to right before the network with probability 1/2, each step."""

    def priors(self) -> Objective:
        """The weighted priors; without the ones of weight 0."""
        own = (
            (self.smooth, Smoothness()),
            (self.total_variation, TotalVariation()),
            (self.pixel_norm, PixelNorm()),
            (self.balance, ClassBalance()),
        )
        return Objective(tuple((weight, term) for weight, term in own if weight))


class Inception(PriorSettings):
    """Images of a class, by its logit and a smooth prior."""

    method: Literal["inception"] = "inception"
    smooth: float = Field(default=100.0, ge=0)
    """Weight of the distance to the blurred image."""

    summary: ClassVar[str] = "the wanted class's logit is maximised under a smooth prior (Haroush et al. 2020)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return self.maker(teacher, record, Objective(((1.0, WantedLogit()),)) + self.priors())


class BatchNormSamples(PriorSettings):
    """Batches whose activations have the statistics that the batch norms stored."""

    method: Literal["bns"] = "bns"
    form: Form = "forward"
    """`forward` is the paper's KL divergence, `reverse` the other direction, `l2` ZeroQ's and DeepInversion's."""

    targeted: ClassVar[bool] = False
    summary: ClassVar[str] = "batch statistics are those the batch norms stored (Haroush et al. 2020)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        term = BatchNormDivergence(stored_statistics(teacher, record), self.form)
        return self.maker(teacher, record, 1.0 * term + self.priors())


class BatchNormInception(PriorSettings):
    """As `bns`, and every image of its wanted class."""

    method: Literal["bns-inception"] = "bns-inception"
    form: Form = "forward"
    """`forward` is the paper's KL divergence, `reverse` the other direction, `l2` ZeroQ's and DeepInversion's."""
    classes: float | None = Field(default=None, ge=0)
    """Weight of the cross-entropy to the wanted class; by default 1, or a tenth of the number of a record's units."""

    summary: ClassVar[str] = "as `bns`, with the wanted class (Haroush et al. 2020; DeepInversion with --form l2)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        term = BatchNormDivergence(stored_statistics(teacher, record), self.form)
        weight = self._weight(teacher, term) if self.classes is None else self.classes
        return self.maker(teacher, record, 1.0 * term + weight * WantedClass() + self.priors())

    @staticmethod
    def _weight(teacher: Network, term: BatchNormDivergence) -> float:
        """A record's statistics are summed over every unit of every layer, which outweighs one cross-entropy by far."""
        if tap_names.batch_norms(teacher):
            return 1.0
        return max(1.0, sum(len(own.mean) for own in term.layers) / 10)
