"""Simulated rounding to a uniform grid with a learnable step (LSQ, Esser et al. 2020).

`FakeQuantize` takes the place of a PT2E observer: it observes until `start`, then rounds to its grid. We do not use
torchao's: its observers choose ranges for 256 levels regardless of the bits, and its learnable grids also learn zero
points and take a quarter longer than these two dot products.
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
"""The step is `begin x exp(GAIN x learnt)`: with Adam, an update changes it by at most a factor of 1 + GAIN x rate.

Both names are in the state files of fine-tuning.
"""
CLIPS = 100
OBSERVED_LEVELS = 256
"""Maximum number of levels for torchao's observer; its histogram is too coarse for more, and it clips too much."""


class _Round(torch.autograd.Function):
    """Rounds x (N, ...) to its grid: straight-through gradient inside the range, exact gradient of the step.

    With y the rounded x and g its gradient, dL/dstep = (<g, y> - <g inside, x>) / step: (y - x) / step inside the
    range, the grid's end outside, as in LSQ's eq. 3. LSQ's scale 1 / sqrt(N Q) is omitted, because Adam normalises
    gradients. Per tensor, it takes four vectorised passes: the same bits as torch's fake_quantize in a twentieth of its
    time on a CPU.
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
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor | None, ...]:
        x, y, mark, step = ctx.saved_tensors
        if ctx.by_channel:
            through = grad * mark
        else:  # pass the gradient if the rounded value was in range
            through = torch.ops.aten.hardtanh_backward(grad, mark, ctx.ends[0] - 0.5, ctx.ends[1] + 0.5)
        step_grad = None
        if ctx.needs_input_grad[1]:
            if ctx.by_channel:
                step_grad = (grad * y - through * x).flatten(1).sum(1) / step
            else:
                difference = torch.dot(grad.reshape(-1), y.reshape(-1)) - torch.dot(through.reshape(-1), x.reshape(-1))
                step_grad = (difference / step).view_as(step)
        return through, step_grad, None, None, None, None


class _Levels(HistogramObserver):
    """torchao's observer, which searches the range of least squared error, with the actual number of levels."""

    def __init__(self, levels: int, **options: Any):
        super().__init__(**options)
        self.dst_nbins = levels


class FakeQuantize(FakeQuantizeBase):
    """The grid of one tensor, from `quant_min` to `quant_max`: per channel (weights), or with a zero point."""

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
        """Stops observing, sets the grid of least squared error on what was observed, and starts rounding.

        Raises RuntimeError if nothing was observed.
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
        """Sets the grid: step (C,) or (1,) above 0, zero point of the same shape."""
        self.begin, self.zero_point = step.detach().clone(), zero.to(torch.int32)
        self.learnt = nn.Parameter(torch.zeros_like(self.begin))
        self.observer, self._weight = None, None
        self.observing, self.rounding = False, True

    def widen(self, least: Tensor) -> None:
        """Raises the step of each channel to at least `least` (C,) or (1,)."""
        with torch.no_grad():
            self.begin *= (least / self.step).clamp(min=1)

    @property
    def step(self) -> Tensor:
        """The grid's step (C,) or (1,), differentiable."""
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
            levels = (x * float(1 / step.double())).round_()
            return levels.clamp_(self.quant_min - zero, self.quant_max - zero).mul_(float(step))
        limits = self.quant_min, self.quant_max
        return _Round.apply(x, self.step, self.zero_point, *limits, self.by_channel)  # type: ignore[return-value]

    def _watch(self, x: Tensor) -> None:
        if self.by_channel:
            self._weight = x
        elif self.observer is not None:
            self.observer(x)


def covering(low: float, high: float, top: int) -> tuple[Tensor, Tensor]:
    """Step and zero point of the grid 0..top that covers [low, high] and contains 0."""
    step = max((high - low) / top, 1e-12)
    zero = min(max(round(-low / step), 0), top)
    return torch.tensor([step]), torch.tensor([zero])


def nearest_range(observer: Any, top: int) -> tuple[float, float]:
    """Ends of the range whose grid 0..`top` has the least squared error on a histogram observer's data.

    The best of 100 x 100 clips of both ends. For grids finer than the histogram's bins: the error of a value inside the
    range is uniform within a step, and that of a value outside is its distance from the end.
    """
    counts = observer.histogram.double()
    low, high = observer.min_val.double(), observer.max_val.double()
    centres = low + (high - low) * (torch.arange(len(counts)).double() + 0.5) / len(counts)
    shares = torch.linspace(1 / CLIPS, 1.0, CLIPS, dtype=torch.float64)
    lows, highs = shares * low.clamp(max=0), shares * high.clamp(min=0)
    below = ((lows[:, None] - centres).clamp(min=0).square() * counts).sum(1)
    above = ((centres - highs[:, None]).clamp(min=0).square() * counts).sum(1)
    step = (highs - lows[:, None]) / top
    errors = below[:, None] + above + counts.sum() * step.square() / 12
    best = int(errors.argmin())
    return float(lows[best // CLIPS]), float(highs[best % CLIPS])


def nearest_step(weight: Tensor, high: int) -> Tensor:
    """Step (C,) per output channel whose grid -high..high has the least squared error on `weight` (C, ...).

    The best of 100 clips of the channel's largest magnitude, from 1 % to 100 %; a channel of zeros gets 1.
    """
    rows = weight.flatten(1).float()
    top = rows.abs().amax(1)
    best, least = top / high, torch.full_like(top, math.inf)
    for share in torch.linspace(1 / CLIPS, 1.0, CLIPS).tolist():
        step = (share * top / high).clamp(min=torch.finfo(torch.float32).tiny)[:, None]
        error = (rows - (rows / step).round().clamp(-high, high) * step).square().sum(1)
        best, least = torch.where(error < least, step[:, 0], best), torch.minimum(error, least)
    return torch.where(top > 0, best, torch.ones_like(best))
