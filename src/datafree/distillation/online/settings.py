"""The settings of generator against student, and the methods of the field as presets of them."""

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
from .scene import Scene

__all__ = ["PRESETS", "OnlineDistillation", "online_preset"]


class OnlineDistillation(Settings):
    """A generator against a student under a frozen teacher; every weight of 0 leaves its term out."""

    epochs: int = Field(default=40, ge=1, le=EPOCHS)
    """Number of epochs, of --iterations outer iterations each; the final student is saved."""
    iterations: int = Field(default=50, ge=1)
    """Number of outer iterations per epoch."""
    generator_steps: int = Field(default=1, ge=1)
    """Number of generator steps per outer iteration."""
    student_steps: int = Field(default=10, ge=1)
    """Number of student steps per outer iteration, each on new images."""
    batch: int = Field(default=128, ge=2)
    """Number of new images per step."""
    replay_fraction: float = Field(default=0.125, ge=0, le=1)
    """Number of replayed images beside them, as a share of `batch`."""
    write_every: int = Field(default=5, ge=1)
    """Number of outer iterations between two writes into the memory."""
    latent: int = Field(default=100, ge=1)
    """Number of latent values per image."""
    width: int | None = Field(default=None, ge=1)
    """Channels of the generator; by default as many as cost no more than the teacher's forward pass, and at least 8."""
    scene: Literal["things", "drawings", "none"] = "things"
    """Images are of things with a silhouette and a texture, or drawings; `none`: as the papers' generators make them."""
    ground: Ground = "any"
    """Background of the images: `dark`, `bright`, or `any` for both and all between."""
    symmetry: float = Field(default=0.5, ge=0, le=1)
    """Share of the things that are symmetric left to right."""
    generator_rate: float = Field(default=1e-3, gt=0, le=10)
    """Highest learning rate of the generator's Adam."""
    optimizer: Literal["muon", "adam"] = "muon"
    """The student's optimizer; Muon makes each step of a weight matrix orthogonal (Jordan et al. 2024)."""
    student_rate: float = Field(default=5e-3, gt=0, le=10)
    """Highest learning rate of the student; both rates fall to 0 along a half cosine."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the run over which both rates rise from 0."""
    loss: Literal["kl", "l1"] = "kl"
    """The student's loss: KL divergence at the temperature, or the mean absolute difference of logits."""
    temperature: float | None = Field(default=None, gt=0)
    """Both sides' logits are divided by it; by default chosen from the scale of the teacher's logits."""
    disagreement: float = Field(default=1.0, ge=0)
    """Weight of the disagreement between teacher and student, which the generator seeks."""
    kind: Kind = "js"
    """Measure of the disagreement: `js`, `l1` or `kl`."""
    disagreement_temperature: float = Field(default=3.0, gt=0)
    """The temperature of the disagreement."""
    one_hot: float = Field(default=1.0, ge=0)
    """Weight of the cross-entropy against the teacher's own answer."""
    balance: float = Field(default=5.0, ge=0)
    """Weight of the class balance."""
    features: float = Field(default=0.0, ge=0)
    """Weight of the mean absolute penultimate feature, which the generator seeks."""
    statistics: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the teacher's batch norms, or from a record's moments by channel where it has none."""
    guidance: float | None = Field(default=None, ge=0)
    """Weight of the alignment with condensed images, where there are some; by default that of its kind."""
    ema: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the student's moving average, per step."""
    keep: Literal["average", "last"] = "average"
    """The student that is saved after each epoch: the moving average, or the one that learns."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of forward and backward passes; weights stay float32."""

    summary: ClassVar[str] = "a generator against the student, with --replay (Binici et al. 2021, 2022)"

    def composition(self) -> Scene | None:
        """What images are of."""
        return None if self.scene == "none" else Scene(self.scene, self.ground, self.symmetry)

    def objective(self, teacher: Network, record: Record | None) -> Objective:
        """The generator's; raises UserError where `statistics` is asked for and nobody knows any."""
        parts: list[tuple[float, Any]] = [
            (self.disagreement, Disagreement(self.kind, self.disagreement_temperature)), (self.one_hot, ConfidenceLoss()),
            (self.balance, ClassBalance()), (self.features, FeatureNorm()),
        ]  # fmt: skip
        if self.statistics:
            parts.append((self.statistics, BatchNormDivergence(stored_statistics(teacher, record))))
        kept = tuple((weight, term) for weight, term in parts if weight)
        if not kept:
            raise UserError("the generator has no term of a weight above 0, wanted one at least; give --disagreement 1")
        return Objective(kept)


_PLAIN = {"scene": "none", "keep": "last"}
_DAFL = {**_PLAIN, "one_hot": 1.0, "balance": 5.0, "features": 0.1}
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "dafl": ({**_DAFL, "disagreement": 0.0}, "none"),
    "dfad": ({**_PLAIN, "disagreement": 1.0, "kind": "l1", "one_hot": 0.0, "balance": 0.0, "loss": "l1"}, "none"),
    "mb-dfkd": ({**_DAFL, "disagreement": 1.0}, "bank"),
    "pre-dfkd": ({**_DAFL, "disagreement": 1.0, "write_every": 1}, "vae"),
}
"""Name -> (settings, kind of replay). The weights 1, 5, 0.1 are DAFL's; optimiser, rates and numbers of steps are ours,
and so is what the command lets a student begin with."""


def online_preset(name: str, **changes: Any) -> tuple[OnlineDistillation, str]:
    """The settings of a method of the field, and its kind of replay. Raises UserError for another name."""
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    own, kind = PRESETS[name]
    return OnlineDistillation(**{**own, **changes}), kind
