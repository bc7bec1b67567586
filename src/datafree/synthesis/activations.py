"""The paper's reconstructions from layer statistics: top layer, all layers, all layers with fixed dropout filters."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from .. import taps as tap_names
from ..errors import UserError
from ..network import Network
from ..records import Record
from ..settings import Settings
from ..terms import Objective
from ..terms.match import MatchTargets, measured
from .invert import Inversion, InversionMaker

__all__ = ["AllLayers", "AllLayersDropout", "TopLayer"]


class TopLayer(Settings):
    """Images whose logits match targets drawn from the record of the last layer."""

    method: Literal["top"] = "top"
    steps: int = Field(default=300, ge=1)
    """Adam steps on the pixels; the authors' code takes 1,000."""
    learning_rate: float = Field(default=0.07, gt=0)
    """Of Adam on the pixels, in pixel units: the authors take 0.07 (HINTON), 0.09 (LeNet-5), 0.05 (AlexNet)."""
    relu_logits: bool = True
    """ReLU on logits and their targets, as in the paper; it deletes negative targets."""
    box: bool = False
    """Keep pixels in their range; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the teacher's forward pass; bfloat16 is about 4 times faster on CPUs that have it."""

    summary: ClassVar[str] = "logits match targets drawn from the top layer's record (Lopes et al. 2017, eq. 1)"

    @property
    def boxed(self) -> bool:
        return self.box

    def on(self, teacher: Network, record: Record | None) -> InversionMaker:
        return _maker(self, teacher, record, top_only=True)


class AllLayers(Settings):
    """Images whose activations at every recorded layer match targets drawn from the record."""

    method: Literal["all"] = "all"
    steps: int = Field(default=300, ge=1)
    """Adam steps on the pixels; the authors' code takes 1,000."""
    learning_rate: float = Field(default=0.07, gt=0)
    """Of Adam on the pixels, in pixel units."""
    relu_logits: bool = True
    """ReLU on logits and their targets, as in the paper."""
    box: bool = False
    """Keep pixels in their range; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the teacher's forward pass."""

    summary: ClassVar[str] = "activations of all layers match targets drawn from their records (eq. 2)"

    @property
    def boxed(self) -> bool:
        return self.box

    def on(self, teacher: Network, record: Record | None) -> InversionMaker:
        return _maker(self, teacher, record)


class AllLayersDropout(Settings):
    """As `all`, under dropout masks that stay fixed while an image is made."""

    method: Literal["all-dropout"] = "all-dropout"
    steps: int = Field(default=300, ge=1)
    """Adam steps on the pixels; the authors' code takes 1,000."""
    learning_rate: float = Field(default=0.07, gt=0)
    """Of Adam on the pixels, in pixel units."""
    dropout: float = Field(default=0.5, gt=0, lt=1)
    """Share of hidden units masked, as in the teacher's training."""
    relu_logits: bool = True
    """ReLU on logits and their targets, as in the paper."""
    box: bool = False
    """Keep pixels in their range; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the teacher's forward pass."""

    summary: ClassVar[str] = "as `all`, under dropout masks fixed for each image (sec. 3.1.2)"

    @property
    def boxed(self) -> bool:
        return self.box

    def on(self, teacher: Network, record: Record | None) -> InversionMaker:
        return _maker(self, teacher, record, dropout=self.dropout)


def _maker(
    settings: TopLayer | AllLayers | AllLayersDropout,
    teacher: Network,
    record: Record | None,
    *,
    top_only: bool = False,
    dropout: float = 0.0,
) -> InversionMaker:
    """Follows MatchTargets over the record's moments: those of the top layer, or of all layers."""
    if record is None:
        raise UserError(
            f"method {settings.method!r} needs a record, got none; ask the publisher for it, or name --record"
        )
    top = tap_names.layers(teacher)[-1]
    unwanted = {name for name, e in record.need("moments").items() if e.taps == (tap_names.INPUT,)}
    entries = {name: e for name, e in record.need("moments").items() if name not in unwanted}
    if top_only:
        entries = {name: entry for name, entry in entries.items() if entry.taps == (top,)}
    if not entries:
        raise UserError(f"the record has no moments of layer {top!r}; record again with that layer among --taps")
    term = MatchTargets(measured(teacher, record, entries), relu_logits=settings.relu_logits, dropout=dropout)
    how = Inversion(settings.steps, settings.learning_rate, settings.box, settings.precision)
    return InversionMaker(teacher, record, Objective(((1.0, term),)), how)
