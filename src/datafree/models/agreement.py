"""How often two networks agree on a sample of images, when that says little, and what an evaluation on labels holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .behaviour import check_finite

__all__ = ["NO_ACCURACY", "Agreement", "Evaluation", "agreement"]

ONE_CLASS = 0.9
"""Share of the teacher's answers from which on one class makes an agreement cheap."""
CHANCE = 0.1
"""Share of the way from chance to complete agreement that still counts as chance."""
NO_ACCURACY = (
    "accuracy was not measured, as no labelled data was given, and can be far lower than this agreement; "
    "datafree evaluate measures it"
)


@dataclass(frozen=True)
class Agreement:
    """`equal`: percentage of the images on which both networks choose the same class."""

    images: int
    equal: float
    warning: str | None = None
    """One line, where the percentage says little."""


@dataclass(frozen=True)
class Evaluation:
    """What a network scores on labelled images."""

    images: int
    """Number of images."""
    accuracy: float
    """Share of the images whose label is the likeliest class, in %."""
    by_class: tuple[float | None, ...]
    """Accuracy per class of the network, in %; None for a class without images."""
    agreement: float | None = None
    """Share of the images for which network and teacher choose the same class, in %; None without a teacher."""


def agreement(teacher: Tensor, student: Tensor, classes: Sequence[str]) -> Agreement:
    """Compares logits (N, classes) of the teacher and of the student for the same images.

    It warns where the teacher gives one class for nearly all of them, and where the two agree hardly more often than
    networks would that choose independently, each class as often as these do (Cohen 1960, eq. 1). Raises UserError for
    logits with NaN or infinity, of which no class can be told.
    """
    check_finite("the teacher", teacher)
    check_finite("the student", student)
    chosen, other = teacher.argmax(1), student.argmax(1)
    equal = float((chosen == other).double().mean())
    shares = [answers.bincount(minlength=len(classes)).double() / len(teacher) for answers in (chosen, other)]
    expected = float((shares[0] * shares[1]).sum())
    noise = 3 * math.sqrt(expected * (1 - expected) / len(teacher))
    warning = None
    if float(shares[0].max()) >= ONE_CLASS:
        most = shares[0].argmax()
        warning = (
            f"the teacher answers {classes[int(most)]!r} on {100 * float(shares[0][most]):.0f} % of these images, so "
            "their agreement says little"
        )
    elif equal <= expected + max(noise, CHANCE * (1 - expected)):
        warning = f"two unrelated networks that answer in these proportions agree on {100 * expected:.0f} %"
    return Agreement(len(teacher), round(100 * equal, 4), warning)
