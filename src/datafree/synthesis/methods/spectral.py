"""Spectral reconstructions: activations match a compressed version of all layers' (Lopes et al. 2017, sec. 3.1.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from ...models.network import Network
from ...records.record import Record
from ..losses import Objective
from ..losses.match import MatchTargets, bind_entries
from . import needed
from .inversion import BoundInversion, InversionSettings

__all__ = ["SpectralAllLayers", "SpectralLayerPairs"]


class SpectralAllLayers(InversionSettings):
    """Images whose activations match the reconstruction from the graph Fourier spectrum of the whole network."""

    method: Literal["spectral-all"] = "spectral-all"
    relu: bool = True  # differs from the paper: its spectral loss, a plain sum of squares, names no ReLU
    """Compare activations after ReLU, as in sec. 3.1.1; otherwise pre-activations, as in the equation."""

    summary: ClassVar[str] = "activations match the spectrum over the graph of the whole network (sec. 3.1.3)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _bind(self, teacher, record)


class SpectralLayerPairs(InversionSettings):
    """Images whose activations match the reconstructions from the spectra of each pair of adjacent layers."""

    method: Literal["spectral-pairs"] = "spectral-pairs"
    relu: bool = True  # differs from the paper: its spectral loss, a plain sum of squares, names no ReLU
    """Compare activations after ReLU, as in sec. 3.1.1; otherwise pre-activations, as in the equation."""

    summary: ClassVar[str] = "activations match the spectra over each pair of adjacent layers (sec. 3.1.3)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _bind(self, teacher, record)


def _bind(settings: SpectralAllLayers | SpectralLayerPairs, teacher: Network, record: Record | None) -> BoundInversion:
    """Minimises the plain sum of squares over all vertices of the graph, or of the graphs of all pairs."""
    record = needed(settings.method, record, teacher)
    entries = bind_entries(teacher, record, record.need(settings.method))
    term = MatchTargets(entries, normalise=False, relu=settings.relu, relu_logits=settings.relu)
    return settings.bind_objective(teacher, record, Objective(((1.0, term),)))
