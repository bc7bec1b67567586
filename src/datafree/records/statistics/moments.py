"""Class-conditional mean and covariance of a layer's pre-activations (Lopes et al. 2017, eq. 1 and 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.linalg.lapack import dpstrf  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, pad

from ..._core.errors import UserError
from ..._core.settings import Settings
from ...models import hooks as tap_names
from ...models.input_spec import InputSpec
from ...models.network import Network
from . import State, Summary, Table, difference, table
from .limits import LARGEST, check_counts, check_pixels, check_size
from .merge import group_means, merge_means
from .sketch import nystrom, test_matrix

__all__ = ["UNITS_AT_MOST", "Moments", "MomentsAccumulator"]

UNITS_AT_MOST = 8192


class Moments(Settings):
    """Mean and covariance of every recorded layer per class."""

    kind: Literal["moments"] = "moments"
    covariance: Literal["none", "diagonal", "lowrank", "shrunk", "full"] = "diagonal"
    """Form of the covariance. `lowrank` stores `rank` directions and the remaining variance; `shrunk` is OAS (Chen et
    al. 2010).
    """
    rank: int = Field(default=16, ge=1, le=4096)
    """Number of directions stored by `lowrank`."""
    pooled: bool = False
    """One covariance for all classes (means stay per class): fewer bytes and far less leakage."""
    conv: Literal["auto", "units", "channels"] = "auto"
    """Record a conv layer's `units` (C x H x W) or its `channels` (spatial means); auto: units, up to 8,192 of them."""
    downsample: int = Field(default=1, ge=1, le=64)
    """Side of the squares over which images and conv layers are averaged first: fewer numbers, so less leakage."""
    scale: float = Field(default=1.0, gt=0)
    """Factor for activations before they are recorded; set from `temperature` for the last layer."""
    temperature: float = Field(default=8.0, gt=0)
    """Temperature by which the last layer's logits are divided before they are recorded (eq. 1)."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format of means and factors in the file."""

    needs_data: ClassVar[bool] = True

    def plan(self, network: Network, taps: Sequence[str]) -> dict[str, tuple[Moments, tuple[str, ...]]]:
        """One entry per tap. The last layer's logits are divided by the temperature."""
        top = tap_names.layers(network)[-1]
        scales = {tap: 1 / self.temperature if tap == top else 1.0 for tap in taps}
        for tap in taps:
            if self.scale not in (1.0, scales[tap]):
                raise UserError(
                    f"scale: got {self.scale:g}, expected none: it is {scales[tap]:g} for {tap!r}, by "
                    "`temperature`; leave it out"
                )
        return {tap: (self.model_copy(update={"scale": scales[tap]}), (tap,)) for tap in taps}

    def bind(self, network: Network, taps: Sequence[str]) -> MomentsAccumulator:
        (tap,) = taps
        return MomentsAccumulator(
            self, tap, tap_names.shapes(network, taps)[tap], len(network.spec.classes), network.spec
        )


