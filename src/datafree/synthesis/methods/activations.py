"""The paper's reconstructions from layer statistics: top layer, all layers, all layers with fixed dropout filters."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..._core.errors import UserError
from ...models import hooks as tap_names
from ...models.network import Network
from ...records.record import Record
from ..losses import Objective
from ..losses.match import MatchTargets, measured
from . import needed
from .inversion import BoundInversion, InversionSettings

__all__ = ["AllLayers", "AllLayersDropout", "TopLayer"]


class TopLayer(InversionSettings):
    """Images whose logits match targets drawn from the record of the last layer."""

    method: Literal["top"] = "top"
    relu_logits: bool = True
    """ReLU on logits and their targets, as in the paper; it deletes negative targets."""

    summary: ClassVar[str] = "logits match targets drawn from the top layer's record (Lopes et al. 2017, eq. 1)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _maker(self, teacher, record, top_only=True)


class AllLayers(InversionSettings):
    """Images whose activations at every recorded layer match targets drawn from the record."""

    method: Literal["all"] = "all"
    relu_logits: bool = True
    """ReLU on logits and their targets, as in the paper."""

    summary: ClassVar[str] = "activations of all layers match targets drawn from their records (eq. 2)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _maker(self, teacher, record)


class AllLayersDropout(InversionSettings):
    """As `all`, under dropout masks that stay fixed while an image is made."""

    method: Literal["all-dropout"] = "all-dropout"
    dropout: float = Field(default=0.5, gt=0, lt=1)
    """Share of hidden units masked, as in the teacher's training."""
    relu_logits: bool = True
    """ReLU on logits and their targets, as in the paper."""

    summary: ClassVar[str] = "as `all`, under dropout masks fixed for each image (sec. 3.1.2)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _maker(self, teacher, record, dropout=self.dropout)


def _maker(
    settings: TopLayer | AllLayers | AllLayersDropout,
    teacher: Network,
    record: Record | None,
    *,
    top_only: bool = False,
    dropout: float = 0.0,
) -> BoundInversion:
    """Follows MatchTargets over the record's moments: those of the top layer, or of all layers."""
    record = needed(settings.method, record, teacher)
    top = tap_names.layers(teacher)[-1]
    moments = record.need("moments")
    entries = {name: entry for name, entry in moments.items() if entry.taps != (tap_names.INPUT,)}
    if top_only:
        entries = {name: entry for name, entry in entries.items() if entry.taps == (top,)}
    if not entries:
        of_input = any(entry.taps == (tap_names.INPUT,) for entry in moments.values())
        other = ", or use --method distribution, which needs those of the input alone" if of_input else ""
        raise UserError(f"the record has no moments of layer {top!r}; ask its publisher for one of --taps {top}{other}")
    term = MatchTargets(measured(teacher, record, entries), relu_logits=settings.relu_logits, dropout=dropout)
    return settings.maker(teacher, record, Objective(((1.0, term),)))
