"""AlignmentLoss: the class of an image, its own random numbers, its own learning step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from datafree.models import hooks
from datafree.models.network import frozen
from datafree.synthesis.losses import View, alignment
from datafree.synthesis.losses.alignment_loss import AlignmentLoss
from datafree.synthesis.losses.classes import TargetClass


class Noting:
    """A guide that notes what it is given."""

    def __init__(self):
        self.calls = []

    def loss(self, features, labels, rng):
        self.calls.append(("loss", features, labels, float(torch.rand((), generator=rng))))
        return features.square().sum()

    def learn(self, features, labels, rng):
        self.calls.append(("learn", features, labels, float(torch.rand((), generator=rng))))
        return 0.0

    nbytes = state = load = None


def view(count=4):
    features = torch.arange(2.0 * count).view(count, 2, 1).requires_grad_()
    logits = torch.eye(3)[torch.arange(count) % 3] * 5
    return View(torch.zeros(count, 1, 2, 2), torch.zeros(count, dtype=torch.long), logits, {hooks.FEATURES: features})


def bound(term, seed=0):
    return term.bind(None, torch.zeros(4, dtype=torch.long), torch.Generator().manual_seed(seed))


def test_a_guide_gets_flat_features_and_the_target_or_the_predicted_class():
    for source, classes in (("target", [0, 0, 0, 0]), ("predicted", [0, 1, 2, 0])):
        guide, one_view = Noting(), view()
        term = bound(AlignmentLoss(guide, source))
        assert term(one_view).requires_grad
        term.learn(one_view)
        assert [name for name, *_ in guide.calls] == ["loss", "learn"]
        assert all(call[1].shape == (4, 2) and call[2].tolist() == classes for call in guide.calls)
        assert guide.calls[0][1].requires_grad and not guide.calls[1][1].requires_grad


def test_an_objective_lets_each_of_its_terms_learn_and_others_learn_nothing():
    guide = Noting()
    objective = bound(2.0 * TargetClass() + 3.0 * AlignmentLoss(guide))
    total, parts = objective(view())
    assert float(total.detach()) == pytest.approx(2 * float(parts["TargetClass"]) + 3 * float(parts["AlignmentLoss"]))
    objective.learn(view())
    assert [name for name, *_ in guide.calls] == ["loss", "learn"]


def test_its_random_numbers_are_the_streams_that_it_is_bound_with_and_take_one_draw_of_it():
    def drawn(seed):
        guide = Noting()
        term = bound(AlignmentLoss(guide), seed)
        term(view()), term(view())
        return [call[3] for call in guide.calls]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(set(drawn(0))) == 2
    streams = [torch.Generator().manual_seed(0) for _ in range(2)]
    bound_twice = [AlignmentLoss(Noting()).bind(None, torch.zeros(n, dtype=torch.long), streams[n]) for n in (0, 1)]
    assert len(bound_twice) == 2 and torch.equal(streams[0].get_state(), streams[1].get_state())


def test_an_unbound_one_says_so():
    with pytest.raises(ValueError, match="call bind first"):
        AlignmentLoss(Noting())(view())


@pytest.mark.parametrize("kind", sorted(alignment.kinds()))
def test_it_stands_beside_terms_that_look_at_other_layers(kind, tiny):
    """A guide looks at its anchors in the middle of a view; what the others see must be the made images all the same."""
    network = tiny("norm")
    guide = alignment.from_name(kind).bind(network, torch.rand(3, *network.spec.shape), torch.eye(3), 0)
    x, labels = torch.rand(6, *network.spec.shape, requires_grad=True), torch.arange(6) % 3
    with frozen(network.module), hooks.watch(network, (hooks.FEATURES, "bn")) as seen:
        made = View(x, labels, network.logits(x), seen)
        held = seen["bn"].detach().clone()
        term = bound(AlignmentLoss(guide))
        (gradient,) = torch.autograd.grad(term(made), x)
        term.learn(made)
        assert torch.equal(seen["bn"].detach(), held)
    assert gradient.isfinite().all() and gradient.any()
    assert replace(term, rng=None) == AlignmentLoss(guide)
