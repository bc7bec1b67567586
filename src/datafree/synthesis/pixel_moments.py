"""Class means and covariances of the pixels from a record, in closed form, if the record determines them.

Moments of the input contain them directly. A linear, injective first layer determines them too: the pseudo-inverse maps
its mean and full covariance to the pixels', exactly. Applied to a diagonal covariance, or to the diagonal part of a
low-rank one, the pseudo-inverse would yield noise far larger than the pixels. For those, variances of independent
pixels are fitted instead, which preserves the layer's total variance and ignores correlation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from .._core.errors import UserError
from ..models import hooks as tap_names
from ..models.network import Network, frozen
from ..records.graph.operators import conv_matrix
from ..records.record import Entry, Record
from ..records.statistics.moments import MomentsAccumulator
from .censored_gaussian import Censored

__all__ = ["ClassCovariances", "PixelMoments", "coarse_images", "pixel_moments"]

UPDATES = 200
ASK_FOR_INPUT = (
    "use the method 'all', or ask the publisher to add moments of the input: datafree record moments --taps input --add"
)
"""What to do if the first layer does not determine the pixels."""


class ClassCovariances(Sequence[Tensor]):
    """The pixels' covariance (P, P) of each of K classes in float64, computed when it is read.

    K of them may not fit in memory: those of 1,000 classes of 3,072 pixels are 75 GB. They are computed from what an entry
    holds, C = A (F F^T + diag(v)) A^T + diag(e).
    """

    def __init__(
        self,
        classes: int,
        *,
        factor: Tensor | None = None,
        variance: Tensor | None = None,
        operator: Tensor | float = 1.0,
        independent: Tensor | None = None,
    ):
        self.classes = classes
        self.factor = factor
        """F: (K, D, R), or (1, D, R) if all classes have the same covariance. None: 0."""
        self.variance = variance
        """v: (K, D) or (1, D)."""
        self.operator = operator
        """A: (P, D), or a number for D = P."""
        self.independent = independent
        """e: (K, P) or (1, P)."""

    def __len__(self) -> int:
        return self.classes

    @overload
    def __getitem__(self, c: int) -> Tensor: ...
    @overload
    def __getitem__(self, c: slice) -> list[Tensor]: ...
    def __getitem__(self, c: int | slice) -> Tensor | list[Tensor]:
        if isinstance(c, slice):
            return [self[index] for index in range(*c.indices(len(self)))]
        if not -len(self) <= c < len(self):
            raise IndexError(f"class {c}, expected one of {len(self)}")
        return self._shared if self.groups == 1 else self._covariance(c)

    @property
    def groups(self) -> int:
        """1 if all classes have the same covariance, else the number of classes."""
        parts = (self.factor, self.variance, self.independent)
        return max((len(part) for part in parts if part is not None), default=1)

    @cached_property
    def _shared(self) -> Tensor:
        return self._covariance(0)

    def _covariance(self, group: int) -> Tensor:
        operator, covariance = self.operator, torch.zeros((), dtype=torch.float64)
        if self.factor is not None:
            factor = self.factor[group].double()
            factor = operator @ factor if isinstance(operator, Tensor) else factor * operator
            covariance = factor @ factor.T
        if self.variance is not None:
            variance = self.variance[group].double()
            if isinstance(operator, Tensor):
                covariance = covariance + (operator * variance) @ operator.T
            else:
                covariance = covariance + torch.diag(variance * operator**2)
        if self.independent is not None:
            covariance = covariance + torch.diag(self.independent[group].double())
        return covariance


@dataclass(frozen=True)
class PixelMoments:
    """Class means (K, P) and covariances (P, P) of the pixels, scaled from the spec's range to [0, 1]."""

    mean: Tensor
    covariance: ClassCovariances
    source: str
    """Tap of the entry that they come from."""
    determined: float
    """Share of the directions in pixel space that the entry determines, in [0, 1]."""


