"""Settings of online distillation, and presets for published methods."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from ..._core.errors import UserError, unknown
from ..._core.limits import EPOCHS
from ..._core.settings import Settings
from ...data.tone import Ground
from ...models.network import Network
from ...records.divergence import stored_statistics
from ...records.record import Record
from ...synthesis.losses import Objective
from ...synthesis.losses.batchnorm import BatchNormDivergence
from ...synthesis.losses.classes import ClassBalance
from ...synthesis.losses.online import ConfidenceLoss, Disagreement, FeatureNorm, Kind
from ...synthesis.scene import Scene

__all__ = ["PRESETS", "OnlineDistillation", "online_preset"]


class OnlineDistillation(Settings):
    """Settings of online distillation. A loss with weight 0 is not computed."""

    later: ClassVar[dict[str, Any]] = {"decay": "cosine", "shift": 0, "flip": False, "hints": 0.0, "centre": 0.0}

    epochs: int = Field(default=40, ge=1, le=EPOCHS)
    """Number of epochs, of `iterations` outer iterations each; the final student is saved."""
    iterations: int = Field(default=50, ge=1)
    """Number of outer iterations per epoch."""
    generator_steps: int = Field(default=1, ge=1)
    """Number of generator steps per outer iteration."""
    student_steps: int = Field(default=10, ge=1)
    """Number of student steps per outer iteration, each on new images."""
    batch: int = Field(default=128, ge=2)
    """Number of new images per step."""
    replay_fraction: float = Field(default=0.125, ge=0, le=1)
    """Number of replayed images added to each student step, as a share of `batch`."""
    write_every: int = Field(default=5, ge=1)
    """Number of outer iterations between writes to the replay memory."""
    latent: int = Field(default=100, ge=1)
    """Number of latent values per image."""
    width: int | None = Field(default=None, ge=1)
    """Number of channels of the generator; by default the most that cost no more than the teacher's forward pass, at
    least 8.
    """
    scene: Literal["things", "drawings", "none"] = "things"
    """Kind of images: `things` (silhouettes with a texture), `drawings`, or `none` as in the papers' generators."""
    ground: Ground = "any"
    """Background of the images: `dark`, `bright`, or `any` for the whole range of brightness."""
    symmetry: float = Field(default=0.5, ge=0, le=1)
    """Share of `things` that are symmetric left to right."""
    centre: float = Field(default=0.0, ge=0, le=100)
    """How strongly `things` are drawn to the middle of the image: 0 for things anywhere, 10 for photos of one thing."""
    generator_rate: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate of the generator's Adam."""
    optimizer: Literal["muon", "adam"] = "muon"
    """Optimizer of the student; Muon orthogonalises the updates of weight matrices (Jordan et al. 2024)."""
    student_rate: float = Field(default=5e-3, gt=0, le=10)
    """Peak learning rate of the student."""
    decay: Literal["constant", "cosine"] = "cosine"
    """Learning rates of generator and student over the run: constant, or decaying to 0 along a half cosine."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run during which both learning rates rise from 0."""
    loss: Literal["kl", "l1"] = "kl"
    """Loss of the student: KL divergence at `temperature`, or mean absolute difference of logits."""
    temperature: float | None = Field(default=None, gt=0)
    """Temperature of the student's loss; by default chosen from the scale of the teacher's logits."""
    disagreement: float = Field(default=1.0, ge=0)
    """Weight of the disagreement of teacher and student, which the generator maximises."""
    kind: Kind = "js"
    """Measure of disagreement: Jensen-Shannon divergence, absolute difference of logits, or KL divergence."""
    disagreement_temperature: float = Field(default=3.0, gt=0)
    """Temperature of the disagreement, for `js` and `kl`."""
    confidence: float = Field(default=1.0, ge=0)
    """Weight of the teacher's confidence: its cross-entropy against its own predicted class."""
    balance: float = Field(default=5.0, ge=0)
    """Weight of the class balance: the negative entropy of the mean prediction."""
    features: float = Field(default=0.0, ge=0)
    """Weight of the mean absolute penultimate feature, which the generator maximises."""
    statistics: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the teacher's batch norms, or else from a record's moments by channel."""
    guidance: float | None = Field(default=None, ge=0)
    """Weight of the alignment with condensed images, if any; by default the alignment's own weight."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay per step of the moving average of the student's weights."""
    keep: Literal["average", "last"] = "average"
    """Student to save after each epoch: the moving average, or the last weights."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of forward and backward passes; weights are always float32."""
    shift: int | None = Field(default=0, ge=0)
    """Maximum random shift of the student's images in pixels; the teacher labels every view."""
    flip: bool = False
    """Mirror each of the student's images left to right with probability 1/2; the teacher labels every view."""

    hints: float = Field(default=0.0, ge=0)
    """Weight of the hints: the difference of hidden activations in layers that have the same name and size in teacher and
    student, relative to the teacher's (Romero et al. 2015).
    """

    summary: ClassVar[str] = "a generator against the student, with replay (Binici et al. 2021, 2022)"

    def composition(self) -> Scene | None:
        """The image model, or None for plain generator output."""
        return None if self.scene == "none" else Scene(self.scene, self.ground, self.symmetry, self.centre)

    def objective(self, teacher: Network, record: Record | None) -> Objective:
        """The generator's losses.

        Raises UserError if all weights are 0, or if `statistics` needs statistics that neither teacher nor record has.
        """
        parts: list[tuple[float, Any]] = [
            (self.disagreement, Disagreement(self.kind, self.disagreement_temperature)),
            (self.confidence, ConfidenceLoss()),
            (self.balance, ClassBalance()),
            (self.features, FeatureNorm()),
        ]
        if self.statistics:
            parts.append((self.statistics, BatchNormDivergence(stored_statistics(teacher, record))))
        weighted = tuple((weight, term) for weight, term in parts if weight)
        if not weighted:
            raise UserError(
                "all weights of the generator's losses are 0, expected at least one above 0; give `disagreement=1`"
            )
        return Objective(weighted)


_PLAIN = {"scene": "none", "keep": "last"}
_DAFL = {**_PLAIN, "confidence": 1.0, "balance": 5.0, "features": 0.1}
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "dafl": ({**_DAFL, "disagreement": 0.0}, "none"),
    "dfad": ({**_PLAIN, "disagreement": 1.0, "kind": "l1", "confidence": 0.0, "balance": 0.0, "loss": "l1"}, "none"),
    "mb-dfkd": ({**_DAFL, "disagreement": 1.0}, "bank"),
    "pre-dfkd": ({**_DAFL, "disagreement": 1.0, "write_every": 1}, "vae"),
}
"""Preset name -> (settings, kind of replay). The weights 1, 5 and 0.1 are DAFL's. Optimizer, learning rates, numbers of
steps and the student's initial weights are ours."""


def online_preset(name: str, **changes: Any) -> tuple[OnlineDistillation, str]:
    """Settings, with `changes`, and kind of replay of a published method. Raises UserError for an unknown name."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    settings, kind = PRESETS[name]
    return OnlineDistillation(**{**settings, **changes}), kind
