"""Running mean and variance of each batch norm's input, which a network with batch norms contains without a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from ..._core.errors import UserError
from ..._core.settings import Settings
from ...models import hooks as tap_names
from ...models.network import Network
from . import State, Summary, Table, difference, table
from .limits import LARGEST, check_size
from .merge import group_means, merge_means

__all__ = ["BatchNorm", "BatchNormAccumulator"]


class BatchNorm(Settings):
    """Mean and variance per channel before each batch norm, read from the model without data.

    Records of earlier versions may have it. New records cannot: methods read these numbers from the network itself.
    """

    kind: Literal["batch-norm"] = "batch-norm"

    needs_data: ClassVar[bool] = False
    offered: ClassVar[bool] = False

    def plan(self, network: Network, taps: Sequence[str]) -> dict[str, tuple[BatchNorm, tuple[str, ...]]]:  # noqa: ARG002
        """One entry per batch norm with running statistics. `taps` are ignored."""
        names = tap_names.batch_norms(network)
        if not names:
            raise UserError(
                f"{tap_names.no_batch_norm(network)}, expected one with running statistics; record other statistics"
            )
        return {tap: (self, (tap,)) for tap in names}

    def bind(self, network: Network, taps: Sequence[str]) -> BatchNormAccumulator:
        (tap,) = taps
        layer = dict(network.module.named_modules()).get(tap)
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            raise UserError(f"{tap!r} of {network.name} is no batch norm; name one of {tap_names.batch_norms(network)}")
        return BatchNormAccumulator(tap, layer)


class BatchNormAccumulator:
    """Summaries: mean (C,) and variance (C,), unbiased as in torch."""

    def __init__(self, tap: str, layer: nn.modules.batchnorm._BatchNorm):
        self.tap, self.layer = tap, layer

    def read(self) -> Summary:
        """The layer's running statistics."""
        assert self.layer.running_mean is not None and self.layer.running_var is not None
        return {
            "mean": self.layer.running_mean.detach().cpu().float().clone(),
            "variance": self.layer.running_var.detach().cpu().float().clone(),
        }

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        (a,) = activations
        return [a.transpose(0, 1).flatten(1).T if a.ndim > 2 else a]

    def reduce(self, activations: Sequence[Tensor], labels: Tensor) -> State:  # noqa: ARG002
        signal = self.observe([activations[0].detach().cpu().double()])[0]
        count, mean = group_means(signal, torch.zeros(len(signal), dtype=torch.long), 1)
        centred = signal - mean
        residual = centred.mean(0, keepdim=True)
        return {"count": count, "mean": mean, "rest": residual, "square": centred.square().sum(0, keepdim=True)}

    def merge(self, a: State, b: State) -> State:
        merged, between = merge_means(a, b)
        return merged | {"square": a["square"] + b["square"] + between.square()}

    def finish(self, state: State) -> Summary:
        variance = state["square"] / (state["count"] - 1).clamp(min=1)[:, None]
        return {"mean": state["mean"][0].float(), "variance": variance[0].float()}

    def layout(self) -> Table:
        return dict.fromkeys(("mean", "variance"), ("float32", (self.layer.num_features,)))

    def check(self, summary: Summary) -> None:
        got, expected = table(summary), self.layout()
        if got != expected:
            raise UserError(
                f"entry {self.tap!r} of the record differs in {difference(got, expected)}; record this network again"
            )
        if float(summary["variance"].min()) < 0:
            raise UserError(f"entry {self.tap!r} of the record has a negative variance; get the record again")
        subject = f"entry {self.tap!r} of the record"
        check_size(summary["mean"], subject, "mean")
        check_size(summary["variance"], subject, "variance", LARGEST**2)

    def sample(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> list[Tensor]:
        noise = torch.randn(len(labels), len(summary["mean"]), generator=rng)
        return [summary["mean"] + summary["variance"].sqrt() * noise]

    def distance(self, summary: Summary, activations: Sequence[Tensor], labels: Tensor) -> Tensor:  # noqa: ARG002
        """|m - mu|_2 + |s^2 - sigma^2|_2 over channels (DeepInversion, Yin et al. 2020, eq. 4)."""
        signal = self.observe(activations)[0]
        mean, variance = signal.mean(0), signal.var(0)
        differences = (mean - summary["mean"].to(signal.device)), (variance - summary["variance"].to(signal.device))
        return torch.linalg.vector_norm(differences[0]) + torch.linalg.vector_norm(differences[1])

    def released_statistics(self, summary: Summary) -> float:  # noqa: ARG002
        return 0.0  # the model contains these already