def pixel_moments(network: Network, record: Record) -> PixelMoments:
    """The pixels' moments from the input's entry, or else the first layer's.

    Raises UserError if neither determines the pixels.
    """
    entries = record.of_kind("moments")
    first_layer = tap_names.layers(network)[0]
    for entry in entries.values():
        if entry.taps == (tap_names.INPUT,):
            mean = _mean(network, entry)
            share = mean.shape[1] / network.spec.pixels
            unit, low, width = entry.statistic.scale, network.spec.low, network.spec.high - network.spec.low
            operator: Tensor | float = 1 / (unit * width)
            if entry.statistic.downsample > 1:
                upsample = _upsampling(network, entry)
                mean, operator = mean @ upsample.T, upsample * operator
            factor, variance = _spread(entry)
            covariance = ClassCovariances(len(mean), factor=factor, variance=variance, operator=operator)
            return PixelMoments(((mean - low) / width).clamp(0, 1), covariance, "input", share)
    for entry in entries.values():
        if entry.taps == (first_layer,):
            return _from_first_layer(network, entry, first_layer)
    raise UserError(
        "the record has no moments of the input or of the first layer, so it does not determine the pixels; use the method "
        "'all' or 'top', or ask the publisher to add moments of the input: datafree record moments --taps input --add"
    )


def coarse_images(network: Network, record: Record) -> Censored:
    """The images' distribution where they are too large for a covariance, from a low-rank input entry, on that entry's grid.

    Ignores the variance outside the recorded directions, because independent noise per pixel does not look like images.
    Raises UserError if the record has no such entry.
    """
    of_input = {name: entry for name, entry in record.of_kind("moments").items() if entry.taps == (tap_names.INPUT,)}
    candidates = [entry for name, entry in of_input.items() if not _accumulator(network, record, name).pool_positions]
    if of_input and not candidates:
        raise UserError(
            f"entry {next(iter(of_input))!r} holds channel means, which do not determine pixels; use the method 'all', or "
            "ask the publisher for a new record, of units: datafree record moments TEACHER --data DATA --taps input "
            "--covariance lowrank --conv units --replace"
        )
    if not candidates:
        raise UserError(
            f"images of {network.spec.pixels} numbers, but no low-rank moments of the input in the record; use the method "
            "'all', or ask the publisher to add them: datafree record moments --taps input --covariance lowrank --conv "
            "units "
            "--add"
        )
    entry = candidates[0]
    unit, low, width = entry.statistic.scale, network.spec.low, network.spec.high - network.spec.low

    def images(rows: Tensor) -> Tensor:
        return (_upsampled(network, entry, rows) / unit - low) / width

    mean = entry.summary["mean"].float()
    factor = entry.summary.get("factor", torch.zeros(1, mean.shape[1], 1)).float()
    return Censored(mean, factor.expand(len(mean), -1, -1), images)


def _accumulator(network: Network, record: Record, name: str) -> MomentsAccumulator:
    accumulator = record.accumulator(name, network)
    assert isinstance(accumulator, MomentsAccumulator)
    return accumulator


def _upsampled(network: Network, entry: Entry, rows: Tensor) -> Tensor:
    """Upsamples rows (N, p) on the entry's grid to rows (N, P) of pixels, by bilinear interpolation."""
    accumulator = entry.statistic.bind(network, entry.taps)
    coarse = rows.view(-1, *accumulator.shape)
    return interpolate(coarse, size=network.spec.shape[1:], mode="bilinear", align_corners=False).flatten(1)


def _mean(network: Network, entry: Entry) -> Tensor:
    """Mean (K, D) of an entry in float64, in the layer's units, without the recorded scale. Raises UserError if it is one of
    channels.
    """
    accumulator = entry.statistic.bind(network, entry.taps)
    assert isinstance(accumulator, MomentsAccumulator)
    if accumulator.pool_positions:
        raise UserError(
            f"entry {entry.taps[0]!r} holds channel means, which do not determine pixels; ask the publisher for a record of "
            "units: datafree record moments --conv units"
        )
    return entry.summary["mean"].double() / entry.statistic.scale


def _spread(entry: Entry) -> tuple[Tensor | None, Tensor | None]:
    """Factor (G, D, R) and variance (G, D) of an entry, or no variance at all."""
    factor, variance = entry.summary.get("factor"), entry.summary.get("variance")
    if factor is None and variance is None:
        variance = torch.zeros(1, entry.summary["mean"].shape[1])
    return factor, variance


def _upsampling(network: Network, entry: Entry) -> Tensor:
    """Matrix (P, p) of the bilinear interpolation from the entry's grid to the pixels."""
    return _upsampled(network, entry, torch.eye(entry.summary["mean"].shape[1], dtype=torch.float64)).T


