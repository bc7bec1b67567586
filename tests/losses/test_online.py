"""What drives a generator: exact where a closed form is known, alive for any number of classes."""

from __future__ import annotations

import math

import pytest
import torch

from datafree.models import hooks
from datafree.synthesis.losses import View
from datafree.synthesis.losses.online import ConfidenceLoss, Disagreement, FeatureNorm, jensen_shannon


def logits(seed: int, classes: int = 10, scale: float = 3.0, count: int = 64):
    return scale * torch.randn(count, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
@pytest.mark.parametrize("t", [1.0, 3.0])
def test_jensen_shannon_is_its_definition(classes, t):
    a, b = logits(0, classes), logits(1, classes)
    p, q = (a / t).softmax(1), (b / t).softmax(1)
    mean = (p + q) / 2
    wanted = 0.5 * ((p * (p / mean).log()).sum(1) + (q * (q / mean).log()).sum(1))
    torch.testing.assert_close(jensen_shannon(a, b, t), wanted)
    torch.testing.assert_close(jensen_shannon(b, a, t), wanted)


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
def test_it_is_0_at_equality_and_ln_2_where_they_share_nothing(classes):
    a = logits(0, classes)
    assert float(jensen_shannon(a, a).abs().max()) < 1e-12
    sure = torch.zeros(2, classes)
    sure[0, 0] = sure[1, 1] = 1e4
    assert jensen_shannon(sure[:1], sure[1:]).item() == pytest.approx(math.log(2), abs=1e-6)
    assert float(jensen_shannon(logits(0, classes, 50.0), logits(1, classes, 50.0)).max()) <= math.log(2) + 1e-12


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_its_gradient_is_the_numerical_one_and_alive_however_many_classes(classes):
    a, b = logits(0, classes, count=3).requires_grad_(), logits(1, classes, count=3)
    assert torch.autograd.gradcheck(lambda x: jensen_shannon(x, b, 3.0).sum(), (a,), fast_mode=True)
    (gradient,) = torch.autograd.grad(jensen_shannon(a, b, 3.0).sum(), a)
    clamped = lambda x: (x / 3.0).softmax(1).clamp(0.01, 0.99)  # as a released version does it  # noqa: E731
    mean = (clamped(a) + clamped(b)) / 2
    released = 0.5 * ((clamped(a) * (clamped(a) / mean).log()).sum(1) + (clamped(b) * (clamped(b) / mean).log()).sum(1))
    (theirs,) = torch.autograd.grad(released.sum(), a)
    assert float(gradient.norm()) > 1e-3
    if classes == 1000:
        assert float(theirs.norm()) < 0.1 * float(gradient.norm())


def view(teacher, student=None, **seen):
    return View(torch.zeros(len(teacher), 1, 2, 2), torch.zeros(len(teacher)), teacher, seen, student)


def test_disagreement_is_less_the_more_they_differ_and_0_without_a_student():
    a, b = logits(0).float(), logits(1).float()
    for kind in ("js", "l1", "kl"):
        term = Disagreement(kind)
        assert float(term(view(a, a))) == pytest.approx(0, abs=1e-4)
        assert float(term(view(a, b))) < float(term(view(a, 0.9 * a + 0.1 * b))) < 0
        assert float(term(view(a))) == 0
    assert float(Disagreement("l1")(view(a, b))) == pytest.approx(-float((a - b).abs().mean(1).sum()), rel=1e-5)
    assert float(Disagreement("js", 1.0)(view(a, b))) >= -len(a) * math.log(2)


def test_one_hot_is_0_where_the_teacher_is_sure():
    sure = 1e4 * torch.eye(10)
    assert float(ConfidenceLoss()(view(sure))) == 0
    assert float(ConfidenceLoss()(view(torch.zeros(4, 10)))) == pytest.approx(4 * math.log(10), rel=1e-6)


@pytest.mark.parametrize("kind", ["linear", "norm"])
def test_features_are_what_the_last_layer_is_given(tiny, kind):
    network, x = tiny(kind), torch.rand(5, 1, 4, 4)
    with hooks.watch(network, FeatureNorm().taps) as seen, torch.no_grad():
        said = network.logits(x)
    last = network.module[-1]
    torch.testing.assert_close(last(seen[hooks.FEATURES]), said)
    wanted = -float(seen[hooks.FEATURES].abs().mean(1).sum())
    assert float(FeatureNorm()(view(said, features=seen[hooks.FEATURES]))) == pytest.approx(wanted, rel=1e-6)
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in network.module.modules())
