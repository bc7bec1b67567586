"""Where a record's layers determine the pixels: their class means and covariances, in closed form.

The moments of the input itself say it directly. A first layer that is linear and injective says it too: from its mean
and full covariance the pixels' follow by the pseudo-inverse, exactly. Of a diagonal covariance, or the diagonal rest of a
low-rank one, the pseudo-inverse would make noise of many times the pixels' own size; there, the variances of independent
pixels are fitted to it, which keeps the layer's total variance and knows no correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

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

__all__ = ["PixelMoments", "pixel_factors", "pixel_moments"]

UPDATES = 200


@dataclass(frozen=True)
class PixelMoments:
    """Class means (K, P) and covariances (K, P, P) of the pixels, scaled so that the spec's range is [0, 1]."""

    mean: Tensor
    covariance: Tensor
    source: str
    """The entry they come from."""
    determined: float
    """Share of the pixel directions that the entry determines."""


def pixel_moments(network: Network, record: Record) -> PixelMoments:
    """From the record's moments of the input, else of the first layer. Raises UserError where neither determines them."""
    entries = record.of_kind("moments")
    first = tap_names.layers(network)[0]
    for entry in entries.values():
        if entry.taps == (tap_names.INPUT,):
            mean, covariance = _moments(network, entry)
            upsample = _upsampling(network, entry)
            mean, covariance = mean @ upsample.T, upsample @ covariance @ upsample.T
            return _scaled(network, mean, covariance, "input", upsample.shape[1] / network.spec.pixels)
    for entry in entries.values():
        if entry.taps == (first,):
            return _through(network, entry, first)
    raise UserError(
        "the record has no moments of the input or of the first layer, so it does not determine the pixels; "
        f"take --method all or top, or ask the publisher for a record with --taps input or --taps {first}"
    )


def pixel_factors(network: Network, record: Record) -> tuple[Tensor, Tensor]:
    """Class means (K, P) and factors (K, P, R) of images too large for a covariance, from a low-rank input entry.

    The variance outside the recorded directions is left out: drawn pixel by pixel it would be noise that no image has.
    """
    found = [
        entry
        for name, entry in record.of_kind("moments").items()
        if entry.taps == (tap_names.INPUT,) and not _meter(network, record, name).pool_positions
    ]
    if not found:
        raise UserError(
            f"images of {network.spec.pixels} numbers and no low-rank moments of the input in the record; "
            "take --method all, or ask the publisher for a record with --kind moments --covariance lowrank --conv units "
            "--taps input"
        )
    low, width = network.spec.low, network.spec.high - network.spec.low
    summary = found[0].summary
    mean = _finer(network, found[0], summary["mean"].float())
    columns = summary.get("factor", torch.zeros(1, summary["mean"].shape[1], 1)).float().transpose(1, 2)
    factor = torch.stack([_finer(network, found[0], group).T for group in columns])
    return (mean - low) / width, (factor / width).expand(len(mean), -1, -1)


def _meter(network: Network, record: Record, name: str) -> MomentsAccumulator:
    meter = record.meter(name, network)
    assert isinstance(meter, MomentsAccumulator)
    return meter


def _finer(network: Network, entry: Entry, rows: Tensor) -> Tensor:
    """Rows (N, p) on the entry's grid as rows (N, P) of pixels, by bilinear interpolation."""
    meter = entry.statistic.bind(network, entry.taps)
    coarse = rows.view(-1, *meter.shape)
    return interpolate(coarse, size=network.spec.shape[1:], mode="bilinear", align_corners=False).flatten(1)


def _moments(network: Network, entry: Entry) -> tuple[Tensor, Tensor]:
    """Mean (K, D) and covariance (K, D, D) in float64 of an entry, in the layer's own units."""
    meter = entry.statistic.bind(network, entry.taps)
    assert isinstance(meter, MomentsAccumulator)
    if meter.pool_positions:
        raise UserError(
            f"entry {entry.taps[0]!r} holds channel means, which do not determine pixels; take --conv units"
        )
    mean = entry.summary["mean"].double() / entry.statistic.scale
    covariance = torch.zeros(len(mean), meter.size, meter.size, dtype=torch.float64)
    if "factor" in entry.summary:
        factor = entry.summary["factor"].double()
        covariance += factor @ factor.transpose(1, 2)
    if "variance" in entry.summary:
        covariance += torch.diag_embed(entry.summary["variance"].double())
    return mean, covariance / entry.statistic.scale**2


