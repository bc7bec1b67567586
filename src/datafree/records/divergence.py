"""How far activations are from those a network was trained on: a Gaussian divergence by channel (Haroush et al. 2020).

What a network was trained on it says itself, in the running statistics of its batch norms; a network without them says it
through a publisher's record of moments.
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
    "known",
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
    """One layer's statistics by channel over its training data: mean (C,), variance (C,), in float32 on the CPU.

    `epsilon` is added to variances before they are compared, as a batch norm does before it divides. Of a batch norm that
    an image passes several times (`calls`) these are averages over the calls, as its running statistics are.
    """

    tap: str
    mean: Tensor
    variance: Tensor
    epsilon: float = EPSILON
    calls: int = 1
    view: Callable[[Tensor], Tensor] | None = None
    """Takes pixels (N, C, H, W) and returns the part that is compared, (N, C) or (N, C, ...)."""


def known(network: Network, record: Record | None = None) -> bool:
    """Whether `stored` finds any."""
    if tap_names.batch_norm_calls(network):
        return True
    return record is not None and any(_by_place(network, record, name) for name in record.of_kind("moments"))


def stored_statistics(network: Network, record: Record | None = None) -> tuple[StoredStatistics, ...]:
    """The stored statistics of every batch norm that has some; without batch norm, those of the record's moments.

    One that an image passes several times counts once; one that it passes in several sizes is left out.

    Raises UserError where there are neither, with what to do without the training data.
    """
    layers = dict(network.module.named_modules())
    found = []
    for tap, calls in tap_names.batch_norm_calls(network).items():
        layer = layers[tap]
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        assert layer.running_mean is not None and layer.running_var is not None
        mean, variance = (t.detach().cpu().float().clone() for t in (layer.running_mean, layer.running_var))
        found.append(StoredStatistics(tap, mean, variance, layer.eps, calls))
    if not found:
        _check_layers(network)
    if not found and record is not None:
        entries = record.of_kind("moments").items()
        found = [_pooled(network, record, name, entry) for name, entry in entries if _by_place(network, record, name)]
    if not found:
        raise UserError(_nothing_stored(network, record))
    return tuple(found)


def _nothing_stored(network: Network, record: Record | None) -> str:
    """What is missing, and what to do for whoever has the network alone, without its data; then for its publisher."""
    missing = (
        f"{tap_names.no_batch_norm(network)}, and no record of moments of its layers, place by place and with variances"
    )
    if is_program(network):
        return f"{missing}; give the module that it was made from"
    instead = "method 'inception', which needs none, or name --record"
    if record is not None:
        instead = (
            "method 'distribution', which draws from its record" if _holds_pixels(record) else "a method of its record"
        )
    return f"{missing}; use {instead}; its publisher can add them: datafree record --add --kind moments --conv units"


def _holds_pixels(record: Record) -> bool:
    return any(entry.taps == (tap_names.INPUT,) for entry in record.of_kind("moments").values())


def stored_pixels(network: Network, record: Record | None) -> tuple[StoredStatistics, ...]:
    """Mean and variance of the pixels over the training data, as the record has them; empty where it has none.

    Those at each place of the finest grid, where it holds moments of the input with variances, else those by channel.
    """
    if record is None:
        return ()
    grids = []
    for name, entry in record.of_kind("moments").items():
        meter = record.meter(name, network)
        assert isinstance(meter, MomentsAccumulator)
        if entry.taps == (tap_names.INPUT,) and entry.statistic.covariance != "none":
            grids.append((meter.size, _by_unit(entry, meter)))
    if grids:
        return (max(grids, key=lambda sized: sized[0])[1],)
    for entry in record.of_kind("input").values():
        channels = network.spec.shape[0]
        mean = entry.summary["mean"].double().view(channels, -1)
        spread = entry.summary["std"].double().square().view(channels, -1)
        total = (spread + (mean - mean.mean(1, keepdim=True)).square()).mean(1)
        return (StoredStatistics(tap_names.INPUT, mean.mean(1).float(), total.float(), view=lambda pixels: pixels),)
    return ()


def _by_unit(entry: Entry, meter: MomentsAccumulator) -> StoredStatistics:
    """A class-conditional entry of the pixels as one mean and variance of each unit."""
    mean, variance = _over_classes(entry, meter)
    scale = entry.statistic.scale
    return StoredStatistics(
        tap_names.INPUT, mean.float(), variance.float(), view=lambda pixels: meter.observe([pixels])[0] / scale
    )


def _over_classes(entry: Entry, meter: MomentsAccumulator) -> tuple[Tensor, Tensor]:
    """Mean (D,) and variance (D,) of an entry's units: the law of total variance over classes."""
    scale, count = entry.statistic.scale, entry.summary["count"].double()
    share = (count / count.sum())[:, None]
    biased = ((count - 1) / count).clamp(min=0)[:, None]  # as `statistics` measures
    means, within = entry.summary["mean"].double() / scale, meter.variance(entry.summary).double() / scale**2
    mean = (share * means).sum(0)
    return mean, (share * (biased * within + (means - mean).square())).sum(0)


