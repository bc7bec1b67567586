"""Agreement on a sample: the percentage, and the warning where it says little."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest
from torch.nn.functional import one_hot

from datafree._core.errors import UserError
from datafree.models.agreement import Agreement, agreement, interval, interval_in_words

CLASSES = ("a", "b", "c", "d")


def of(teacher: list[int], student: list[int], classes: tuple[str, ...] = CLASSES) -> Agreement:
    return agreement(
        *(one_hot(torch.tensor(chosen), len(classes)).float() for chosen in (teacher, student)), classes=classes
    )


def test_the_percentage_is_that_of_equal_answers():
    measured = agreement(torch.eye(4).repeat(25, 1), torch.eye(4).roll(1, 0).repeat(25, 1), CLASSES)
    assert (measured.images, measured.equal) == (100, 0.0) and measured.warning is not None
    answers = [0, 1, 2, 3] * 25
    assert of(answers, answers) == Agreement(100, 100.0, None)
    assert of(answers, [*answers[:90], *[(c + 1) % 4 for c in answers[90:]]]) == Agreement(100, 90.0, None)


def test_a_teacher_that_gives_one_class_is_said():
    measured = of([2] * 95 + [0] * 5, [2] * 95 + [0] * 5)
    assert measured.equal == 100.0
    assert measured.warning == "the teacher answers 'c' on 95 % of these images, so their agreement says little"


def test_a_student_that_gives_one_class_agrees_as_often_as_an_unrelated_network():
    measured = of([0] * 60 + [1] * 20 + [2] * 10 + [3] * 10, [0] * 100)
    assert measured.equal == 60.0
    assert measured.warning == "chance agreement is 60 % for these class frequencies"


@pytest.mark.parametrize(("percent", "images"), [(0, 10), (100, 10), (50, 2), (91.73, 10_000), (90, 10), (33.3333, 3)])
def test_the_interval_is_the_exact_one_of_a_binomial_test(percent, images):
    expected = binomtest(round(percent / 100 * images), images).proportion_ci(method="exact")
    assert interval(percent, images) == pytest.approx((100 * expected.low, 100 * expected.high), abs=1e-6)


def test_the_interval_in_words_and_of_no_images():
    assert interval_in_words(90.0, 10) == "95 % interval 55.5 to 99.7"
    with pytest.raises(UserError, match=r"^images: got 0, expected at least 1; measure on some images$"):
        interval(50.0, 0)
