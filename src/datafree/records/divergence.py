"""Gaussian divergence per channel between activations and those of the training data (Haroush et al. 2020).

The statistics of the training data come from the running statistics of batch norms, or, for a network without batch norm,
from a publisher's record of moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from .._core.arguments import check_argument
from .._core.errors import UserError
from .._core.progress import Progress, silent
from ..data import Dataset
from ..models import hooks as tap_names
from ..models.missing_layers import is_program
from ..models.network import Network, OpaqueModule, frozen
from .record import Entry, Record
from .statistics.merge import group_means, merge_means
from .statistics.moments import MomentsAccumulator

__all__ = [
    "UNITS",
    "Form",
    "StoredStatistics",
    "by_channel",
    "channels",
    "divergence",
    "has_statistics",
    "reduction",
    "statistics",
    "stored_pixels",
    "stored_statistics",
]

Form: TypeAlias = Literal["forward", "reverse", "l2"]
UNITS: dict[str, str] = {"forward": "nats", "reverse": "nats", "l2": ""}
"""Unit of each form of divergence; squared distances have none."""
EPSILON = 1e-5
CHUNK_BYTES = 256 << 20


@dataclass(frozen=True)
class StoredStatistics:
    """One layer's statistics per channel over its training data: mean (C,), variance (C,), in float32 on the CPU.

    `epsilon` is added to variances before they are compared, as in a batch norm. For a batch norm that an image passes
    several times (`calls`) these are averages over the calls, like its running statistics.
    """

    tap: str
    mean: Tensor
    variance: Tensor
    epsilon: float = EPSILON
    calls: int = 1
    view: Callable[[Tensor], Tensor] | None = None
    """A function from pixels (N, C, H, W) to the part that is compared, (N, C) or (N, C, ...)."""


def has_statistics(network: Network, record: Record | None = None) -> bool:
    """Whether `stored_statistics` has a result."""
    if tap_names.batch_norm_calls(network):
        return True
    return record is not None and any(_by_place(network, record, name) for name in record.of_kind("moments"))


def stored_statistics(network: Network, record: Record | None = None) -> tuple[StoredStatistics, ...]:
    """The running statistics of every batch norm; for a network without batch norm, those of the record's moments.

    A batch norm that an image passes several times counts once; one that sees several sizes is left out.

    Raises UserError if there are neither, with what to do without the training data.
    """
    layers = dict(network.module.named_modules())
    stored = []
    for tap, calls in tap_names.batch_norm_calls(network).items():
        layer = layers[tap]
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        assert layer.running_mean is not None and layer.running_var is not None
        mean, variance = (t.detach().cpu().float().clone() for t in (layer.running_mean, layer.running_var))
        stored.append(StoredStatistics(tap, mean, variance, layer.eps, calls))
    if not stored:
        _check_layers(network)
    if not stored and record is not None:
        entries = record.of_kind("moments").items()
        stored = [_pooled(network, record, name, entry) for name, entry in entries if _by_place(network, record, name)]
    if not stored:
        raise UserError(_nothing_stored(network, record))
    return tuple(stored)


def _nothing_stored(network: Network, record: Record | None) -> str:
    """The error message: what is missing, what a user without the data can do, and what the publisher can do."""
    missing = (
        f"{tap_names.no_batch_norm(network)}, and no record of moments of its layers, position by position and with "
        "variances"
    )
    if is_program(network):
        return f"{missing}; give the module that it was made from"
    remedy = "'inception', which needs none, or name `record`"
    if record is not None:
        remedy = (
            "method 'distribution', which draws from its record" if _holds_pixels(record) else "a method of its record"
        )
    command = "datafree record moments TEACHER --data DATA --add --conv units"
    return f"{missing}; use {remedy}; its publisher can add them: {command}"


def _holds_pixels(record: Record) -> bool:
    return any(entry.taps == (tap_names.INPUT,) for entry in record.of_kind("moments").values())


def stored_pixels(network: Network, record: Record | None) -> tuple[StoredStatistics, ...]:
    """Mean and variance of the pixels over the training data from the record; empty if it has none.

    They are per position of the finest grid if the record has moments of the input with variances, otherwise per channel.
    """
    if record is None:
        return ()
    grids = []
    for name, entry in record.of_kind("moments").items():
        accumulator = record.accumulator(name, network)
        assert isinstance(accumulator, MomentsAccumulator)
        if entry.taps == (tap_names.INPUT,) and entry.statistic.covariance != "none":
            grids.append((accumulator.size, _by_unit(entry, accumulator)))
    if grids:
        return (max(grids, key=lambda grid: grid[0])[1],)
    for entry in record.of_kind("input").values():
        channels = network.spec.shape[0]
        mean = entry.summary["mean"].double().view(channels, -1)
        spread = entry.summary["std"].double().square().view(channels, -1)
        total = (spread + (mean - mean.mean(1, keepdim=True)).square()).mean(1)
        return (StoredStatistics(tap_names.INPUT, mean.mean(1).float(), total.float(), view=lambda pixels: pixels),)
    return ()


def _by_unit(entry: Entry, accumulator: MomentsAccumulator) -> StoredStatistics:
    """A class-conditional entry of the pixels as one mean and variance per unit."""
    mean, variance = _over_classes(entry, accumulator)
    scale = entry.statistic.scale
    return StoredStatistics(
        tap_names.INPUT, mean.float(), variance.float(), view=lambda pixels: accumulator.observe([pixels])[0] / scale
    )


def _over_classes(entry: Entry, accumulator: MomentsAccumulator) -> tuple[Tensor, Tensor]:
    """Mean (D,) and variance (D,) of an entry's units: the law of total variance over classes."""
    scale, count = entry.statistic.scale, entry.summary["count"].double()
    share = (count / count.sum())[:, None]
    biased = ((count - 1) / count).clamp(min=0)[:, None]  # as measured by `statistics`
    means, within = entry.summary["mean"].double() / scale, accumulator.variance(entry.summary).double() / scale**2
    mean = (share * means).sum(0)
    return mean, (share * (biased * within + (means - mean).square())).sum(0)


