"""Losses: terms ``Term(view) -> scalar``, weighted and added into an Objective, for synthesis and distillation.

``3 * MatchMoments(...) + TotalVariation()`` is an Objective. Calling it returns the total and each term's value by
name. A term is immutable: `bind` returns the term for one batch, with what is drawn once per batch (targets, dropout
masks). A call has no side effects. A term that learns does so in `learn`, which the loop calls after its own step with
that step's view.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..._core.errors import UserError, cut
from ..._core.plugins import class_by_name
from ...models.hooks import Edit, Reduction
from ...models.network import Network

__all__ = ["Objective", "Term", "View", "term_from_name"]


@dataclass(frozen=True)
class View:
    """One forward pass as seen by the terms. `activations` holds the taps that the terms need."""

    pixels: Tensor
    """(N, C, H, W) in the spec's range."""
    labels: Tensor
    """(N,) target class of each image."""
    logits: Tensor
    """(N, classes) of the teacher."""
    activations: Mapping[str, Tensor] = field(default_factory=dict)
    student: Tensor | None = None
    """(N, classes) logits of the student, if there is one."""
    reduced: Mapping[str, list[Any]] = field(default_factory=dict)
    """Tap -> what its reduction returned, once per call of the layer, for the taps that terms reduce."""


class Term(ABC):
    """A scalar of a view: a sum over images, so that an image's gradient does not depend on the batch size."""

    @property
    def taps(self) -> tuple[str, ...]:
        """The taps whose activations the term needs."""
        return ()

    @property
    def edits(self) -> Mapping[str, Edit]:
        """Changes to the teacher's forward pass that the term needs, by tap."""
        return {}

    @property
    def reductions(self) -> Mapping[str, Reduction]:
        """For taps of which the term needs less than the activation: tap -> function of it, which `view.reduced` has the
        results of. The term must take the activation too, in case that another term needs it.
        """
        return {}

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> Term:  # noqa: ARG002
        """The term for one batch of images with target classes `labels` (N,)."""
        return self

    @abstractmethod
    def __call__(self, view: View) -> Tensor: ...

    def learn(self, view: View) -> None:  # noqa: B027
        """One training step of the term itself, from the view it was called with. Most terms do not learn."""

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

    @property
    def reductions(self) -> dict[str, Reduction]:
        """Those of the terms, for taps that one term alone needs."""
        terms = [term for _, term in self.parts]
        users = Counter(tap for term in terms for tap in set(term.taps))
        return {tap: function for term in terms for tap, function in term.reductions.items() if users[tap] == 1}

    def bind(self, network: Network, labels: Tensor, rng: torch.Generator) -> Objective:
        return Objective(tuple((weight, term.bind(network, labels, rng)) for weight, term in self.parts))

    def __call__(self, view: View) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, and each term's unweighted value by its class name."""
        values = [(weight, type(term).__name__, _scalar(term, view)) for weight, term in self.parts]
        total = torch.stack([weight * value for weight, _, value in values]).sum()
        return total, {name: value.detach() for _, name, value in values}

    def learn(self, view: View) -> None:
        """Calls `learn` of each term, in order."""
        for _, term in self.parts:
            term.learn(view)

    def __add__(self, other: Term | Objective) -> Objective:
        return Objective(self.parts + (other.parts if isinstance(other, Objective) else ((1.0, other),)))

    def __rmul__(self, weight: float) -> Objective:
        return Objective(tuple((float(weight) * factor, term) for factor, term in self.parts))


def _scalar(term: Term, view: View) -> Tensor:
    """The term's value. Raises UserError unless it is one number as a tensor."""
    value = term(view)
    if not isinstance(value, Tensor) or value.ndim:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise UserError(
            f"the loss {type(term).__name__} returns {got}, expected a tensor of one number, such as .sum(); "
            "correct its __call__"
        )
    return value


def term_from_name(name: str) -> Term:
    """The loss that `file.py:Class` or `package.module:Class` names, made without arguments.

    The name must be one that the user typed, since its code is run. Raises UserError where the class is missing,
    fails, or is no `Term`.
    """
    kind = class_by_name(name, "loss")
    if kind is None:
        raise UserError(f"no loss {cut(name)!r}, expected file.py:Class or package.module:Class; correct the name")
    if not issubclass(kind, Term):
        raise UserError(f"{name}: {kind.__name__} is no loss, expected a subclass of Term; give it that base")
    try:
        return kind()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"{name}: {kind.__name__}() fails with {reason[:300]}; expected a loss that is made without arguments; give its "
            "fields defaults"
        ) from error
