"""Distances between made images and anchors against closed forms, and what the guide stands on: turns, scale, a twin."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import one_hot

from datafree._core.errors import UserError
from datafree.data.augmentation import Augmentation
from datafree.models import hooks
from datafree.synthesis.losses.alignment.anchors import Anchors
from datafree.synthesis.losses.alignment.coral import coral_distance
from datafree.synthesis.losses.alignment.discriminator import Discriminator, NormalisedMatrix, Projection
from datafree.synthesis.losses.alignment.means import class_means, mean_distance
from datafree.synthesis.losses.alignment.mmd import WIDTHS, mmd_distance

STILL = Augmentation(translate=0, cutout=0, colour=0, bend=0, exposure=0)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_class_means_are_those_of_the_classes_that_are_there_in_order():
    x, labels = torch.tensor([[1.0, 0.0], [3.0, 2.0], [10.0, 10.0]]), torch.tensor([4, 4, 1])
    means, counts = class_means(x, labels)
    assert means.tolist() == [[10.0, 10.0], [2.0, 1.0]] and counts.tolist() == [1, 2]


def test_a_shift_of_one_class_costs_its_mean_square_once_for_each_of_its_images():
    x, labels = draw(0, 6, 4), torch.tensor([0, 0, 0, 0, 2, 2])
    shift = torch.zeros_like(x)
    shift[:4] = torch.tensor([1.0, 2.0, 0.0, 3.0])
    assert float(mean_distance(x + shift, x, labels)) == pytest.approx(4 * (1 + 4 + 9) / 4)
    assert float(coral_distance(x + shift, x, labels)) == pytest.approx(4 * (1 + 4 + 9) / 4)  # covariances are equal


def test_scaling_about_the_class_means_costs_coral_the_change_of_covariance_alone():
    x, labels = draw(1, 10, 3), torch.arange(10) % 2
    centre = class_means(x, labels)[0][labels]
    left = x - centre
    covariance = left.T @ left / 10
    wanted = (
        10 * (9 - 1) ** 2 * covariance.square().sum() / (4 * 3**2)
    )  # three times as wide: nine times the covariance
    assert float(coral_distance(centre + 3 * left, x, labels)) == pytest.approx(float(wanted))
    assert float(coral_distance(centre + 3 * left, x, labels, weight=0.0)) == pytest.approx(0, abs=1e-12)


def test_mmd_is_its_definition_class_by_class():
    made, anchors, labels = draw(2, 7, 3), draw(3, 7, 3), torch.tensor([0, 1, 0, 1, 0, 0, 1])
    apart = torch.cdist(both := torch.cat([made, anchors]), both).square()
    median = apart[apart > 1e-9].median()

    def kernel(x, y):
        return sum((-torch.cdist(x, y).square() / (width * median)).exp() for width in WIDTHS).mean() / len(WIDTHS)

    wanted = 0.0
    for c in (0, 1):
        x, y = made[labels == c], anchors[labels == c]
        wanted += len(x) * float(kernel(x, x) + kernel(y, y) - 2 * kernel(x, y))
    assert float(mmd_distance(made, anchors, labels)) == pytest.approx(wanted, rel=1e-6)


def test_mmd_of_two_points_far_apart_is_that_of_one_distance():
    value = float(mmd_distance(torch.zeros(1, 2), torch.full((1, 2), 1e3), torch.zeros(1, dtype=torch.long)))
    assert value == pytest.approx(2 - 2 * sum(math.exp(-1 / width) for width in WIDTHS) / len(WIDTHS), rel=1e-5)


@pytest.mark.parametrize("distance", [mean_distance, coral_distance, mmd_distance])
def test_a_distance_is_0_for_the_same_images_in_any_order_and_its_gradient_is_the_numerical_one(distance):
    x, labels = draw(4, 8, 3), torch.arange(8) % 2
    order = torch.tensor([2, 1, 0, 3, 6, 7, 4, 5])
    assert float(distance(x[order], x, labels)) == pytest.approx(0, abs=1e-9)
    other = draw(5, 8, 3).requires_grad_()
    if distance is not mmd_distance:  # whose median is held still
        assert torch.autograd.gradcheck(lambda own: distance(own, x, labels), (other,), fast_mode=True)
    (gradient,) = torch.autograd.grad(distance(other, x, labels), other)
    assert gradient.isfinite().all() and gradient.any()


def test_a_matrix_is_divided_by_its_spectral_norm():
    own = NormalisedMatrix(5, 7, torch.Generator().manual_seed(0))
    for _ in range(200):
        own.iterate()
    assert torch.linalg.matrix_norm(own(), 2).item() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(own() * torch.linalg.matrix_norm(own.weight, 2), own.weight)


def test_a_discriminators_gradient_is_at_most_that_of_its_spectral_norms():
    net = Projection(6, 3, 8, torch.Generator().manual_seed(0))
    for _ in range(200):
        net.iterate()
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x, torch.arange(50) % 3).sum(), x)
    assert 0.01 < float(gradient.norm(dim=1).max()) <= 2 + 1e-3  # two heads, each of norm 1


def test_a_state_of_another_discriminator_is_refused(tiny):
    network, pixels = tiny("linear"), torch.rand(3, 1, 4, 4)
    guides = [Discriminator(discriminator_width=width).bind(network, pixels, torch.eye(3), 0) for width in (4, 8)]
    with pytest.raises(UserError, match="another discriminator; repeat"):
        guides[0].load(guides[1].state())


def test_anchors_of_a_class_take_turns_so_that_as_many_labels_show_each_once(tiny):
    network, pixels = tiny("linear"), torch.rand(7, 1, 4, 4)
    classes = torch.tensor([1, 0, 1, 2, 0, 1, 1])
    anchors = Anchors(network, pixels, one_hot(classes, 3).float(), STILL, 0)
    with torch.no_grad(), hooks.watch(network, (hooks.FEATURES,)) as seen:
        network.logits(pixels)
    wanted = anchors.standardise(seen[hooks.FEATURES])
    for seed in range(5):
        found = anchors.features(classes, torch.Generator().manual_seed(seed))
        for c in range(3):
            torch.testing.assert_close(found[classes == c].sort(0)[0], wanted[classes == c].sort(0)[0])
    ones = anchors.features(torch.zeros(400, dtype=torch.long), torch.Generator())
    torch.testing.assert_close(ones.mean(0), wanted[classes == 0].mean(0))


def test_anchors_as_shown_have_mean_0_and_mean_variance_1(tiny):
    anchors = Anchors(tiny("linear"), torch.rand(4, 1, 4, 4), torch.eye(3)[[0, 1, 2, 1]], STILL, 0)
    shown = anchors.features(torch.tensor([0, 1, 2, 1]), torch.Generator())
    torch.testing.assert_close(shown.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    assert float(shown.var(0, correction=0).mean()) == pytest.approx(1, rel=1e-4)


def test_soft_labels_stand_for_their_most_likely_class(tiny):
    soft = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.3, 0.6]])
    assert Anchors(tiny("linear"), torch.rand(2, 1, 4, 4), soft, STILL, 0).counts.tolist() == [1, 0, 1]


def test_one_anchor_a_class_is_never_shown_twice_alike(tiny):
    anchors = Anchors(tiny("linear"), torch.rand(3, 1, 4, 4), torch.eye(3), Augmentation(translate=0.5), 0)
    found = anchors.features(torch.zeros(64, dtype=torch.long), torch.Generator())
    assert len(found.unique(dim=0)) > 10


def test_anchors_hold_no_second_copy_of_the_weights(tiny):
    network = tiny("norm")
    twin = Anchors(network, torch.rand(3, 1, 4, 4), torch.eye(3), STILL, 0).teacher.module
    mine, theirs = (
        [own.data_ptr() for own in (*m.parameters(), *m.buffers()) if own.numel()] for m in (network.module, twin)
    )
    assert mine == theirs and twin is not network.module
