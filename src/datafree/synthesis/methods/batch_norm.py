"""Images from a network's batch norms: Gaussian noise, Inception, batch-norm statistics, or both (Haroush et al. 2020).

The batch-norm loss and the kinds of images follow the paper. Step counts, weights and priors are ours, because we did
not have the paper's text. DeepInversion (Yin et al. 2020) is `bns-inception` with form "l2", jitter 2, flips and its priors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from ..._core.seeds import stream
from ..._core.settings import Settings
from ...models import hooks as tap_names
from ...models.network import Network
from ...records.divergence import Form, has_statistics, stored_statistics
from ...records.record import Record
from ..losses import Objective
from ..losses.batchnorm import BatchNormDivergence
from ..losses.classes import ClassBalance, TargetClass, TargetLogit
from ..losses.priors import PixelNorm, Smoothness, TotalVariation
from . import Batch, chunk_labels
from .inversion import BoundInversion, InversionSettings, noise, shapes_noise

__all__ = ["BatchNormInception", "BatchNormSamples", "Gaussian", "Inception", "PriorSettings"]


class Gaussian(Settings):
    """Noise: the baseline that every other method has to beat."""

    method: Literal["gaussian"] = "gaussian"
    box: bool = True
    """Clamp pixels to their range; otherwise the network sees standard normal inputs, and the set stores floats."""

    targeted: ClassVar[bool] = False
    summary: ClassVar[str] = "standard normal noise: the control (Haroush et al. 2020)"

    @property
    def in_range(self) -> bool:
        return self.box

    def reads_record(self, teacher: Network, record: Record) -> bool:  # noqa: ARG002
        return shapes_noise(record)

    def bind(self, teacher: Network, record: Record | None) -> BoundGaussian:
        return BoundGaussian(self, teacher, record)


@dataclass(frozen=True)
class BoundGaussian:
    """Noise with the recorded mean and std of the input, or standard normal without a record."""

    settings: Gaussian
    teacher: Network
    record: Record | None

    def chunk(self, index: int, seed: int, size: int) -> Batch:
        labels, rng = chunk_labels(index, size, len(self.teacher.spec.classes)), stream(seed, "unit", index)
        pixels = noise(self.teacher, self.record, labels, rng)
        return Batch(self.teacher.spec.clamp(pixels) if self.settings.box else pixels, labels)


class PriorSettings(InversionSettings):
    """Settings of the methods that optimise pixels under priors. Priors see pixels as shares of their range."""

    steps: int = Field(default=100, ge=1)
    """Number of Adam steps on the pixels; many images of few steps train better students than the reverse."""
    learning_rate: float = Field(default=0.03, gt=0, le=10)
    """Learning rate of Adam on the pixels, as a share of the range of pixel values."""
    box: bool = True
    """Clamp pixels to their range after each step."""
    smooth: float = Field(default=0.0, ge=0)
    """Weight of the squared distance to the blurred image."""
    total_variation: float = Field(default=0.0, ge=0)
    """Weight of the total variation."""
    pixel_norm: float = Field(default=0.0, ge=0)
    """Weight of the mean squared pixel, which favours dark pixels."""
    balance: float = Field(default=0.0, ge=0)
    """Weight of the class balance of the batch."""
    jitter: int = Field(default=0, ge=0)
    """Maximum random shift of the batch at each step, in pixels."""
    flip: bool = False
    """Mirror the batch left to right with probability 1/2 at each step."""

    def priors(self) -> Objective:
        """The priors whose weight is not 0."""
        priors = (
            (self.smooth, Smoothness()),
            (self.total_variation, TotalVariation()),
            (self.pixel_norm, PixelNorm()),
            (self.balance, ClassBalance()),
        )
        return Objective(tuple((weight, term) for weight, term in priors if weight))


class Inception(PriorSettings):
    """Images that maximise the logit of their class under a smoothness prior."""

    method: Literal["inception"] = "inception"
    smooth: float = Field(default=100.0, ge=0)
    """Weight of the squared distance to the blurred image."""

    summary: ClassVar[str] = "maximises the target class's logit under a smoothness prior (Haroush et al. 2020)"

    def reads_record(self, teacher: Network, record: Record) -> bool:  # noqa: ARG002
        return shapes_noise(record)

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return self.bind_objective(teacher, record, Objective(((1.0, TargetLogit()),)) + self.priors())


class BatchNormSamples(PriorSettings):
    """Batches whose activations have the statistics stored in the batch norms."""

    method: Literal["bns"] = "bns"
    form: Form = "forward"
    """Divergence: `forward` is the paper's KL, `reverse` the other direction, `l2` that of ZeroQ and DeepInversion."""

    targeted: ClassVar[bool] = False
    summary: ClassVar[str] = "matches batch statistics to those stored in the batch norms (Haroush et al. 2020)"

    def reads_record(self, teacher: Network, record: Record) -> bool:
        return shapes_noise(record) or not has_statistics(teacher)

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        term = BatchNormDivergence(stored_statistics(teacher, record), self.form)
        return self.bind_objective(teacher, record, 1.0 * term + self.priors())


class BatchNormInception(PriorSettings):
    """As `bns`, and each image has a target class."""

    method: Literal["bns-inception"] = "bns-inception"
    form: Form = "forward"
    """Divergence: `forward` is the paper's KL, `reverse` the other direction, `l2` that of ZeroQ and DeepInversion."""
    classes: float | None = Field(default=None, ge=0)
    """Weight of the target class's cross-entropy; by default 1, or a tenth of the number of units in a record."""

    summary: ClassVar[str] = "as `bns`, with a target class (Haroush et al. 2020; DeepInversion with form l2)"

    def reads_record(self, teacher: Network, record: Record) -> bool:
        return shapes_noise(record) or not has_statistics(teacher)

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        term = BatchNormDivergence(stored_statistics(teacher, record), self.form)
        weight = self._weight(teacher, term) if self.classes is None else self.classes
        return self.bind_objective(teacher, record, 1.0 * term + weight * TargetClass() + self.priors())

    @staticmethod
    def _weight(teacher: Network, term: BatchNormDivergence) -> float:
        """The default weight. A record's divergence sums over all units of all layers and would outweigh the
        cross-entropy.
        """
        if tap_names.batch_norms(teacher):
            return 1.0
        return max(1.0, sum(len(layer.mean) for layer in term.layers) / 10)
