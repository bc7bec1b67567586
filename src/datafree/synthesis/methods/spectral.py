"""The paper's spectral reconstructions: activations match a compressed version of the whole network's (sec. 3.1.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from ...models.network import Network
from ...records.record import Record
from ..losses import Objective
from ..losses.match import MatchTargets, measured
from . import needed
from .inversion import BoundInversion, InversionSettings

__all__ = ["SpectralAllLayers", "SpectralLayerPairs"]


class SpectralAllLayers(InversionSettings):
    """Images whose activations match the reconstruction from the graph Fourier spectrum of the whole network."""

    method: Literal["spectral-all"] = "spectral-all"
    relu: bool = True  # differs from the paper: its spectral loss, a plain sum of squares, names no ReLU
    """Compare activations after their ReLU, as sec. 3.1.1 does; without it the pre-activations, as the equation reads."""

    summary: ClassVar[str] = "activations match a spectrum over the graph of the whole network (sec. 3.1.3)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _maker(self, teacher, record)


class SpectralLayerPairs(InversionSettings):
    """Images whose activations match the reconstructions from the spectra of each pair of adjacent layers."""

    method: Literal["spectral-pairs"] = "spectral-pairs"
    relu: bool = True  # differs from the paper: its spectral loss, a plain sum of squares, names no ReLU
    """Compare activations after their ReLU, as sec. 3.1.1 does; without it the pre-activations, as the equation reads."""

    summary: ClassVar[str] = "activations match spectra over each pair of adjacent layers (sec. 3.1.3)"

    def bind(self, teacher: Network, record: Record | None) -> BoundInversion:
        return _maker(self, teacher, record)


def _maker(settings: SpectralAllLayers | SpectralLayerPairs, teacher: Network, record: Record | None) -> BoundInversion:
    """Follows the plain sum of squares over all vertices of the graph, or of each pair's graph."""
    record = needed(settings.method, record, teacher)
    entries = measured(teacher, record, record.need(settings.method))
    term = MatchTargets(entries, normalise=False, relu=settings.relu, relu_logits=settings.relu)
    return settings.maker(teacher, record, Objective(((1.0, term),)))
