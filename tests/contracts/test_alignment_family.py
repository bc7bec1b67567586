"""Promises of every kind of alignment, over all that discovery finds."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from datafree._core.errors import UserError
from datafree.models import hooks as taps
from datafree.models.network import frozen
from datafree.synthesis.losses import alignment
from datafree.synthesis.losses.alignment import Alignment, Guide

KINDS = tuple(alignment.kinds())
STILL = {"translate": 0.0, "cutout": 0.0, "colour": 0.0, "bend": 0.0, "exposure": 0.0}
COUNT = 12


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def teacher(tiny):
    return tiny("linear")


def anchors(teacher, count=COUNT, classes=3, seed=0):
    """Pixels and labels, the first `classes` classes in turn."""
    pixels = torch.rand(count, *teacher.spec.shape, generator=torch.Generator().manual_seed(seed))
    return pixels, one_hot(torch.arange(count) % classes, len(teacher.spec.classes)).float()


def guide_of(kind, teacher, seed=0, **settings):
    classes = settings.pop("classes", 3)
    return alignment.from_name(kind, **settings).bind(teacher, *anchors(teacher, classes=classes), seed)


def features(teacher, pixels):
    with torch.no_grad(), frozen(teacher.module), taps.watch(teacher, (taps.FEATURES,)) as seen:
        teacher.logits(pixels)
        return seen[taps.FEATURES].clone()


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def state(network):
    hooks = [len(p._forward_hooks) + len(p._forward_pre_hooks) for p in network.module.modules()]
    flags = [p.training for p in network.module.modules()], [p.requires_grad for p in network.module.parameters()]
    return network.fingerprint(), hooks, flags, [p.grad for p in network.module.parameters()]


def test_there_are_four_kinds():
    assert set(KINDS) >= {"discriminator", "mmd", "coral", "means"}


def test_it_obeys_its_protocol_and_its_settings_go_through_a_file(kind, teacher):
    own = alignment.from_name(kind, translate=0.25)
    assert isinstance(own, Alignment)
    assert isinstance(own.bind(teacher, *anchors(teacher), 0), Guide)
    assert alignment.from_dict(own.model_dump(mode="json")) == own
    assert own.summary and "\n" not in own.summary and own.guidance > 0


def test_at_the_anchors_own_features_nothing_can_be_gained(kind, teacher):
    guide, (pixels, labels) = guide_of(kind, teacher, **STILL), anchors(teacher)
    order = torch.randperm(COUNT, generator=rng(3))
    here, classes = features(teacher, pixels)[order], labels.argmax(1)[order]
    if kind == "discriminator":  # the hinge loss of two equal halves is 2 at least, of halves apart it falls to 0
        assert all(guide.learn(here, classes, rng(step)) >= 2 - 1e-6 for step in range(30))
        apart = [guide.learn(here + 5, classes, rng(step)) for step in range(300)]
        assert apart[-1] < 0.5
        return
    assert float(guide.loss(here, classes, rng())) == pytest.approx(0, abs=1e-5)
    assert float(guide.loss(here + 1, classes, rng())) > 0.1


def test_descending_the_loss_brings_features_nearer_to_the_anchors_of_their_class(kind, teacher):
    fast = {"discriminator_rate": 0.01} if kind == "discriminator" else {}
    guide, (pixels, labels) = guide_of(kind, teacher, **STILL, **fast), anchors(teacher)
    there, classes = features(teacher, pixels), labels.argmax(1)
    spread = float(there.var(0).mean().sqrt())
    own = (there + spread * (4 + torch.randn(there.shape, generator=rng(1)))).requires_grad_()
    middle = lambda x: torch.stack([x[classes == c].mean(0) for c in range(3)])  # noqa: E731
    before = float((middle(own.detach()) - middle(there)).norm())
    adam = torch.optim.Adam([own], lr=0.05 * spread)
    for step in range(400):
        guide.learn(own, classes, rng(step))
        (own.grad,) = torch.autograd.grad(guide.loss(own, classes, rng(step)), own)
        adam.step()
    assert float((middle(own.detach()) - middle(there)).norm()) < 0.5 * before


def test_the_gradient_is_finite_and_reaches_every_guided_image(kind, teacher):
    guide = guide_of(kind, teacher)
    for scale in (0.1, 1.0, 1e3):
        own = (scale * torch.randn(9, 5, generator=rng())).requires_grad_()
        loss = guide.loss(own, torch.arange(9) % 3, rng())
        (gradient,) = torch.autograd.grad(loss, own)
        assert loss.shape == () and loss.isfinite() and gradient.isfinite().all()
        assert (gradient.abs().amax(1) > 1e-6).all()


def test_an_image_of_a_class_without_an_anchor_is_not_guided_and_changes_nothing(kind, teacher):
    guides = [guide_of(kind, teacher, classes=2) for _ in range(2)]
    own = torch.randn(9, 5, generator=rng()).requires_grad_()
    labels = torch.arange(9) % 3
    seen = labels < 2
    whole = guides[0].loss(own, labels, rng())
    (gradient,) = torch.autograd.grad(whole, own)
    assert not gradient[~seen].any() and (gradient[seen].abs().amax(1) > 0).all()
    assert torch.equal(whole, guides[1].loss(own[seen], labels[seen], rng()))
    assert guides[0].learn(own, labels, rng()) == guides[1].learn(own[seen], labels[seen], rng())
    alone = guides[0].loss(own[~seen], labels[~seen], rng())
    assert alone.item() == 0 and not torch.autograd.grad(alone, own)[0].any()
    assert guides[0].learn(own[~seen], labels[~seen], rng()) == 0


def test_loss_and_learning_leave_the_teacher_as_it_was_and_what_is_watched_as_it_is(kind, tiny):
    teacher = tiny("norm")
    teacher.module.train()
    before, pixels = state(teacher), torch.rand(6, *teacher.spec.shape)
    guide = guide_of(kind, teacher)
    with taps.watch(teacher, (taps.FEATURES, "bn")) as seen:
        with torch.no_grad(), frozen(teacher.module):
            teacher.logits(pixels)
        held = dict(seen)
        guide.loss(seen[taps.FEATURES], torch.arange(6) % 3, rng())
        guide.learn(seen[taps.FEATURES], torch.arange(6) % 3, rng())
        assert all(seen[name] is held[name] for name in held)
    assert state(teacher) == before


def test_features_are_not_changed_by_learning_and_torchs_global_stream_is_not_used(kind, teacher):
    before = torch.get_rng_state()
    guide, own = guide_of(kind, teacher), torch.randn(6, 5, generator=rng(), requires_grad=True)
    copy = own.detach().clone()
    guide.learn(own, torch.arange(6) % 3, rng())
    guide.loss(own, torch.arange(6) % 3, rng())
    assert own.grad is None and torch.equal(own.detach(), copy)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_guide_that_was_stopped_goes_on_to_the_same_bits(kind, teacher):
    def step(guide, index):
        own = torch.randn(9, 5, generator=rng(index))
        found = guide.learn(own, torch.arange(9) % 3, rng(index))
        return guide.loss(own, torch.arange(9) % 3, rng(index)).item(), found

    whole, own = guide_of(kind, teacher, seed=1), guide_of(kind, teacher, seed=1)
    for index in range(6):
        if index == 3:
            again = guide_of(kind, teacher, seed=99)
            again.load({name: tensor.clone() for name, tensor in own.state().items()})
            own = again
        assert step(whole, index) == step(own, index)
    a, b = whole.state(), own.state()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_nbytes_are_those_of_all_that_is_kept(kind, teacher):
    guide = guide_of(kind, teacher)
    guide.learn(torch.randn(9, 5, generator=rng()), torch.arange(9) % 3, rng())
    kept = sum(tensor.numel() * tensor.element_size() for tensor in guide.state().values())
    assert guide.nbytes() == kept >= COUNT * 16 * 4


def test_one_anchor_in_all_is_enough(kind, teacher):
    pixels, labels = anchors(teacher, count=1)
    guide = alignment.from_name(kind, **STILL).bind(teacher, pixels, labels, 0)
    own = torch.randn(4, 5, generator=rng()).requires_grad_()
    (gradient,) = torch.autograd.grad(guide.loss(own, torch.zeros(4, dtype=torch.long), rng()), own)
    assert gradient.isfinite().all() and gradient.any()


def test_a_state_of_other_anchors_is_refused(kind, teacher):
    other = alignment.from_name(kind).bind(teacher, *anchors(teacher, seed=5), 0)
    with pytest.raises(UserError, match="other anchors; repeat"):
        guide_of(kind, teacher).load(other.state())


BAD = {
    "got no anchor image, expected at least one; ": lambda x, y: (x[:0], y[:0]),
    "images of shape (1, 4, 3), expected (1, 4, 4)": lambda x, y: (x[..., :3], y),
    "pixels from ": lambda x, y: (x * 255, y),
    "labels of the anchors: got shape (12,), expected (12, 3)": lambda x, y: (x, y.argmax(1)),
    "labels of the anchors: got shape (11, 3), expected (12, 3)": lambda x, y: (x, y[1:]),
    "labels of the anchors: got rows that are not probabilities": lambda x, y: (x, 2 * y),
}


@pytest.mark.parametrize("line", BAD)
def test_bad_anchors_are_one_line(kind, line, teacher):
    with pytest.raises(UserError) as caught:
        alignment.from_name(kind).bind(teacher, *BAD[line](*anchors(teacher)), 0)
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="no kind of alignment 'mdd'; nearest: 'mmd'"):
        alignment.from_name("mdd")
