"""Rounding to a uniform grid, and learning the grid's step (LSQ, Esser et al. 2020).

`Step` stands where torchao's PT2E puts an observer: it watches while `observing`, then rounds to the grid it `start`s
with. torchao has learnable grids, and observers, of its own; but its observers choose ranges for 256 levels whatever the
number of bits, and its grids learn zero points too and take a quarter longer than these two dot products.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import HistogramObserver
from torchao.quantization.pt2e.fake_quantize import FakeQuantizeBase

__all__ = ["GAIN", "FakeQuantize", "covering", "nearest_step"]

GAIN = 5.0
"""The step is `start x exp(GAIN x learnt)`: with Adam, it moves by GAIN learning rates, relative to itself, at most."""
CLIPS = 100
OBSERVED_LEVELS = 256
"""Up to so many levels torchao's observer chooses the range; for more its histogram is too coarse, and it clips too much."""


class _Round(torch.autograd.Function):
    """x (N, ...) to its grid; straight through inside the grid's range, and the exact gradient of the step.

    With y the rounded x and g its gradient, dL/dstep = (<g, y> - <g inside, x>) / step: (y - x) / step inside the range,
    the grid's end outside, as in LSQ's eq. 3. Its scale is Adam's business, so LSQ's 1 / sqrt(N Q) is left out.
    By tensor it is four vectorised passes: the same bits as torch's fake_quantize, in a twentieth of its time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, low: int, high: int, by_channel: bool) -> Tensor:
        if by_channel:
            y, mark = torch.ops.aten.fake_quantize_per_channel_affine_cachemask(x, step, zero, 0, low, high)
        else:
            ctx.ends = low - int(zero), high - int(zero)
            mark = (x * float(1 / step.double())).round_()
            y = mark.clamp(*ctx.ends).mul_(float(step))
        ctx.save_for_backward(x, y, mark, step)
        ctx.by_channel = by_channel
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, y, mark, step = ctx.saved_tensors
        if ctx.by_channel:
            through = grad * mark
        else:  # where the whole number was between the ends
            through = torch.ops.aten.hardtanh_backward(grad, mark, ctx.ends[0] - 0.5, ctx.ends[1] + 0.5)
        moved = None
        if ctx.needs_input_grad[1]:
            if ctx.by_channel:
                moved = (grad * y - through * x).flatten(1).sum(1) / step
            else:
                apart = torch.dot(grad.reshape(-1), y.reshape(-1)) - torch.dot(through.reshape(-1), x.reshape(-1))
                moved = (apart / step).view_as(step)
        return through, moved, None, None, None, None


class _Levels(HistogramObserver):
    """torchao's observer, which looks for the range of least squared error, told how many levels there are."""

    def __init__(self, levels: int, **options: Any):
        super().__init__(**options)
        self.dst_nbins = levels