def _check_layers(network: Network) -> None:
    if isinstance(network.module, OpaqueModule):
        raise UserError(
            f"{network.name} is an exported file, which holds no batch norms, expected the network it was made from; "
            "give the original"
        )


def _by_place(network: Network, record: Record, name: str) -> bool:
    """Whether an entry has variances of the activations themselves and not of averages over positions."""
    entry, accumulator = record.entries[name], record.accumulator(name, network)
    assert isinstance(accumulator, MomentsAccumulator)
    statistic = entry.statistic
    return (
        entry.taps != (tap_names.INPUT,)
        and statistic.covariance != "none"
        and statistic.downsample == 1
        and not accumulator.pool_positions
    )


def _pooled(network: Network, record: Record, name: str, entry: Entry) -> StoredStatistics:
    """A class-conditional entry as one mean and variance per channel: the law of total variance over classes and
    positions.
    """
    accumulator = record.accumulator(name, network)
    assert isinstance(accumulator, MomentsAccumulator)
    mean, variance = _over_classes(entry, accumulator)
    places = mean.view(accumulator.shape[0], -1)
    spread = variance.view_as(places)
    channel = places.mean(1)
    total = (spread + (places - channel[:, None]).square()).mean(1)
    return StoredStatistics(entry.taps[0], channel.float(), total.float())


def channels(activation: Tensor) -> Tensor:
    """An activation (N, C, ...) as rows (N x positions, C)."""
    return activation.transpose(0, 1).flatten(1).T if activation.ndim > 2 else activation


