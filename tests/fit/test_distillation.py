"""Losses true to their names, the temperature, and what a student is worth."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from datafree._core.errors import UserError
from datafree.distillation.distill import Distillation, check_student, distill, temperature_of
from datafree.distillation.kl import kl
from datafree.distillation.sources import soft_labelled
from datafree.distillation.train import train
from datafree.distillation.training_loop import Schedule
from datafree.evaluation.accuracy import evaluate
from datafree.models.input_spec import InputSpec
from datafree.releases.load import new_model


def logits(seed, scale=3.0):
    return scale * torch.randn(20, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("t", [0.5, 1.0, 8.0])
def test_kl_is_torchs_times_the_square_of_the_temperature_teacher_first(t):
    student, teacher = logits(0), logits(1)
    wanted = kl_divergence(Categorical(logits=teacher / t), Categorical(logits=student / t)).mean() * t * t
    torch.testing.assert_close(kl(student, teacher, t), wanted)
    assert float(kl(teacher, student, t)) != pytest.approx(float(wanted), rel=1e-3)


@pytest.mark.parametrize("t", [1.0, 4.0])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_kl_of_equal_logits_is_zero_and_so_is_its_gradient(t, scale):
    z = logits(0, scale).float().requires_grad_()
    value = kl(z, z.detach() + 5, t)
    (gradient,) = torch.autograd.grad(value, z)
    assert float(value.detach()) == pytest.approx(0, abs=1e-5 * t * t)
    assert float(gradient.abs().max()) < 1e-5


def test_at_a_high_temperature_kl_is_the_squared_difference_of_centred_logits():
    """Hinton et al. 2015, sec. 2.1: so gradients keep their size while the temperature is changed."""
    student, teacher = logits(0), logits(1)
    apart = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert float(kl(student, teacher, 1e4)) == pytest.approx(float(apart.square().sum(1).mean()) / 20, rel=1e-3)


def test_the_temperature_brings_centred_logits_to_a_spread_of_two():
    z = logits(0, 12.0)
    t = temperature_of(z)
    assert float(((z - z.mean(1, keepdim=True)) / t).std()) == pytest.approx(2, rel=0.01)
    assert (temperature_of(logits(0, 1e-3)), temperature_of(logits(0, 1e4))) == (1.0, 64.0)
    assert temperature_of(z + 100) == pytest.approx(t, abs=0.01)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_a_student_that_is_its_teacher_starts_with_no_loss(loss, teacher, digits):
    copy = new_model("hinton32", teacher.spec, seed=0)
    copy.module.load_state_dict(teacher.module.state_dict())
    settings = Distillation(epochs=1, batch=64, learning_rate=1e-12, loss=loss, decay="constant")
    curve = distill(teacher, copy, soft_labelled(teacher, digits.subset(128)), settings)
    assert curve.loss[0] < 1e-6


def test_a_student_comes_to_agree_with_its_teacher(teacher, digits):
    student = new_model("hinton16", teacher.spec, seed=1)
    before = evaluate(student, digits, teacher).agreement
    curve = distill(
        teacher, student, soft_labelled(teacher, digits), Distillation(epochs=6, batch=32, learning_rate=5e-3)
    )
    after = evaluate(student, digits, teacher)
    assert after.agreement > max(85, before)
    assert curve.loss[-1] < 0.3 * curve.loss[0]


def test_students_and_teachers_must_be_alike(teacher, digits, tiny):
    source = soft_labelled(teacher, digits.subset(20))
    with pytest.raises(UserError) as caught:
        distill(teacher, tiny(), source, Distillation())
    assert str(caught.value) == (
        "student tiny takes (1, 4, 4) into 3 classes, teacher hinton32 (1, 8, 8) into 10; "
        "give a student like its teacher"
    )


@pytest.mark.parametrize(
    ("learnt", "taught", "place"),
    [
        (("dog", "cat", "wolf"), ("cat", "dog", "fox"), 0),
        (("cat", "fox", "wolf"), ("cat", "dog", "fox"), 1),
        (("1", "2", "3"), ("0", "1", "2"), 0),
        (("01", "0", "x"), ("0", "1", "y"), 0),
        (("x", "y", "z"), ("cat", "dog", "fox"), None),
        (("cat", "y", "fox"), ("cat", "dog", "fox"), None),
        (("0", "1", "2"), ("cat", "dog", "fox"), None),
        (("00", "01", "02"), ("0", "1", "2"), None),
    ],
)
def test_a_student_with_the_teachers_names_at_other_places_is_refused(tiny, learnt, taught, place):
    teacher, student = (replace(tiny(seed=seed), spec=tiny().spec.model_copy(update={"classes": names}))
                        for seed, names in enumerate((taught, learnt)))  # fmt: skip
    if place is None:
        check_student(student, teacher, teacher.spec)
        return
    with pytest.raises(UserError) as caught:
        check_student(student, teacher, teacher.spec)
    assert str(caught.value) == (
        f"class {place} of student tiny is {learnt[place]!r}, teacher tiny has {taught[place]!r} there, and "
        f"{learnt[place]!r} at another place; give a student like its teacher"
    )


def test_images_of_another_shape_than_the_teachers_are_named(tiny):
    with pytest.raises(UserError, match=r"tiny \(1, 4, 4\) into 3, and the images are \(1, 5, 4\); give"):
        check_student(tiny(seed=1), tiny(), tiny(shape=(1, 5, 4)).spec)


def test_accuracy_and_agreement_are_counted_over_all_images(tiny, toy):
    network, data = tiny("norm"), toy(90)
    said = network.predict(data.pixels(range(90))).argmax(1)
    result = evaluate(network, data, network)
    assert result.images == 90
    assert result.agreement == 100
    assert result.accuracy == pytest.approx(100 * int((said == data.labels).sum()) / 90, abs=1e-4)
    for c in range(3):
        own = said[data.labels == c]
        assert result.by_class[c] == pytest.approx(100 * int((own == c).sum()) / 30, abs=1e-4)
    other = tiny("norm", seed=3)
    wanted = 100 * int((said == other.predict(data.pixels(range(90))).argmax(1)).sum()) / 90
    assert evaluate(network, data, other).agreement == pytest.approx(wanted, abs=1e-4)
    assert evaluate(network, data).agreement is None


def test_a_class_without_images_has_no_accuracy(tiny, toy):
    assert evaluate(tiny(), toy(2)).by_class[2] is None


def test_training_separates_the_digits(digits):
    network = new_model("hinton32", InputSpec(shape=digits.shape, classes=digits.classes), seed=0)
    curve = train(network, digits, Schedule(epochs=5, batch=32, learning_rate=5e-3))
    assert evaluate(network, digits).accuracy > 90
    assert curve.loss == sorted(curve.loss, reverse=True)
