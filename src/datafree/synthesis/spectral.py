"""The paper's spectral reconstructions: activations match a compressed version of the whole network's (sec. 3.1.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ..errors import UserError
from ..network import Network
from ..records import Record
from ..settings import Settings
from ..terms import Objective
from ..terms.match import MatchTargets, measured
from .invert import Inversion, InversionMaker

__all__ = ["SpectralAllLayers", "SpectralLayerPairs"]


class SpectralAllLayers(Settings):
    """Images whose activations match the reconstruction from the graph Fourier spectrum of the whole network."""

    method: Literal["spectral-all"] = "spectral-all"
    steps: int = Field(default=300, ge=1)
    """Adam steps on the pixels; the authors' code takes 1,000."""
    learning_rate: float = Field(default=0.07, gt=0)
    """Of Adam on the pixels, in pixel units."""
    relu: bool = True
    """Compare activations after their ReLU, as sec. 3.1.1 does; without it, the pre-activations themselves."""
    box: bool = False
    """Keep pixels in their range; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the teacher's forward pass."""

    summary: ClassVar[str] = "activations match a spectrum over the graph of the whole network (sec. 3.1.3)"

    @property
    def boxed(self) -> bool:
        return self.box

    def on(self, teacher: Network, record: Record | None) -> InversionMaker:
        return _maker(self, teacher, record, "spectral-all")


class SpectralLayerPairs(Settings):
    """Images whose activations match the reconstructions from the spectra of each pair of adjacent layers."""

    method: Literal["spectral-pairs"] = "spectral-pairs"
    steps: int = Field(default=300, ge=1)
    """Adam steps on the pixels; the authors' code takes 1,000."""
    learning_rate: float = Field(default=0.07, gt=0)
    """Of Adam on the pixels, in pixel units."""
    relu: bool = True
    """Compare activations after their ReLU, as sec. 3.1.1 does; without it, the pre-activations themselves."""
    box: bool = False
    """Keep pixels in their range; the paper does not."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the teacher's forward pass."""

    summary: ClassVar[str] = "activations match spectra over each pair of adjacent layers (sec. 3.1.3)"

    @property
    def boxed(self) -> bool:
        return self.box

    def on(self, teacher: Network, record: Record | None) -> InversionMaker:
        return _maker(self, teacher, record, "spectral-pairs")


def _maker(
    settings: SpectralAllLayers | SpectralLayerPairs, teacher: Network, record: Record | None, kind: str
) -> InversionMaker:
    """Follows the plain sum of squares over all vertices of the graph, or of each pair's graph."""
    if record is None:
        raise UserError(
            f"method {settings.method!r} needs a record, got none; ask the publisher for it, or name --record"
        )
    entries = measured(teacher, record, record.need(kind))
    term = MatchTargets(entries, normalise=False, relu=settings.relu, relu_logits=settings.relu)
    how = Inversion(settings.steps, settings.learning_rate, settings.box, settings.precision)
    return InversionMaker(teacher, record, Objective(((1.0, term),)), how)