def by_channel(activation: Tensor, about: Tensor, calls: int = 1) -> tuple[Tensor, Tensor]:
    """Mean minus `about` (C,), and biased variance (C,), of an activation (N, C, ...) over images and positions.

    For a tap with several `calls`, (calls x N, C, ...), averages over the calls. Computed from the mean and norm after
    `about` is subtracted: as exact as `Tensor.var` if the mean is near `about`, in a tenth of its time, with a
    gradient in two passes. Computed in float32 at least.

    If mean and `about` differ by r standard deviations, float32 leaves a relative error of about 1e-7 r^2 in the variance: a
    thousandth at r = 100, and no correct digit from r = 3,000 on. Published figures use `statistics`, without such a limit.
    """
    if calls > 1:
        per_call = [by_channel(part, about) for part in activation.chunk(calls)]
        shift, variance = (torch.stack(part).mean(0) for part in zip(*per_call, strict=True))
        return shift, variance
    shift, square = _Moments.apply(activation, about)  # type: ignore[misc]
    return shift, (square - shift.square()).clamp(min=0)


def reduction(about: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """`by_channel` as a function of the activation alone, for `hooks.watch`."""

    def moments(activation: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(activation.device.type, enabled=False):
            return by_channel(activation, about.to(activation.device))

    return moments


class _Moments(torch.autograd.Function):
    """Channel means of x - about and of its square. Their gradient is one scale and one shift per channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, about: Tensor) -> tuple[Tensor, Tensor]:
        # channels-last tensors are read as rows, since the values of a channel are far apart in memory
        ctx.last = x.ndim > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
        centred = _rows(x, ctx.last)
        centred = centred - _wide(about, centred)
        count = centred.numel() / centred.shape[1]
        norms = torch.linalg.vector_norm(centred, dim=2) if centred.ndim > 2 else centred
        ctx.save_for_backward(x, about)  # x, which the batch norm keeps too, instead of another tensor of its size
        ctx.shape, ctx.dtype, ctx.count = x.shape, x.dtype, count
        return centred.mean([0, *range(2, centred.ndim)]), norms.square().sum(0) / count

    @staticmethod
    def backward(ctx: Any, mean: Tensor, square: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, about = ctx.saved_tensors
        rows, scale = _rows(x, ctx.last), square * (2 / ctx.count)
        grad = (rows * _wide(scale, rows)).add_(_wide(mean / ctx.count - scale * about, rows)).to(ctx.dtype)
        images, width, *places = ctx.shape
        return (grad.view(images, *places, width).movedim(-1, 1) if ctx.last else grad.view(ctx.shape)), None


def _rows(x: Tensor, last: bool) -> Tensor:
    """An activation as (rows, C) if its channels are `last` in memory, else (N, C) or (N, C, places); at least float32."""
    rows = x.movedim(1, -1).flatten(0, -2) if last else x if x.ndim == 2 else x.flatten(2)
    return rows if x.dtype == torch.float64 else rows.float()


def _wide(values: Tensor, activation: Tensor) -> Tensor:
    return values.view(-1, *[1] * (activation.ndim - 2))


def divergence(shift: Tensor, variance: Tensor, stored: StoredStatistics, form: Form = "forward") -> Tensor:
    """Divergence per channel (C,), 0 at equality; `shift` is the measured mean m minus the stored mean mu.

    forward: KL(N(mu, sigma^2) || N(m, s^2)) in nats, stored against measured, as in the paper; reverse: measured against
    stored; l2: (m - mu)^2 + (s^2 - sigma^2)^2, whose sum is the squared form of ZeroQ's and DeepInversion's loss.
    """
    if not isinstance(form, str) or form not in UNITS:
        check_argument("form", form, Form)  # raises
    sigma2 = stored.variance.to(variance)
    if form == "l2":
        return shift.square() + (variance - sigma2).square()
    s2, sigma2 = variance + stored.epsilon, sigma2 + stored.epsilon
    over, under = (sigma2, s2) if form == "forward" else (s2, sigma2)
    return 0.5 * ((under / over).log() + (over + shift.square()) / under - 1)


@torch.no_grad()
def statistics(
    network: Network,
    source: Dataset | Tensor,
    layers: Iterable[StoredStatistics],
    *,
    show: Callable[[Tensor], Tensor] | None = None,
    in_range: bool = True,
    progress: Progress = silent,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Tap -> mean (C,) and biased variance (C,) over a data set, in one pass in float64.

    `source` is a data set, or pixels (N, C, H, W) in the spec's range; without `in_range` they may exceed it. `show`
    changes the images before the network sees them. Raises UserError for images that do not fit, and for activations
    with NaN or infinity.
    """
    layers = tuple(layers)
    calls, views = {layer.tap: layer.calls for layer in layers}, {layer.tap: layer.view for layer in layers}
    taps = list(calls)
    total, states = len(source), {}
    with frozen(network.module), tap_names.watch(network, taps) as activations:
        seen_images = 0
        for pixels in pixel_batches(network, source, taps):
            network.spec.check(pixels if in_range else network.spec.clamp(pixels))
            images = pixels if show is None else show(pixels)
            network.logits(images.to(network.device))
            for tap in taps:
                view = views[tap]
                activation = activations[tap] if view is None else view(images)
                _check_finite(network, tap, activation, calls[tap], len(images), seen_images)
                state = _state(channels(activation.detach().cpu().double()), calls[tap])
                states[tap] = _merge(states[tap], state) if tap in states else state
            seen_images += len(pixels)
            progress(seen_images, total)
    return {
        tap: (layer["mean"].mean(0), (layer["square"] / layer["count"][:, None]).mean(0))
        for tap, layer in states.items()
    }


def _check_finite(network: Network, tap: str, activation: Tensor, calls: int, images: int, start: int) -> None:
    bad_rows = (~activation.isfinite()).flatten(1).any(1)
    if not bool(bad_rows.any()):
        return
    affected = f"images {start:,} to {start + images - 1:,}"
    if len(bad_rows) == calls * images:
        rows = bad_rows.view(calls, images).any(0).nonzero()
        affected = f"{len(rows):,} images, the first of them image {start + int(rows[0]):,}"
    raise UserError(
        f"activations of layer {tap!r} of {network.name} are not finite on {affected} (counted from 0); leave those images "
        "out, or use weights that give finite numbers"
    )


def _state(rows: Tensor, calls: int) -> dict[str, Tensor]:
    """Count, mean and centred squares of rows (calls x n, C) per call."""
    call_index = torch.arange(calls).repeat_interleave(len(rows) // calls)
    count, mean = group_means(rows, call_index, calls)
    centred = rows.reshape(calls, -1, rows.shape[1]) - mean[:, None]
    return {"count": count, "mean": mean, "rest": centred.mean(1), "square": centred.square().sum(1)}


def _merge(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    merged, between = merge_means(a, b)
    return merged | {"square": a["square"] + b["square"] + between.square()}


def pixel_batches(
    network: Network, source: Dataset | Tensor, taps: Iterable[str], *, limit: int | None = None
) -> Iterator[Tensor]:
    """The first `limit` images of a data set or tensor as pixels (N, C, H, W), as many at a time as the activations at
    the taps allow.
    """
    units = sum(torch.Size(shape).numel() for shape in tap_names.shapes(network, taps).values())
    size = max(1, min(1024, CHUNK_BYTES // (8 * max(units, network.spec.pixels))))
    source = source if isinstance(source, Tensor) else source.scaled_to(network.spec)
    total = len(source) if limit is None else min(limit, len(source))
    for start in range(0, total, size):
        end = min(start + size, total)
        if isinstance(source, Tensor):
            yield source[start:end]
        else:
            yield source.pixels(torch.arange(start, end).numpy(), network.spec.shape[1:])
