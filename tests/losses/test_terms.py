"""Terms and objectives: their values on small cases, and that they add up."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence

from datafree.models import hooks
from datafree.records.divergence import StoredStatistics
from datafree.records.record import record
from datafree.records.statistics.moments import Moments
from datafree.synthesis.losses import Objective, View
from datafree.synthesis.losses.batchnorm import BatchNormDivergence
from datafree.synthesis.losses.classes import ClassBalance, TargetClass, TargetLogit
from datafree.synthesis.losses.match import MatchMoments, MatchTargets, bind_entries
from datafree.synthesis.losses.priors import PixelNorm, Smoothness, TotalVariation


def view(pixels=None, logits=None, labels=None, **activations) -> View:
    pixels = torch.zeros(2, 1, 4, 4) if pixels is None else pixels
    labels = torch.zeros(len(pixels), dtype=torch.long) if labels is None else labels
    return View(pixels, labels, torch.zeros(len(pixels), 3) if logits is None else logits, activations)


def test_total_variation_of_one_step_is_its_square_over_the_pixels():
    x = torch.zeros(2, 1, 4, 4)
    x[0, :, :, 2:] = 3.0
    assert float(TotalVariation()(view(x))) == pytest.approx(4 * 9 / 16)


def test_the_pixel_norm_is_the_sum_over_images_of_the_mean_square():
    assert float(PixelNorm()(view(torch.full((3, 2, 4, 4), 0.5)))) == pytest.approx(3 * 0.25)


def test_the_target_class_is_the_negative_log_probability_summed():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
    wanted = -Categorical(logits=logits).log_prob(labels).sum()
    torch.testing.assert_close(TargetClass()(view(torch.zeros(5, 1, 2, 2), logits, labels)), wanted)
    sure = torch.full((2, 3), -1e4)
    sure[:, 0] = 1e4
    assert float(TargetClass()(view(logits=sure))) == 0


def test_the_wanted_logit_is_the_negative_logit_summed_whatever_the_other_logits():
    logits = torch.tensor([[2.0, -1.0, 9.0], [0.5, 3.0, 7.0]])
    labels = torch.tensor([0, 1])
    assert float(TargetLogit()(view(logits=logits, labels=labels))) == -5.0
    assert float(TargetLogit()(view(logits=logits + torch.tensor([[0.0, 4, 4], [4, 0, 4]]), labels=labels))) == -5.0


def batch_norm_case():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, 4, 4, generator=rng), 2 * torch.randn(2, 5, generator=rng) + 1
    layers = (
        StoredStatistics("a", torch.zeros(3), torch.ones(3)),
        StoredStatistics("b", torch.full((5,), 0.5), torch.full((5,), 2.0)),
    )
    return layers, a, b


@pytest.mark.parametrize("form", ["forward", "reverse"])
def test_the_batch_norm_divergence_is_the_sum_over_layers_and_channels_of_kls_times_the_images(form):
    layers, a, b = batch_norm_case()
    wanted = 0.0
    for own, rows in zip(layers, (a.transpose(0, 1).flatten(1), b.T)):
        stored = Normal(own.mean, (own.variance + own.epsilon).sqrt())
        measured = Normal(rows.mean(1), (rows.var(1, correction=0) + own.epsilon).sqrt())
        pair = (stored, measured) if form == "forward" else (measured, stored)
        wanted += 2 * float(kl_divergence(*pair).sum())
    assert float(BatchNormDivergence(layers, form)(view(a=a, b=b))) == pytest.approx(wanted, rel=1e-5)


def test_the_l2_form_of_the_batch_norm_divergence_is_the_sum_of_norms_and_not_of_squares():
    layers, a, b = batch_norm_case()
    wanted = 0.0
    for own, rows in zip(layers, (a.transpose(0, 1).flatten(1), b.T)):
        apart = rows.mean(1) - own.mean, rows.var(1, correction=0) - own.variance
        wanted += 2 * sum(float(own.norm()) for own in apart)
    assert float(BatchNormDivergence(layers, "l2")(view(a=a, b=b))) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("form", ["forward", "reverse", "l2"])
def test_a_batch_shown_twice_costs_twice_and_one_with_the_stored_statistics_nothing(form):
    layers, a, b = batch_norm_case()
    term = BatchNormDivergence(layers, form)
    once = float(term(view(a=a, b=b)))
    double = view(torch.zeros(4, 1, 4, 4), a=torch.cat([a, a]), b=torch.cat([b, b]))
    assert float(term(double)) == pytest.approx(2 * once, rel=1e-5)
    met = tuple(
        StoredStatistics(
            tap, own.transpose(0, 1).flatten(1).mean(1), own.transpose(0, 1).flatten(1).var(1, correction=0)
        )
        for tap, own in (("a", a), ("b", b))
    )
    assert float(BatchNormDivergence(met, form)(view(a=a, b=b))) == pytest.approx(0, abs=1e-5)


def test_class_balance_is_lowest_where_classes_are_equal():
    sure = 1e3 * torch.eye(3)
    same = sure[[0, 0, 0]]
    pixels = torch.zeros(3, 1, 2, 2)
    assert float(ClassBalance()(view(pixels, sure))) == pytest.approx(-3 * math.log(3))
    assert float(ClassBalance()(view(pixels, same))) == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def network(tiny):
    return tiny("linear")


@pytest.fixture(scope="module")
def made(network, toy):
    return record(network, toy(), [Moments(covariance="full", temperature=2.0)])


def seen(network, x, labels) -> View:
    with hooks.watch(network, hooks.layers(network)) as found:
        logits = network.logits(x)
    return View(x, labels, logits, found)


@pytest.mark.parametrize("relu_logits", [True, False])
def test_targets_are_matched_by_the_formula_of_the_paper(network, made, relu_logits):
    x, labels = torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    term = MatchTargets(bind_entries(network, made, made.entries), relu_logits=relu_logits)
    bound = term.bind(network, labels, torch.Generator().manual_seed(0))
    own, wanted = seen(network, x, labels), 0.0
    for (tap, entry), (target,) in zip(made.entries.items(), bound.targets):
        assert target.shape == (4, entry.summary["mean"].shape[1])
        a = own.activations[tap] / (2.0 if tap == "fc3" else 1.0)
        if tap != "fc3" or relu_logits:
            a, target = a.relu(), target.relu()
        wanted = wanted + (a - target).square().sum() / a.shape[1]
    torch.testing.assert_close(bound(own), wanted)
    assert term.targets == ()


def test_a_dropout_mask_is_held_and_scaled_and_not_drawn_for_the_logits(network, made):
    x, labels = torch.rand(400, 1, 4, 4), torch.arange(400) % 3
    term = MatchTargets(bind_entries(network, made, made.entries), dropout=0.25)
    bound = term.bind(network, labels, torch.Generator().manual_seed(0))
    assert bound.masks.keys() == bound.edits.keys() == {"fc1", "fc2"}
    mask = bound.masks["fc1"]
    assert mask.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float(mask.mean()) == pytest.approx(1, abs=0.03)
    with hooks.watch(network, term.taps, bound.edits) as found:
        network.logits(x)
    torch.testing.assert_close(found["fc1"], network.module.fc1(x.flatten(1)) * mask)
    with hooks.watch(network, term.taps, bound.edits) as again:
        network.logits(x)
    assert torch.equal(found["fc2"], again["fc2"])


def test_an_images_gradient_does_not_depend_on_its_batch(network, made):
    x, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    term = MatchTargets(bind_entries(network, made, made.entries))
    bound = term.bind(network, labels, torch.Generator().manual_seed(0))
    terms = [TargetClass(), TotalVariation(), PixelNorm(), Smoothness()]

    def gradient(own, targets, term) -> torch.Tensor:
        pixels = x[own].clone().requires_grad_()
        if isinstance(term, MatchTargets):
            term = MatchTargets(term.entries, targets=targets, top="fc3")
        return torch.autograd.grad(term(seen(network, pixels, labels[own])), pixels)[0]

    some = tuple((group[0][2:3],) for group in bound.targets)
    for term in (bound, *terms):
        alone, together = gradient([2], some, term), gradient(range(6), bound.targets, term)
        torch.testing.assert_close(alone[0], together[2])
        assert alone.abs().sum() > 0


def test_the_moments_term_is_zero_on_the_data_that_was_recorded(network, toy):
    data = toy()
    whole = record(network, data, [Moments(covariance="full", temperature=1.0)])
    term = MatchMoments(bind_entries(network, whole, whole.entries))
    x = data.pixels(range(60))
    with torch.no_grad():
        assert float(term(seen(network, x, data.labels))) < 1e-5
        assert float(term(seen(network, 1 - x, data.labels))) > 1


def test_objectives_add_and_weigh_terms():
    x = torch.rand(2, 1, 4, 4)
    a, b = TotalVariation(), PixelNorm()
    objective = 2 * (3 * a + b) + b
    assert isinstance(objective, Objective)
    total, parts = objective(view(x))
    assert float(total) == pytest.approx(6 * float(a(view(x))) + 3 * float(b(view(x))), rel=1e-5)
    assert parts == {"TotalVariation": a(view(x)), "PixelNorm": b(view(x))}
    assert (a + b).parts == ((1.0, a), (1.0, b))
