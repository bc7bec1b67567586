"""Reconstruction by gradient: it finds what determines the image, and says when it cannot."""

from __future__ import annotations

import pytest
import torch

from datafree._core.errors import UserError
from datafree.records.record import Record
from datafree.synthesis.losses import Objective, Term
from datafree.synthesis.losses.classes import TargetClass
from datafree.synthesis.losses.priors import PixelNorm, TotalVariation
from datafree.synthesis.methods import batches, chunk_labels
from datafree.synthesis.methods.activations import AllLayers, AllLayersDropout, TopLayer
from datafree.synthesis.methods.inversion import BEFORE_A_STEP, Inversion, invert, noise


class Towards(Term):
    """Squared distance to an image that is 0.25 everywhere."""

    def __call__(self, view):
        return (view.pixels - 0.25).square().sum()


class Broken(Term):
    def __call__(self, view):
        return view.pixels.sum() * torch.nan


def test_adam_arrives_at_the_minimum_and_the_start_is_not_touched(tiny):
    start = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    before = start.clone()
    made = invert(tiny(), 1 * Towards(), start, torch.zeros(3).long(), Inversion(400, 0.02, False))
    torch.testing.assert_close(made, torch.full_like(made, 0.25), rtol=0, atol=1e-3)
    assert torch.equal(start, before)


def test_the_first_step_of_adam_is_the_learning_rate_by_the_sign_of_the_gradient(tiny):
    start = torch.tensor([-1.0, 2.0]).repeat(8).view(1, 1, 4, 4)
    made = invert(tiny(), 1 * PixelNorm(), start, torch.zeros(1).long(), Inversion(1, 0.1, False))
    torch.testing.assert_close(made, start - 0.1 * start.sign(), rtol=0, atol=1e-6)


def test_the_box_holds_after_every_step(tiny):
    start = torch.full((2, 1, 4, 4), 5.0)
    made = invert(tiny(), -1 * PixelNorm(), start, torch.zeros(2).long(), Inversion(3, 0.5, True))
    assert torch.equal(made, torch.ones_like(made))


def test_a_teacher_in_training_mode_gives_the_images_of_one_in_eval_mode_and_keeps_its_statistics(tiny):
    """Dropout and batch norm would both differ in training mode."""
    made, start = [], torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for training in (False, True):
        network = tiny("norm")
        network.module.train(training)
        before = network.fingerprint()
        made.append(invert(network, 1 * TargetClass(), start, torch.arange(4) % 3, Inversion(5, 0.1, False)))
        assert network.fingerprint() == before
        assert network.module.training == training
        assert all(parameter.grad is None and parameter.requires_grad for parameter in network.module.parameters())
    assert torch.equal(*made)
    assert not torch.equal(made[0], start)


def test_an_objective_that_is_not_finite_names_the_step(tiny):
    with pytest.raises(UserError) as caught:
        invert(
            tiny(),
            Objective(((1.0, Broken()),)),
            torch.rand(1, 1, 4, 4),
            torch.zeros(1).long(),
            Inversion(5, 0.1, False),
        )
    assert str(caught.value) == "the objective is not finite at step 0; " + BEFORE_A_STEP


def test_the_one_loss_that_is_not_finite_is_named(tiny):
    objective = Objective(((1.0, Broken()), (1.0, TotalVariation())))
    with pytest.raises(UserError) as caught:
        invert(tiny(), objective, torch.rand(1, 1, 4, 4), torch.zeros(1).long(), Inversion(5, 0.1, False))
    assert str(caught.value) == (
        "the loss Broken is nan at step 0, expected a finite number, as the other losses are; correct it, or leave it out"
    )


def drawn(network, known, count):
    return noise(network, known, torch.zeros(count).long(), torch.Generator().manual_seed(0))


def test_noise_has_the_moments_of_the_input(teacher, whole_record):
    entry, made = whole_record.entries["input-moments"].summary, drawn(teacher, whole_record, 20_000)
    torch.testing.assert_close(made.mean(0), entry["mean"], rtol=0, atol=0.02)
    torch.testing.assert_close(made.std(0), entry["std"], rtol=0.05, atol=1e-6)


@pytest.mark.parametrize(
    "given", [{"mean": (0.0, 0.0, 0.0)}, {"std": (1.0,) * 3}, {"mean": (0.0,) * 3, "std": (1.0,) * 3}]
)
def test_a_normalisation_of_nothing_is_none_however_many_numbers_say_so(given, tiny):
    wanted, found = drawn(tiny(shape=(3, 4, 4)), None, 100), drawn(tiny(shape=(3, 4, 4), **given), None, 100)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("recorded", [False, True])
def test_noise_without_input_statistics_or_normalisation_is_in_the_middle_of_the_range(tiny, recorded):
    network = tiny(low=-1.0, high=3.0)
    known = Record(network.spec, network.fingerprint(), network.answers(), {}) if recorded else None
    made = drawn(network, known, 5_000)
    assert made.shape[1:] == network.spec.shape
    torch.testing.assert_close(made.mean(), torch.tensor(1.0), rtol=0, atol=0.02)
    torch.testing.assert_close(made.std(), torch.tensor(1.0), rtol=0, atol=0.02)


def test_noise_without_input_statistics_is_standard_normal_to_a_network_that_normalises(tiny):
    network = tiny(shape=(3, 4, 4), mean=(0.2, 0.5, 0.7), std=(0.1, 0.2, 0.4))
    seen = network.spec.normalize(drawn(network, None, 5_000))
    torch.testing.assert_close(seen.mean([0, 2, 3]), torch.zeros(3), rtol=0, atol=0.02)
    torch.testing.assert_close(seen.std([0, 2, 3]), torch.ones(3), rtol=0, atol=0.02)


@pytest.mark.parametrize(("method", "least"), [(TopLayer(steps=60), 0.6), (AllLayers(steps=60), 0.5)])
def test_more_steps_bring_the_teacher_to_see_the_wanted_class(method, least, teacher, whole_record):
    shares = []
    for steps in (1, 60):
        own = method.model_copy(update={"steps": steps, "relu_logits": False})
        (batch,) = batches(own, teacher, whole_record, chunks=[0], seed=0, size=100)
        shares.append(float((teacher.predict(batch.pixels).argmax(1) == batch.labels).float().mean()))
    assert shares[1] >= least
    assert shares[1] > shares[0] + 0.3


def test_dropout_makes_other_images(teacher, whole_record):
    units = [
        next(batches(method, teacher, whole_record, chunks=[0], seed=0, size=10)).pixels
        for method in (AllLayers(steps=3), AllLayersDropout(steps=3), AllLayersDropout(steps=3, dropout=0.1))
    ]
    assert not torch.equal(units[0], units[1])
    assert not torch.equal(units[1], units[2])


def test_units_go_on_counting_classes_so_that_a_set_is_balanced():
    labels = torch.cat([chunk_labels(index, 7, 10) for index in range(10)])
    assert labels.tolist() == [index % 10 for index in range(70)]