def _check_layers(network: Network) -> None:
    if isinstance(network.module, OpaqueModule):
        raise UserError(
            f"{network.name} is an exported file, which holds no batch norms, wanted the network it was made from; "
            "give the original"
        )


def _by_place(network: Network, record: Record, name: str) -> bool:
    """Whether an entry holds what is needed: variances of the activations themselves, not of averages over places."""
    entry, meter = record.entries[name], record.meter(name, network)
    assert isinstance(meter, MomentsAccumulator)
    own = entry.statistic
    return (
        entry.taps != (tap_names.INPUT,)
        and own.covariance != "none"
        and own.downsample == 1
        and not meter.pool_positions
    )


def _pooled(network: Network, record: Record, name: str, entry: Entry) -> StoredStatistics:
    """A class-conditional entry as one mean and variance by channel: the law of total variance over classes and places."""
    meter = record.meter(name, network)
    assert isinstance(meter, MomentsAccumulator)
    mean, variance = _over_classes(entry, meter)
    places = mean.view(meter.shape[0], -1)
    spread = variance.view_as(places)
    channel = places.mean(1)
    total = (spread + (places - channel[:, None]).square()).mean(1)
    return StoredStatistics(entry.taps[0], channel.float(), total.float())


def channels(activation: Tensor) -> Tensor:
    """An activation (N, C, ...) as rows (N x places, C)."""
    return activation.transpose(0, 1).flatten(1).T if activation.ndim > 2 else activation


def by_channel(activation: Tensor, about: Tensor, calls: int = 1) -> tuple[Tensor, Tensor]:
    """Mean (C,) less `about` (C,), and biased variance (C,), of an activation (N, C, ...) over images and places.

    Of a tap with several `calls`, (calls x N, C, ...), the averages of theirs. From the mean and the norm of what is left
    after `about` is taken away: as exact as `Tensor.var` where the two means are near, in a tenth of its time, and with a
    gradient in two passes. At least float32, whatever the activation is.

    Where the means are r standard deviations apart, float32 leaves the variance a relative error of about 1e-7 r^2: a
    thousandth at r = 100, nothing right from r = 3,000 on. Figures are taken by `statistics`, which has no such limit.
    """
    if calls > 1:
        found = [by_channel(own, about) for own in activation.chunk(calls)]
        apart, variance = (torch.stack(own).mean(0) for own in zip(*found, strict=True))
        return apart, variance
    apart, square = _Moments.apply(activation, about)  # type: ignore[misc]
    return apart, (square - apart.square()).clamp(min=0)