def _upsampling(network: Network, entry: Entry) -> Tensor:
    """(P, p): bilinear interpolation from the entry's coarser grid to the pixels, the identity where it is the same."""
    units = torch.eye(entry.summary["mean"].shape[1], dtype=torch.float64)
    return units if entry.statistic.downsample == 1 else _finer(network, entry, units).T


def _through(network: Network, entry: Entry, first: str) -> PixelMoments:
    """The pixels' moments from those of a linear first layer y = A x + b, by the pseudo-inverse of A."""
    operator, bias = _operator(network, first)
    left, singular, right = np.linalg.svd(operator, full_matrices=False)
    kept = singular > singular[0] * 1e-5
    share = float(kept.sum()) / network.spec.pixels
    if share < 0.5:
        raise UserError(
            f"layer {first!r} determines {100 * share:.0f} % of the pixel directions, wanted at least 50 %; "
            "take --method all, or ask the publisher for a record with --taps input"
        )
    inverse = torch.from_numpy((right[kept].T / singular[kept]) @ left[:, kept].T)  # (P, D)
    if entry.statistic.downsample > 1:
        raise UserError(
            f"entry {first!r} is downsampled, so it does not determine the pixels; record with --taps input"
        )
    mean, covariance = _moments(network, entry)
    pixels = (mean - bias) @ inverse.T
    if entry.statistic.covariance in ("diagonal", "lowrank"):
        rest = entry.summary["variance"].double() / entry.statistic.scale**2
        spread = inverse @ (covariance - torch.diag_embed(rest)) @ inverse.T
        spread = spread + torch.diag_embed(independent(torch.from_numpy(operator), rest))
    else:
        spread = inverse @ covariance @ inverse.T
    spec, channel = network.spec, network.spec.pixels // network.spec.shape[0]
    std = torch.tensor(spec.std, dtype=torch.float64).expand(spec.shape[0]).repeat_interleave(channel)
    shift = torch.tensor(spec.mean, dtype=torch.float64).expand(spec.shape[0]).repeat_interleave(channel)
    return _scaled(network, pixels * std + shift, spread * std[:, None] * std, first, share)


def independent(operator: Tensor, variance: Tensor) -> Tensor:
    """Variances (K, P) >= 0 of independent pixels that come nearest to a layer's own (K, D) through `operator` (D, P).

    Least squares by multiplicative updates (Lee and Seung 2001), which cannot turn negative; then scaled so that the
    layer's total variance is what was recorded.
    """
    squares = operator.square()
    towards, gram = variance @ squares, squares.T @ squares
    found = torch.ones_like(towards) * (variance.sum(1) / squares.sum())[:, None]
    for _ in range(UPDATES):
        found = found * towards / (found @ gram).clamp(min=1e-300)
    made = (found @ squares.T).sum(1).clamp(min=1e-300)
    return found * (variance.sum(1) / made)[:, None]


def _operator(network: Network, first: str) -> tuple[np.ndarray, Tensor]:
    """The first layer as a matrix (units, pixels) on normalised images, and its bias (units,) in float64."""
    layer = dict(network.module.named_modules())[first]
    image = torch.rand(1, *network.spec.shape, generator=torch.Generator().manual_seed(1)).to(network.device)
    seen: list[Tensor] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
        seen.append((inputs[0] if inputs else keywords["input"]).clone())

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad(), frozen(network.module):
            network.run(image.clone())  # it may write into it
    finally:
        handle.remove()
    if seen[0].numel() != image.numel() or not torch.allclose(seen[0].flatten(), image.flatten()):
        raise UserError(f"layer {first!r} does not see the image itself, so its record does not determine the pixels")
    shape = tap_names.shapes(network, [first])[first]
    if isinstance(layer, nn.Conv2d):
        matrix = np.asarray(conv_matrix(layer, network.spec.shape).todense(), dtype=np.float64)
        bias = torch.zeros(shape[0]) if layer.bias is None else layer.bias.detach().cpu()
        return matrix, bias.double().repeat_interleave(shape[1] * shape[2])
    if not isinstance(layer, nn.Linear) or layer.in_features != network.spec.pixels:
        raise UserError(
            f"layer {first!r} is neither a 2-d convolution nor one linear map of the whole image, so its record does not "
            "determine the pixels; take --method all, or ask the publisher for a record with --taps input"
        )
    bias = torch.zeros(shape[0]) if layer.bias is None else layer.bias.detach().cpu()
    return layer.weight.detach().cpu().double().numpy(), bias.double()


def _scaled(network: Network, mean: Tensor, covariance: Tensor, source: str, share: float) -> PixelMoments:
    spec = network.spec
    width = spec.high - spec.low
    return PixelMoments(((mean - spec.low) / width).clamp(0, 1), covariance / width**2, source, share)