class FakeQuantize(FakeQuantizeBase):
    """One tensor's grid: `levels` from `quant_min` to `quant_max`, by channel (weights) or with a zero point."""

    def __init__(self, quant_min: int, quant_max: int, dtype: torch.dtype, by_channel: bool, **_: Any):
        super().__init__()
        self.quant_min, self.quant_max, self.dtype, self.by_channel = quant_min, quant_max, dtype, by_channel
        self.qscheme = torch.per_channel_symmetric if by_channel else torch.per_tensor_affine
        self.ch_axis, self.is_dynamic = 0, False
        self.observer: nn.Module | None = None
        if not by_channel:
            self.observer = _Levels(
                quant_max - quant_min + 1, dtype=dtype, qscheme=self.qscheme, quant_min=quant_min, quant_max=quant_max
            )
        self.learnt: nn.Parameter | None = None
        self.register_buffer("begin", torch.ones(1))
        self.register_buffer("zero_point", torch.zeros(1, dtype=torch.int32))
        self.observing, self.rounding = True, False
        self._weight: Tensor | None = None

    def start(self) -> None:
        """Ends watching: the grid of least squared error over what was seen; rounds from now on.

        Raises RuntimeError where nothing was seen.
        """
        if self.by_channel:
            if self._weight is None:
                raise RuntimeError("a weight's grid was started before its layer was run")
            step = nearest_step(self._weight, self.quant_max)
            zero = torch.zeros(len(step), dtype=torch.int32)
        else:
            assert self.observer is not None
            if not bool(self.observer.min_val <= self.observer.max_val):  # type: ignore[operator]
                raise RuntimeError("an activation's grid was started before its layer was run")
            if self.quant_max - self.quant_min < OBSERVED_LEVELS:
                step, zero = self.observer.calculate_qparams()  # type: ignore[operator]
            else:
                step, zero = covering(*nearest_range(self.observer, self.quant_max), self.quant_max)
        self.set(step.float().flatten(), zero.flatten())

    def set(self, step: Tensor, zero: Tensor) -> None:
        """The grid, given: step (C,) or (1,) above 0, zero point of the same shape."""
        self.begin, self.zero_point = step.detach().clone(), zero.to(torch.int32)
        self.learnt = nn.Parameter(torch.zeros_like(self.begin))
        self.observer, self._weight = None, None
        self.observing, self.rounding = False, True

    def widen(self, least: Tensor) -> None:
        """The step, of each channel, to `least` (C,) or (1,) where it is smaller."""
        with torch.no_grad():
            self.begin *= (least / self.step).clamp(min=1)

    @property
    def step(self) -> Tensor:
        """The grid's step, (C,) or (1,), with a gradient."""
        return self.begin if self.learnt is None else self.begin * (GAIN * self.learnt).exp()

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.step.detach(), self.zero_point

    def forward(self, x: Tensor) -> Tensor:
        if self.observing:
            self._watch(x.detach())
        if not self.rounding:
            return x
        if not self.by_channel and not torch.is_grad_enabled():
            step, zero = self.step, int(self.zero_point)
            whole = (x * float(1 / step.double())).round_()
            return whole.clamp_(self.quant_min - zero, self.quant_max - zero).mul_(float(step))
        return _Round.apply(x, self.step, self.zero_point, self.quant_min, self.quant_max, self.by_channel)  # type: ignore[return-value]

    def _watch(self, x: Tensor) -> None:
        if self.by_channel:
            self._weight = x
        elif self.observer is not None:
            self.observer(x)


def covering(low: float, high: float, top: int) -> tuple[Tensor, Tensor]:
    """Step and zero point of the grid 0..top that covers [low, high], with 0 on it."""
    step = max((high - low) / top, 1e-12)
    zero = min(max(round(-low / step), 0), top)
    return torch.tensor([step]), torch.tensor([zero])


def nearest_range(observer: Any, top: int) -> tuple[float, float]:
    """Lower and upper end of the range whose grid 0..`top` has the least squared error on what a histogram observer saw.

    The best of 100 x 100 clips of its two ends. For grids finer than the histogram's bins: a value in the range is off by a
    uniform part of a step, one beyond it by its distance from the end.
    """
    counts = observer.histogram.double()
    first, last = observer.min_val.double(), observer.max_val.double()
    places = first + (last - first) * (torch.arange(len(counts)).double() + 0.5) / len(counts)
    shares = torch.linspace(1 / CLIPS, 1.0, CLIPS, dtype=torch.float64)
    lows, highs = shares * first.clamp(max=0), shares * last.clamp(min=0)
    below = ((lows[:, None] - places).clamp(min=0).square() * counts).sum(1)
    above = ((places - highs[:, None]).clamp(min=0).square() * counts).sum(1)
    step = (highs - lows[:, None]) / top
    errors = below[:, None] + above + counts.sum() * step.square() / 12
    best = int(errors.argmin())
    return float(lows[best // CLIPS]), float(highs[best % CLIPS])


def nearest_step(weight: Tensor, high: int) -> Tensor:
    """The step (C,) by output channel whose grid -high..high has the least squared error on `weight` (C, ...).

    The best of 100 clips of the channel's largest magnitude, from a hundredth of it to all; a channel of zeros gets 1.
    """
    rows = weight.flatten(1).float()
    top = rows.abs().amax(1)
    best, least = top / high, torch.full_like(top, math.inf)
    for share in torch.linspace(1 / CLIPS, 1.0, CLIPS).tolist():
        step = (share * top / high).clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        error = (rows - (rows / step).round().clamp(-high, high) * step).square().sum(1)
        best, least = torch.where(error < least, step[:, 0], best), torch.minimum(error, least)
    return torch.where(top > 0, best, torch.ones_like(best))
