"""Terms: ``Term(view) -> scalar``, added and weighted into an Objective, one family for synthesis and distillation.

``3 * MatchMoments(...) + TotalVariation()`` is an Objective whose call gives the total and its named parts. A term is
immutable: `bind` returns the term for one batch, with what is drawn once for it (targets, dropout masks). A call changes
nothing; what a term learns, it learns in `learn`, which a loop calls after its own step with the view of that step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...models.hooks import Edit
from ...models.network import Network

__all__ = ["Objective", "Term", "View"]


@dataclass(frozen=True)
class View:
    """One forward pass as terms see it. `activations` has the taps that the terms asked for; `labels` are wanted ones."""

    pixels: Tensor
    """(N, C, H, W) in the spec's range."""
    labels: Tensor
    """(N,) the class each image is made for."""
    logits: Tensor
    """(N, classes) of the teacher."""
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    student: Tensor | None = None
    """(N, classes) of the student, where one takes part."""


class Term(ABC):
    """A scalar of a view: the sum over its images, so that an image's gradient does not depend on its batch."""

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps it looks at."""
        return ()

    @property
    def edits(self) -> Mapping[str, Edit]:
        """Changes to the teacher's forward pass that it needs, by tap."""
        return {}

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> Term:  # noqa: ARG002
        """The term for one batch of images made for `labels`."""
        return self

    @abstractmethod
    def __call__(self, view: View) -> Tensor: ...

    def learn(self, view: View) -> None:  # noqa: B027
        """One step of what the term itself learns, from the view that it was called with; most learn nothing."""

    def __rmul__(self, weight: float) -> Objective:
        return Objective(((float(weight), self),))

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective(((1.0, self),)) + other


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms."""

    parts: tuple[tuple[float, Term], ...]

    @property
    def taps(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tap for _, term in self.parts for tap in term.taps))

    @property
    def edits(self) -> dict[str, Edit]:
        return {tap: edit for _, term in self.parts for tap, edit in term.edits.items()}

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> Objective:
        return Objective(tuple((weight, term.bind(network, labels, rng)) for weight, term in self.parts))

    def __call__(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term's unweighted value by its class name."""
        values = [(weight, type(term).__name__, term(view)) for weight, term in self.parts]
        total = torch.stack([weight * value for weight, _, value in values]).sum()
        return total, {name: value.detach() for _, name, value in values}

    def learn(self, view: View) -> None:
        """Each term's own step, in order."""
        for _, term in self.parts:
            term.learn(view)

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective(self.parts + (other.parts if isinstance(other, Objective) else ((1.0, other),)))

    def __rmul__(self, weight: float) -> Objective:
        return Objective(tuple((float(weight) * own, term) for own, term in self.parts))
