"""Mean and standard deviation of the pixels over all classes, from which reconstruction starts (Lopes et al. 2017,
sec. 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..._core.errors import UserError
from ..._core.settings import Settings
from ...models import hooks as tap_names
from ...models.input_spec import InputSpec
from ...models.network import Network
from . import State, Summary, Table, difference, table
from .limits import check_counts, check_pixels
from .merge import group_means, merge_means

__all__ = ["InputAccumulator", "InputMoments"]


class InputMoments(Settings):
    """Mean and standard deviation of the input over all classes."""

    kind: Literal["input"] = "input"
    per: Literal["pixel", "channel"] = "pixel"
    """One number per pixel of every channel, or one per channel."""

    needs_data: ClassVar[bool] = True

    def plan(self, network: Network, taps: Sequence[str]) -> dict[str, tuple[InputMoments, tuple[str, ...]]]:  # noqa: ARG002
        return {"input-moments": (self, (tap_names.INPUT,))}

    def bind(self, network: Network, taps: Sequence[str]) -> InputAccumulator:  # noqa: ARG002
        return InputAccumulator(self, network.spec)


class InputAccumulator:
    """States: count (1,), mean, rest and square (1, D); summaries: mean and std, (C, H, W) or (C, 1, 1)."""

    def __init__(self, settings: InputMoments, spec: InputSpec):
        shape = spec.shape
        self.settings, self.spec, self.shape = settings, spec, shape
        self.positions = 1 if settings.per == "pixel" else shape[1] * shape[2]
        self.stored = shape if settings.per == "pixel" else (shape[0], 1, 1)

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        return [activations[0]]

    def reduce(self, activations: Sequence[Tensor], labels: Tensor) -> State:  # noqa: ARG002
        x = activations[0].detach().cpu().double()
        signal = x.flatten(1) if self.settings.per == "pixel" else x.transpose(0, 1).flatten(1).T
        count, mean = group_means(signal, torch.zeros(len(signal), dtype=torch.long), 1)
        centred = signal - mean
        residual = centred.mean(0, keepdim=True)
        return {"count": count, "mean": mean, "rest": residual, "square": centred.square().sum(0, keepdim=True)}

    def merge(self, a: State, b: State) -> State:
        merged, between = merge_means(a, b)
        return merged | {"square": a["square"] + b["square"] + between.square()}

    def finish(self, state: State) -> Summary:
        std = (state["square"] / (state["count"] - 1).clamp(min=1)[:, None]).sqrt()
        return {
            "count": (state["count"] / self.positions).round().long(),
            "mean": state["mean"].reshape(self.stored).float(),
            "std": std.reshape(self.stored).float(),
        }

    def layout(self) -> Table:
        return {"count": ("int64", (1,)), "mean": ("float32", self.stored), "std": ("float32", self.stored)}

    def check(self, summary: Summary) -> None:
        got, expected = table(summary), self.layout()
        if got != expected:
            raise UserError(
                f"the record's input moments differ in {difference(got, expected)}; record this network again"
            )
        if float(summary["std"].min()) < 0:
            raise UserError("the record's input moments have a negative std; get the record again")
        check_counts(summary["count"], "the record's input moments")
        count = summary["count"] * self.positions
        check_pixels(summary["mean"], summary["std"].square(), count, self.spec, "the record's input moments")

    def sample(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> list[Tensor]:
        noise = torch.randn(len(labels), *self.shape, generator=rng)
        return [summary["mean"] + summary["std"] * noise]

    def distance(self, summary: Summary, activations: Sequence[Tensor], labels: Tensor) -> Tensor:  # noqa: ARG002
        """Mean of (m - mu)^2 + (s - sigma)^2, in pixel units squared."""
        x = activations[0]
        dims = (0,) if self.settings.per == "pixel" else (0, 2, 3)
        mean, std = x.mean(dims).reshape(self.stored), x.var(dims).clamp(min=1e-12).sqrt().reshape(self.stored)
        mu, sigma = summary["mean"].to(x.device), summary["std"].to(x.device)
        return ((mean - mu).square() + (std - sigma).square()).mean()

    def released_statistics(self, summary: Summary) -> float:
        return 2 * summary["mean"].numel() / float(summary["count"])
