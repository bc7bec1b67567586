"""Agreement on a sample: the percentage, and the warning where it says little."""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

from datafree.models.agreement import Agreement, agreement

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