class _Moments(torch.autograd.Function):
    """Channel means of x - about and of its square; their gradient is one scale and one shift by channel."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, about: Tensor) -> tuple[Tensor, Tensor]:
        # What lies channels last is read as rows, since its channels are far apart in memory
        ctx.last = x.ndim > 2 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()
        left = x.movedim(1, -1).flatten(0, -2) if ctx.last else x if x.ndim == 2 else x.flatten(2)
        left = left if x.dtype == torch.float64 else left.float()
        left = left - _wide(about, left)
        count = left.numel() / left.shape[1]
        norms = torch.linalg.vector_norm(left, dim=2) if left.ndim > 2 else left
        ctx.save_for_backward(left)
        ctx.shape, ctx.dtype, ctx.count = x.shape, x.dtype, count
        return left.mean([0, *range(2, left.ndim)]), norms.square().sum(0) / count

    @staticmethod
    def backward(ctx: Any, mean: Tensor, square: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (left,) = ctx.saved_tensors
        grad = (left * _wide(square * (2 / ctx.count), left)).add_(_wide(mean / ctx.count, left)).to(ctx.dtype)
        images, width, *places = ctx.shape
        return (grad.view(images, *places, width).movedim(-1, 1) if ctx.last else grad.view(ctx.shape)), None


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 2))


def divergence(apart: Tensor, variance: Tensor, own: StoredStatistics, form: Form = "forward") -> Tensor:
    """By channel (C,), 0 at equality; `apart` is the measured mean m less the stored one.

    forward: KL(N(mu, sigma^2) || N(m, s^2)) in nats, stored against measured, as in the paper; reverse: measured against
    stored; l2: (m - mu)^2 + (s^2 - sigma^2)^2, whose sum is the squared form of ZeroQ's and DeepInversion's loss.
    """
    if not isinstance(form, str) or form not in UNITS:
        check_argument("form", form, Form)  # raises
    sigma2 = own.variance.to(variance)
    if form == "l2":
        return apart.square() + (variance - sigma2).square()
    s2, sigma2 = variance + own.epsilon, sigma2 + own.epsilon
    over, under = (sigma2, s2) if form == "forward" else (s2, sigma2)
    return 0.5 * ((under / over).log() + (over + apart.square()) / under - 1)


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
    """Tap -> mean (C,) and biased variance (C,) over a whole data set, in one pass in float64.

    `source` is a data set, or pixels (N, C, H, W) in the spec's range, where not `in_range` beyond it too; `show` changes what
    the network sees of them. Raises UserError for images that do not fit, and for activations with NaN or infinity.
    """
    layers = tuple(layers)
    calls, views = {own.tap: own.calls for own in layers}, {own.tap: own.view for own in layers}
    taps = list(calls)
    total, states = len(source), {}
    with frozen(network.module), tap_names.watch(network, taps) as seen:
        done = 0
        for pixels in _chunks(network, source, taps):
            network.spec.check(pixels if in_range else network.spec.clamp(pixels))
            images = pixels if show is None else show(pixels)
            network.logits(images.to(network.device))
            for tap in taps:
                view = views[tap]
                activation = seen[tap] if view is None else view(images)
                _check_finite(network, tap, activation, calls[tap], len(images), done)
                state = _state(channels(activation.detach().cpu().double()), calls[tap])
                states[tap] = _merge(states[tap], state) if tap in states else state
            done += len(pixels)
            progress(done, total)
    return {tap: (own["mean"].mean(0), (own["square"] / own["count"][:, None]).mean(0)) for tap, own in states.items()}


def _check_finite(network: Network, tap: str, activation: Tensor, calls: int, images: int, start: int) -> None:
    bad = (~activation.isfinite()).flatten(1).any(1)
    if not bool(bad.any()):
        return
    which = f"images {start:,} to {start + images - 1:,}"
    if len(bad) == calls * images:
        rows = bad.view(calls, images).any(0).nonzero()
        which = f"{len(rows):,} images, the first of them image {start + int(rows[0]):,}"
    raise UserError(
        f"activations of layer {tap!r} of {network.name} are not finite on {which} (counted from 0); leave those images "
        "out, or use weights that give finite numbers"
    )


def _state(rows: Tensor, calls: int) -> dict[str, Tensor]:
    """Count, mean and centred squares of rows (calls x n, C), call by call."""
    which = torch.arange(calls).repeat_interleave(len(rows) // calls)
    count, mean = group_means(rows, which, calls)
    centred = rows.reshape(calls, -1, rows.shape[1]) - mean[:, None]
    return {"count": count, "mean": mean, "rest": centred.mean(1), "square": centred.square().sum(1)}


def _merge(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    merged, apart = merge_means(a, b)
    return merged | {"square": a["square"] + b["square"] + apart.square()}


def _chunks(network: Network, source: Dataset | Tensor, taps: list[str]) -> Iterator[Tensor]:
    units = sum(torch.Size(shape).numel() for shape in tap_names.shapes(network, taps).values())
    size = max(1, min(1024, CHUNK_BYTES // (8 * max(units, network.spec.pixels))))
    source = source if isinstance(source, Tensor) else source.scaled_to(network.spec)
    for start in range(0, len(source), size):
        end = min(start + size, len(source))
        if isinstance(source, Tensor):
            yield source[start:end]
        else:
            yield source.pixels(torch.arange(start, end).numpy(), network.spec.shape[1:])