def _from_first_layer(network: Network, entry: Entry, layer: str) -> PixelMoments:
    """The pixels' moments from those of a linear first layer y = A x + b, by the pseudo-inverse of A.

    Raises UserError if A determines less than half of the pixel directions.
    """
    operator, bias = _operator(network, layer)
    u, singular, vh = np.linalg.svd(operator, full_matrices=False)
    determined = singular > singular[0] * 1e-5
    share = float(determined.sum()) / network.spec.pixels
    if share < 0.5:
        raise UserError(
            f"layer {layer!r} determines {100 * share:.0f} % of the pixel directions, expected at least 50 %; "
            f"{ASK_FOR_INPUT}"
        )
    inverse = torch.from_numpy((vh[determined].T / singular[determined]) @ u[:, determined].T)  # (P, D)
    if entry.statistic.downsample > 1:
        raise UserError(f"entry {layer!r} is downsampled, so it does not determine the pixels; {ASK_FOR_INPUT}")
    pixels = (_mean(network, entry) - bias) @ inverse.T
    spec, positions = network.spec, network.spec.pixels // network.spec.shape[0]
    std = torch.tensor(spec.std, dtype=torch.float64).expand(spec.shape[0]).repeat_interleave(positions)
    shift = torch.tensor(spec.mean, dtype=torch.float64).expand(spec.shape[0]).repeat_interleave(positions)
    width, of_pixels = spec.high - spec.low, None
    factor, variance = _spread(entry)
    if entry.statistic.covariance in ("diagonal", "lowrank"):
        of_pixels = independent(
            torch.from_numpy(operator), entry.summary["variance"].double() / entry.statistic.scale**2
        )
        of_pixels, variance = of_pixels * (std / width) ** 2, None
    unit = std[:, None] / (width * entry.statistic.scale)
    covariance = ClassCovariances(
        len(pixels), factor=factor, variance=variance, operator=inverse * unit, independent=of_pixels
    )
    mean = ((pixels * std + shift - spec.low) / width).clamp(0, 1)
    return PixelMoments(mean, covariance, layer, share)


def independent(operator: Tensor, variance: Tensor) -> Tensor:
    """Variances (K, P) >= 0 of independent pixels that best fit a layer's `variance` (K, D); `operator` is (D, P).

    Non-negative least squares by multiplicative updates (Lee and Seung 2001), then scaled to the recorded total
    variance.
    """
    squares = operator.square()
    projected, gram = variance @ squares, squares.T @ squares
    pixels = torch.ones_like(projected) * (variance.sum(1) / squares.sum())[:, None]
    for _ in range(UPDATES):
        pixels = pixels * projected / (pixels @ gram).clamp(min=1e-300)
    total = (pixels @ squares.T).sum(1).clamp(min=1e-300)
    return pixels * (variance.sum(1) / total)[:, None]


def _operator(network: Network, name: str) -> tuple[np.ndarray, Tensor]:
    """The first layer as a matrix (units, pixels) on normalised images, and its bias (units,) in float64."""
    layer = dict(network.module.named_modules())[name]
    image = torch.rand(1, *network.spec.shape, generator=torch.Generator().manual_seed(1)).to(network.device)
    layer_inputs: list[Tensor] = []

    def save_input(_: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        layer_inputs.append((inputs[0] if inputs else keywords["input"]).clone())

    handle = layer.register_forward_pre_hook(save_input, with_kwargs=True)
    try:
        with torch.no_grad(), frozen(network.module):
            network.run(image.clone())  # a layer may change it in place
    finally:
        handle.remove()
    layer_input = layer_inputs[0].flatten()
    if layer_input.numel() != image.numel() or not torch.allclose(layer_input, image.flatten()):
        raise UserError(
            f"layer {name!r} does not get the image itself, so its record does not determine the pixels; {ASK_FOR_INPUT}"
        )
    shape = tap_names.shapes(network, [name])[name]
    if isinstance(layer, nn.Conv2d):
        matrix = np.asarray(conv_matrix(layer, network.spec.shape).todense(), dtype=np.float64)
        bias = torch.zeros(shape[0]) if layer.bias is None else layer.bias.detach().cpu()
        return matrix, bias.double().repeat_interleave(shape[1] * shape[2])
    if not isinstance(layer, nn.Linear) or layer.in_features != network.spec.pixels:
        raise UserError(
            f"layer {name!r} is neither a 2-d convolution nor a linear map of the whole image, so its record does not "
            f"determine the pixels; {ASK_FOR_INPUT}"
        )
    bias = torch.zeros(shape[0]) if layer.bias is None else layer.bias.detach().cpu()
    return layer.weight.detach().cpu().double().numpy(), bias.double()
