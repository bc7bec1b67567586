"""Reconstruction from layer statistics (Lopes et al. 2017): top layer, all layers, or all with fixed dropout masks."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..._core.errors import UserError
from ...models import hooks as tap_names
from ...models.network import Network
from ...records.record import Record
from ..losses import Objective
from ..losses.match import MatchTargets, bind_entries
from . import needed
from .inversion import BoundInversion, InversionSettings

__all__ = ["AllLayers", "AllLayersDropout", "TopLayer"]


class TopLayer(InversionSettings):
    """Images whose logits match targets drawn from the record of the last layer."""

    method: Literal["top"] = "top"
    relu_logits: bool = True
    """Apply ReLU to logits and their targets, as in the paper; this discards negative targets."""

    summary: ClassVar[str] = "logits match targets drawn from the top layer's record (Lopes et al. 2017, eq. 1)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _bind(self, teacher, record, top_only=True)


class AllLayers(InversionSettings):
    """Images whose activations at every recorded layer match targets drawn from the record."""

    method: Literal["all"] = "all"
    relu_logits: bool = True
    """Apply ReLU to logits and their targets, as in the paper."""

    summary: ClassVar[str] = "activations of all layers match targets drawn from their records (eq. 2)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _bind(self, teacher, record)


class AllLayersDropout(InversionSettings):
    """As `all`, under dropout masks that stay fixed while an image is optimised."""

    method: Literal["all-dropout"] = "all-dropout"
    dropout: float = Field(default=0.5, gt=0, lt=1)
    """Share of hidden units that are masked, as in the teacher's training."""
    relu_logits: bool = True
    """Apply ReLU to logits and their targets, as in the paper."""

    summary: ClassVar[str] = "as `all`, under dropout masks fixed for each image (sec. 3.1.2)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _bind(self, teacher, record, dropout=self.dropout)


def _bind(
    settings: TopLayer | AllLayers | AllLayersDropout,
    teacher: Network,
    record: Record | None,
    *,
    top_only: bool = False,
    dropout: float = 0.0,
) -> BoundInversion:
    """Minimises MatchTargets over the record's moments of the top layer or of all layers.

    Raises UserError if the record has no moments of those layers.
    """
    record = needed(settings.method, record, teacher)
    top = tap_names.layers(teacher)[-1]
    moments = record.need("moments")
    entries = {name: entry for name, entry in moments.items() if entry.taps != (tap_names.INPUT,)}
    if top_only:
        entries = {name: entry for name, entry in entries.items() if entry.taps == (top,)}
    if not entries:
        has_input = any(entry.taps == (tap_names.INPUT,) for entry in moments.values())
        alternative = "; or use the method 'distribution', which only needs moments of the input" if has_input else ""
        raise UserError(
            f"the record has no moments of layer {top!r}; ask its publisher to add them: datafree record moments --taps {top} "
            f"--add{alternative}"
        )
    term = MatchTargets(bind_entries(teacher, record, entries), relu_logits=settings.relu_logits, dropout=dropout)
    return settings.bind_objective(teacher, record, Objective(((1.0, term),)))
