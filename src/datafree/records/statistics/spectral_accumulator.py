"""The accumulator of the spectral statistics: the largest coefficients of a graph signal, stored with their indices."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from ..._core.errors import UserError
from ..._core.seeds import stream
from ..graph import Basis, Graph, fourier
from . import State, Summary, Table, difference, table
from .limits import LARGEST, check_counts, check_size
from .merge import group_means, shift_weights
from .sketch import nystrom, test_matrix

__all__ = ["SpectralAccumulator"]

SAME_BASIS = 1e-3
"""Largest difference of the coefficients of standard normal noise between two machines with the same basis."""
EXAMPLE_RELEASE = 20.0
"""Statistics per sample that forecast an AUC of 0.999."""


class _Settings(Protocol):
    @property
    def kind(self) -> str: ...
    @property
    def fraction(self) -> float: ...
    @property
    def signal(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def examples(self) -> int: ...


class SpectralAccumulator:
    """Coefficients of one graph. K classes, n vertices, k kept coefficients, N examples.

    States: count (K,) and, by signal, class-mean: mean (K, n) over vertices; class-moments: mean (K, n), square (K, n)
    and sketch (K, n, s) over coefficients; examples: key (K, N) and signal (K, N, n).
    Summaries: count (K,), check (n,), index (K, k) and mean (K, k); class-moments also factor (K, k, r) and variance
    (K, k); examples: index (K, N, k) and value (K, N, k) instead of index and mean.
    """

    def __init__(self, settings: _Settings, graph: Graph, classes: int):
        self.settings, self.graph, self.classes = settings, graph, classes
        self.size = graph.vertices
        self.coefficients = max(1, round(settings.fraction * self.size))
        self._copies: dict[tuple[torch.device, torch.dtype], Basis] = {}

    @cached_property
    def basis(self) -> Basis:
        """Derived from the weights at first use, and cached in this accumulator."""
        return fourier(self.graph)

    def basis_on(self, like: Tensor) -> Basis:
        """The basis on a tensor's device, in its number format."""
        key = (like.device, like.dtype)
        if key not in self._copies:
            self._copies[key] = self.basis.to(*key)
        return self._copies[key]

    # -- measuring ------------------------------------------------------------------------------------------------

    def observe(self, activations: Sequence[Tensor]) -> list[Tensor]:
        return self.graph.observe(activations)

    def reduce(self, activations: Sequence[Tensor], labels: Tensor) -> State:
        signal = torch.cat(self.observe([a.detach().cpu().double() for a in activations]), 1)
        if self.settings.signal == "examples":
            return self._choose(signal, labels)
        moments = self.settings.signal == "class-moments"
        signal = self.basis.analyse(signal) if moments else signal
        count, mean = group_means(signal, labels, self.classes)
        squares = self._squares(signal - mean[labels], labels) if moments else {}
        return {"count": count, "mean": mean, **squares}

    def merge(self, a: State, b: State) -> State:
        count = a["count"] + b["count"]
        if self.settings.signal == "examples":
            key, signal = (torch.cat([a[name], b[name]], 1) for name in ("key", "signal"))
            return {"count": count, **self._smallest(key, signal)}
        share, weight = shift_weights(a["count"], b["count"])
        shift = b["mean"] - a["mean"]
        merged = {"count": count, "mean": a["mean"] + shift * share[:, None]}
        if self.settings.signal == "class-moments":
            between = self._squares(shift * weight.sqrt()[:, None], torch.arange(self.classes))
            merged |= {name: value.add_(a[name]).add_(b[name]) for name, value in between.items()}
        return merged

    def _squares(self, centred: Tensor, labels: Tensor) -> State:
        """Per class, of centred rows (N, n): sums of squares `square` (K, n) and the `sketch` of outer products (K, n,
        s).
        """
        test = test_matrix(self.size, self.settings.rank)
        parts = [centred[labels == c] for c in range(self.classes)]
        sketch = torch.stack([part.T @ (part @ test) for part in parts])
        return {"square": torch.stack([part.square().sum(0) for part in parts]), "sketch": sketch}

    # -- choosing examples ----------------------------------------------------------------------------------------

    def _choose(self, signal: Tensor, labels: Tensor) -> State:
        """The N examples per class with the smallest keys, which depend on no order and no split of the data."""
        keys, count = self._keys(signal), torch.bincount(labels, minlength=self.classes).double()
        chosen = [
            self._smallest(keys[members][None], signal[members][None])
            for members in (labels == c for c in range(self.classes))
        ]
        return {"count": count} | {name: torch.cat([part[name] for part in chosen]) for name in ("key", "signal")}

    def _keys(self, signal: Tensor) -> Tensor:
        """(N,) in [0, 0.5]: a continuous hash of each signal, so that rounding in the network rarely changes the choice."""
        direction = torch.randn(self.size, generator=stream(2017, "examples", self.size), dtype=torch.float64)
        turns = 160 * (signal @ direction) / signal.norm(dim=1).clamp(min=1e-300)
        return (turns - turns.floor() - 0.5).abs()

    def _smallest(self, key: Tensor, signal: Tensor) -> State:
        """The N smallest of keys (G, M) with their signals (G, M, n), in ascending order; missing ones have an
        infinite key.
        """
        missing = max(0, self.settings.examples - key.shape[1])
        key = torch.cat([key, key.new_full((len(key), missing), torch.inf)], 1)
        signal = torch.cat([signal, signal.new_zeros(len(key), missing, self.size)], 1)
        order = key.argsort(dim=1, stable=True)[:, : self.settings.examples]
        return {"key": key.gather(1, order), "signal": signal.gather(1, order[..., None].expand(-1, -1, self.size))}

    # -- storing --------------------------------------------------------------------------------------------------

    def finish(self, state: State) -> Summary:
        empty = (state["count"] == 0).nonzero().flatten().tolist()
        if empty:
            raise UserError(f"no samples of class {empty[0]}, expected at least 1 of each; give data with every class")
        finishers = {"class-mean": self._means, "class-moments": self._moments, "examples": self._examples}
        tensors = finishers[self.settings.signal](state)
        return {"count": state["count"].round().long(), "check": self._check_vector(), **tensors}

    def _means(self, state: State) -> Summary:
        mean = self.basis.analyse(state["mean"])
        index = self._largest(mean.abs())
        return {"index": index.int(), "mean": mean.gather(1, index).float()}

    def _moments(self, state: State) -> Summary:
        index = self._largest(state["mean"].square() + state["square"] / state["count"][:, None])
        freedom = (state["count"] - 1).clamp(min=1)[:, None]
        test = test_matrix(self.size, self.settings.rank)
        factors = nystrom(state["sketch"] / freedom[..., None], test, test.shape[1])  # (K, n, s)
        rows = factors.gather(1, index[..., None].expand(-1, -1, factors.shape[2]))
        left_vectors, singular, _ = torch.linalg.svd(rows, full_matrices=False)
        factor = (left_vectors * singular[:, None])[..., : self.settings.rank]  # (K, k, r)
        spread = (state["square"] / freedom).gather(1, index) - factor.square().sum(2)
        mean = state["mean"].gather(1, index)
        tensors = {"mean": mean, "factor": factor.contiguous(), "variance": spread.clamp(min=0)}
        return {"index": index.int()} | {name: tensor.float() for name, tensor in tensors.items()}

    def _examples(self, state: State) -> Summary:
        flat = self.basis.analyse(state["signal"].flatten(0, 1))
        index = self._largest(flat.abs())
        shape = (self.classes, self.settings.examples, self.coefficients)
        return {"index": index.int().reshape(shape), "value": flat.gather(1, index).float().reshape(shape)}

    def _largest(self, size: Tensor) -> Tensor:
        """Indices (G, k) of the k largest of sizes (G, n), ascending."""
        return size.topk(self.coefficients, dim=1).indices.sort(1).values

    def _check_vector(self) -> Tensor:
        """(n,): coefficients of fixed noise, which show whether two machines derive the same basis."""
        noise = torch.randn(1, self.size, generator=stream(2017, "check", self.size), dtype=torch.float64)
        return self.basis.analyse(noise)[0].float()

    # -- checking -------------------------------------------------------------------------------------------------

    def check(self, summary: Summary) -> None:
        got, expected = table(summary), self.layout()
        if got != expected:
            raise UserError(f"{self._description} differs in {difference(got, expected)}; record this network again")
        check_counts(summary["count"], self._description)
        for name, tensor in summary.items():  # the basis is orthonormal, so a coefficient is at most the signal's norm
            if tensor.is_floating_point():
                power = 2 if name == "variance" else 1
                check_size(tensor, self._description, name, (LARGEST * self.size**0.5) ** power)
        if not all(bool(t.isfinite().all()) for t in summary.values()):
            raise UserError(f"{self._description} has NaN or infinity; get the record again")
        if "variance" in summary and float(summary["variance"].min()) < 0:
            raise UserError(f"{self._description} has a variance below 0; get the record again")
        index = summary["index"].long().flatten(0, -2).sort(1).values
        if int(index.min()) < 0 or int(index.max()) >= self.size or bool((index[:, 1:] == index[:, :-1]).any()):
            raise UserError(
                f"{self._description} has a coefficient twice, or one beyond its {self.size}; get the record again"
            )

    def ready(self, summary: Summary) -> None:
        """Derives the basis if needed, and raises UserError if it differs from the publisher's."""
        self._check_basis(summary["check"], summary["index"].long().unique())

    def layout(self) -> Table:
        groups: tuple[int, ...] = (self.classes, self.coefficients)
        expected: Table = {"count": ("int64", (self.classes,)), "check": ("float32", (self.size,))}
        if self.settings.signal == "examples":
            groups = (self.classes, self.settings.examples, self.coefficients)
            return expected | {"index": ("int32", groups), "value": ("float32", groups)}
        expected |= {"index": ("int32", groups), "mean": ("float32", groups)}
        if self.settings.signal == "class-moments":
            factor = (*groups, min(self.settings.rank, self.coefficients))
            expected |= {"factor": ("float32", factor), "variance": ("float32", groups)}
        return expected

    def _check_basis(self, recorded: Tensor, indices: Tensor) -> None:
        difference_of_noise = float((recorded - self._check_vector())[indices].abs().max())
        if difference_of_noise > SAME_BASIS:
            raise UserError(
                f"the Fourier basis of {self._description} is not the same on this machine as where it was recorded "
                "(coefficients of "
                f"noise differ by {difference_of_noise:.2g}, expected below {SAME_BASIS:g}); use another torch build, "
                "or record the statistic 'moments'"
            )

    @property
    def _description(self) -> str:
        return f"the record's {self.settings.kind} entry of {', '.join(self.graph.taps)}"

    # -- using ----------------------------------------------------------------------------------------------------

    def sample(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> list[Tensor]:
        """Signals from drawn coefficients: the class mean, mu + F g + sqrt(variance) e, or an example."""
        index, value = self._draw(summary, labels, rng)
        coefficients = torch.zeros(len(labels), self.size).scatter_(1, index, value)
        return self.graph.split(self.basis_on(coefficients).synthesise(coefficients))

    def _draw(self, summary: Summary, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Indices and values (N, k) of one draw per label."""
        if self.settings.signal == "examples":
            stored = summary["count"].clamp(max=self.settings.examples)[labels]
            example = (torch.rand(len(labels), generator=rng, dtype=torch.float64) * stored).long()
            return summary["index"][labels, example].long(), summary["value"][labels, example]
        value = summary["mean"][labels]
        if self.settings.signal == "class-moments":
            g = torch.randn(len(labels), summary["factor"].shape[2], generator=rng)
            e = torch.randn(value.shape, generator=rng)
            value = value + e * summary["variance"].sqrt()[labels]
            for c in labels.unique().tolist():
                value[labels == c] += g[labels == c] @ summary["factor"][c].T
        return summary["index"][labels].long(), value

    def distance(self, summary: Summary, activations: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Squared error of the stored coefficients as a share of their recorded energy, averaged over classes.

        The batch's class mean is compared with the recorded one; for `examples`, every image with the nearest recorded
        example, averaged over images.
        """
        signal = torch.cat(self.observe(activations), 1)
        basis, parts = self.basis_on(signal), []
        for c in labels.unique().tolist():
            members = signal[labels == c]
            if self.settings.signal == "examples":
                parts.append(self._to_nearest(summary, basis.analyse(members), c))
            else:
                mean = summary["mean"][c].to(signal)
                measured = basis.analyse(members.mean(0, keepdim=True))[0, summary["index"][c].long().to(signal.device)]
                parts.append((measured - mean).square().sum() / mean.square().sum().clamp(min=1e-30))
        return torch.stack(parts).mean()

    def _to_nearest(self, summary: Summary, coefficients: Tensor, c: int) -> Tensor:
        stored = min(int(summary["count"][c]), self.settings.examples)
        index = summary["index"][c, :stored].long().to(coefficients.device)
        value = summary["value"][c, :stored].to(coefficients)
        distances = [
            (coefficients[:, i] - v).square().sum(1) / v.square().sum().clamp(min=1e-30) for i, v in zip(index, value)
        ]
        return torch.stack(distances).amin(0).mean()

    def released_statistics(self, summary: Summary) -> float:
        """Stored numbers per class divided by its samples. The choice of indices is not counted.

        An example's coefficients are k statistics of a single sample, whose membership is certain, so the forecast is an AUC
        of at least 0.999.
        """
        fewest = float(summary["count"].min())
        if self.settings.signal == "examples":
            return max(self.coefficients * min(self.settings.examples, fewest) / fewest, EXAMPLE_RELEASE)
        numbers = self.coefficients
        if self.settings.signal == "class-moments":
            rank = summary["factor"].shape[2]
            numbers += self.coefficients * rank - rank * (rank - 1) // 2 + self.coefficients
        return numbers / fewest