class MomentsAccumulator:
    """Moments of one tap. States: count (K,), mean and rest (K, D), and the centred sums of squares that the
    covariance needs.
    """

    def __init__(
        self, settings: Moments, tap: str, shape: tuple[int, ...], classes: int, spec: InputSpec | None = None
    ):
        self.settings, self.tap, self.classes, self.spec = settings, tap, classes, spec
        coarse = settings.downsample
        self.shape = (shape[0], -(-shape[1] // coarse), -(-shape[2] // coarse)) if len(shape) == 3 else shape
        self.full_shape = shape
        shape = self.shape
        by_units = math.prod(shape) <= UNITS_AT_MOST if settings.conv == "auto" else settings.conv == "units"
        self.pool_positions = len(shape) > 1 and not by_units
        self.size = next(iter(shape)) if self.pool_positions else math.prod(shape)
        if settings.covariance in ("full", "shrunk") and self.size > UNITS_AT_MOST:
            raise UserError(
                f"a {settings.covariance} covariance of {self.size} units at {tap!r}, expected at most {UNITS_AT_MOST}; "
                "give `covariance='lowrank'`, or `conv='channels'`"
            )

    # -- measuring ------------------------------------------------------------------------------------------------

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        (a,) = activations
        if self.shape != self.full_shape:
            a = adaptive_avg_pool2d(a, (self.shape[1], self.shape[2]))
        signal = a.flatten(2).mean(2) if self.pool_positions else a.flatten(1)
        return [signal * self.settings.scale if self.settings.scale != 1 else signal]

    def reduce(self, activations: Sequence[Tensor], labels: Tensor) -> State:
        signal = self.observe([activations[0].detach().cpu().double()])[0]
        counts, means = group_means(signal, labels, self.classes)
        centred = signal - means[labels]
        residual = group_means(centred, labels, self.classes)[1]
        return {"count": counts, "mean": means, "rest": residual, **self._squares(centred, labels)}

    def merge(self, a: State, b: State) -> State:
        merged, between_rows = merge_means(a, b)
        between = self._squares(between_rows, torch.arange(self.classes))
        for name, value in between.items():
            merged[name] = value.add_(a[name]).add_(b[name])
        return merged

    def _squares(self, centred: Tensor, labels: Tensor) -> State:
        """Sums of squares of centred rows (N, D) per group: `square` (G, D), `outer` (G, D, D), `sketch` (G, D, s)."""
        kind, sums = self.settings.covariance, {}
        groups = [labels >= 0] if self.settings.pooled else [labels == c for c in range(self.classes)]
        parts = [centred[group] for group in groups]
        if kind in ("diagonal", "lowrank"):
            sums["square"] = torch.stack([part.square().sum(0) for part in parts])
        if kind == "lowrank":
            test = test_matrix(self.size, self.settings.rank)
            sums["sketch"] = torch.stack([part.T @ (part @ test) for part in parts])
        if kind in ("full", "shrunk"):
            sums["outer"] = torch.stack([part.T @ part for part in parts])
        return sums

    # -- storing --------------------------------------------------------------------------------------------------

    def finish(self, state: State) -> Summary:
        empty = (state["count"] == 0).nonzero().flatten().tolist()
        if empty:
            raise UserError(f"no samples of class {empty[0]}, expected at least 1 of each; give data with every class")
        count = state["count"]
        freedom = (count.sum() - self.classes if self.settings.pooled else count - 1).clamp(min=1).reshape(-1)
        summary = {"mean": state["mean"], **self._spread(state, freedom)}
        storage = getattr(torch, self.settings.storage)
        if self.settings.storage == "float16" and any(float(t.abs().max()) > 6e4 for t in summary.values()):
            raise UserError(f"activations of {self.tap!r} above 60000 in float16; give `storage='float32'`")
        return {"count": count.round().long()} | {name: t.to(storage) for name, t in summary.items()}

    def _spread(self, state: State, freedom: Tensor) -> Summary:
        kind = self.settings.covariance
        if kind == "diagonal":
            return {"variance": state["square"] / freedom[:, None]}
        if kind == "lowrank":
            test = test_matrix(self.size, self.settings.rank)
            factor = nystrom(state["sketch"] / freedom[:, None, None], test, self.settings.rank)
            remainder = state["square"] / freedom[:, None] - factor.square().sum(2)
            return {"factor": factor, "variance": remainder.clamp(min=0)}
        if kind == "full":
            return {"factor": _root(state["outer"] / freedom[:, None, None])}
        if kind == "shrunk":
            return _oas(state["outer"] / freedom[:, None, None], freedom)
        return {}

    def layout(self) -> Table:
        groups, size = 1 if self.settings.pooled else self.classes, self.size
        number = self.settings.storage
        tensors: Table = {"count": ("int64", (self.classes,)), "mean": (number, (self.classes, size))}
        if self.settings.covariance in ("diagonal", "lowrank", "shrunk"):
            tensors["variance"] = (number, (groups, size))
        if self.settings.covariance in ("lowrank", "full", "shrunk"):
            rank = self.settings.rank if self.settings.covariance == "lowrank" else size
            tensors["factor"] = (number, (groups, size, min(rank, size)))
        return tensors

    def check(self, summary: Summary) -> None:
        expected = self.layout()
        if "factor" in expected:
            number, (groups, size, largest_rank) = expected["factor"]
            rank = summary["factor"].shape[-1] if "factor" in summary and summary["factor"].ndim == 3 else 1
            expected["factor"] = (number, (groups, size, min(max(rank, 1), largest_rank)))
        got = table(summary)
        if got != expected:
            raise UserError(
                f"entry {self.tap!r} of the record differs in {difference(got, expected)}; record this network again"
            )
        subject = f"entry {self.tap!r} of the record"
        if "variance" in summary and float(summary["variance"].min()) < 0:
            raise UserError(f"{subject} has a variance below 0; get the record again")
        check_counts(summary["count"], subject)
        check_size(summary["mean"], subject, "mean")
        variance = None if self.settings.covariance == "none" else self.variance(summary)
        if variance is not None:
            check_size(variance, subject, "variance", LARGEST**2)
        if self.tap == tap_names.INPUT and self.spec is not None:
            scale = self.settings.scale
            pixels = None if variance is None else variance / scale**2
            check_pixels(summary["mean"].float() / scale, pixels, summary["count"], self.spec, subject)

    # -- using ----------------------------------------------------------------------------------------------------

    def sample(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> list[Tensor]:
        target = summary["mean"].float()[labels]
        group = torch.zeros_like(labels) if self.settings.pooled else labels
        if "factor" in summary:
            factor = summary["factor"].float()
            g = torch.randn(len(labels), factor.shape[2], generator=rng)
            for c in group.unique().tolist():
                target[group == c] += g[group == c] @ factor[c].T
        if "variance" in summary:
            e = torch.randn(len(labels), self.size, generator=rng)
            target = target + e * summary["variance"].float().sqrt()[group]
        return [target]

    def variance(self, summary: Summary) -> Tensor:
        """The variance of each unit per class, (K, D)."""
        total = torch.zeros(1 if self.settings.pooled else self.classes, self.size)
        if "variance" in summary:
            total = total + summary["variance"].float()
        if "factor" in summary:
            total = total + summary["factor"].float().square().sum(2)
        return total.expand(self.classes, self.size)

    def distance(self, summary: Summary, activations: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Mean over classes and units of ((m - mu) / sigma)^2 + ((s - sigma) / sigma)^2, which does not depend on the scale.

        0 for a batch with the recorded moments. The recorded data itself has them only if each class has its own covariance:
        `pooled` compares every class with the covariance of all, and `shrunk` with a shrunk one.

        Without a recorded covariance it is the mean of (m - mu)^2, in the layer's units.
        """
        signal = self.observe(activations)[0]
        sigma = self.variance(summary).to(signal.device).sqrt()
        unit = sigma.clamp(min=float(sigma.mean()) * 1e-2 + 1e-6)  # a dead unit is scaled by a hundredth of the others'
        unit = torch.ones_like(unit) if self.settings.covariance == "none" else unit
        parts = []
        for c in labels.unique().tolist():
            samples, mu = signal[labels == c], summary["mean"][c].float().to(signal.device)
            z = (samples - mu) / unit[c]
            parts.append(z.mean(0).square().mean())
            if self.settings.covariance != "none" and len(samples) > 1:
                spread = z.var(0).clamp(min=1e-12).sqrt()
                parts[-1] = parts[-1] + (spread - sigma[c] / unit[c]).square().mean()
        return torch.stack(parts).mean()

    def released_statistics(self, summary: Summary) -> float:
        counts = summary["count"].double()
        per_group = 0
        if "variance" in summary:
            per_group += self.size if self.settings.covariance != "shrunk" else 1
        if "factor" in summary:
            rank = summary["factor"].shape[2]
            per_group += self.size * rank - rank * (rank - 1) // 2
        group_size = float(counts.sum()) if self.settings.pooled else float(counts.min())
        return self.size / float(counts.min()) + per_group / group_size


def _root(covariance: Tensor) -> Tensor:
    """Factors (G, D, R) of covariances (G, D, D) with C = F F^T, by pivoted Cholesky, since a plain one needs full rank."""
    parts = []
    for matrix in covariance:
        packed, order, rank, _ = dpstrf(matrix.numpy(), lower=1, tol=float(matrix.diagonal().max()) * 1e-9)
        factor = torch.zeros(len(matrix), max(1, rank), dtype=torch.float64)
        factor[torch.from_numpy(order - 1).long()] = torch.from_numpy(np.tril(packed)[:, : max(1, rank)])
        parts.append(factor if float(matrix.diagonal().max()) > 0 else torch.zeros_like(factor))
    rank = max(factor.shape[1] for factor in parts)
    return torch.stack([pad(factor, (0, rank - factor.shape[1])) for factor in parts])


def _oas(covariance: Tensor, freedom: Tensor) -> Summary:
    """Oracle-approximating shrinkage towards tr(C) / D: (1 - rho) C + rho tr(C)/D I (Chen et al. 2010).

    rho is eq. 23 without its terms in 2 / D, as in scikit-learn; the two agree from about ten units on.
    """
    size = covariance.shape[1]
    level = covariance.diagonal(dim1=1, dim2=2).mean(1)
    alpha = covariance.square().mean((1, 2))
    top, bottom = alpha + level**2, (freedom + 1) * (alpha - level**2 / size)
    rho = torch.where(bottom > 0, (top / bottom.clamp(min=1e-300)).clamp(max=1.0), 1.0)
    variance = (rho * level)[:, None].expand(-1, size)
    return {"factor": _root(covariance * (1 - rho)[:, None, None]), "variance": variance.contiguous()}
