"""Promises of every term, over all that the folder holds."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
import torch

from datafree.models import hooks as taps
from datafree.records.divergence import stored_statistics
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.synthesis import losses
from datafree.synthesis.losses import Term, View, alignment
from datafree.synthesis.losses.match import bind_entries

NINE = {
    "BatchNormDivergence", "ClassBalance", "MatchMoments", "MatchTargets", "PixelNorm", "Smoothness",
    "TotalVariation", "TargetClass", "TargetLogit",
}  # fmt: skip
FORMS = ("forward", "reverse", "l2")


def family() -> dict[str, type[Term]]:
    found = {}
    for module in pkgutil.iter_modules(losses.__path__):
        for name, value in vars(importlib.import_module(f"{losses.__name__}.{module.name}")).items():
            if isinstance(value, type) and issubclass(value, Term) and not inspect.isabstract(value):
                found[name] = value
    return found


def test_there_are_nine_terms():
    assert family().keys() >= NINE


@pytest.fixture(scope="module")
def network(tiny):
    return tiny("linear")


CASES = [
    (name, settings)
    for name, cls in sorted(family().items())
    for settings in ([{"form": form} for form in FORMS] if "form" in inspect.signature(cls).parameters else [{}])
]


@pytest.fixture(params=CASES, ids=lambda case: "-".join((case[0], *case[1].values())))
def term(request, network, toy) -> Term:
    cls, settings = family()[request.param[0]], request.param[1]
    if "layers" in inspect.signature(cls).parameters:
        return cls(stored_statistics(network, record(network, toy(), [Moments()])), **settings)
    if "entries" in inspect.signature(cls).parameters:
        made = record(network, toy(), [Moments()])
        return cls(bind_entries(network, made, made.entries))
    if "guide" in inspect.signature(cls).parameters:
        return cls(alignment.from_name("discriminator").bind(network, torch.rand(3, 1, 4, 4), torch.eye(3), 0))
    return cls()


def see(network, term, x, labels) -> View:
    with taps.watch(network, term.taps, term.edits) as seen:
        return View(x, labels, network.logits(x), seen)


def state(network):
    hooks = [
        len(p._forward_hooks) + len(p._forward_pre_hooks) + len(p._backward_hooks) for p in network.module.modules()
    ]
    flags = [p.training for p in network.module.modules()], [p.requires_grad for p in network.module.parameters()]
    return network.fingerprint(), hooks, flags


def test_a_term_leaves_the_network_as_it_was_and_its_gradient_is_finite(term, network):
    before, x, labels = state(network), torch.rand(6, 1, 4, 4) * 3 - 1, torch.arange(6) % 3
    bound = term.bind(network, labels, torch.Generator().manual_seed(0))
    for pixels in (x, torch.zeros_like(x), torch.full_like(x, 1e4)):
        pixels = pixels.clone().requires_grad_()
        value = bound(see(network, bound, pixels, labels))
        assert value.shape == ()
        assert value.isfinite()
        (gradient,) = torch.autograd.grad(value, pixels, allow_unused=True, materialize_grads=True)
        assert gradient.isfinite().all()
    assert state(network) == before
    assert all(parameter.grad is None for parameter in network.module.parameters())


def test_binding_twice_with_one_stream_gives_the_same_term(term, network):
    labels, x = torch.arange(6) % 3, torch.rand(6, 1, 4, 4)
    values = [
        float(own(see(network, own, x, labels)).detach())
        for own in (term.bind(network, labels, torch.Generator().manual_seed(7)) for _ in range(2))
    ]
    assert values[0] == values[1]


@pytest.mark.parametrize("name", ["Smoothness", "TotalVariation"])
@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 1, 1, 1), (2, 1, 1, 5)])
def test_a_constant_image_costs_nothing_smooth(name, shape):
    x = torch.full(shape, 0.7)
    assert float(family()[name]()(View(x, torch.zeros(len(x)), torch.zeros(len(x), 3)))) == pytest.approx(0, abs=1e-12)


def test_targets_that_are_met_cost_nothing(network, toy):
    made = record(network, toy(), [Moments(temperature=1.0)])
    x, labels = torch.rand(5, 1, 4, 4), torch.zeros(5, dtype=torch.long)
    own = family()["MatchTargets"](bind_entries(network, made, made.entries))
    view = see(network, own, x, labels)
    met = type(own)(own.entries, targets=tuple((view.activations[tap],) for tap in own.taps), top="fc3")
    assert float(met(view).detach()) == 0
