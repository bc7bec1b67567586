"""How often two networks choose the same class, when that number is not informative, and the result of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from .._core.errors import UserError
from .behaviour import check_finite

__all__ = ["NO_ACCURACY", "Agreement", "Evaluation", "agreement", "interval"]

ONE_CLASS = 0.9
"""Share of the teacher's answers in one class from which an agreement is not informative."""
CHANCE = 0.1
"""Share of the distance from chance to full agreement that still counts as chance."""
NO_ACCURACY = (
    "accuracy was not measured, as no labelled data was given, and can be far lower than this agreement; "
    "datafree evaluate measures it"
)


@dataclass(frozen=True)
class Agreement:
    """`equal`: percentage of images for which both networks choose the same class."""

    images: int
    equal: float
    warning: str | None = None
    """One line if the percentage is not informative."""


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
    network: str | None = field(default=None, repr=False, compare=False)
    """Fingerprint of the network; None if unknown, as in results of earlier versions."""
    teacher: str | None = field(default=None, repr=False, compare=False)
    """Fingerprint of the teacher; None if unknown or without a teacher."""

    def check_of(self, parameter: str, network: str, teacher: str | None, do: str) -> None:
        """Raises UserError if this is of another network or teacher than those with these fingerprints.

        `parameter` is the one that has it, and `do` is what to give instead, for the message.
        """
        for role, got, expected in (("network", self.network, network), ("teacher", self.teacher, teacher)):
            if None not in (got, expected) and got != expected:
                raise UserError(
                    f"{parameter}: got one of another {role} (fingerprint {str(got)[:12]}), expected {str(expected)[:12]}; "
                    f"give {do}"
                )


def interval(percent: float, images: int) -> tuple[float, float]:
    """The 95 % interval, in %, of a share in % that was counted on `images` images drawn at random.

    It is exact for every count and share (Clopper and Pearson 1934). Raises UserError for no images.
    """
    from scipy.special import betaincinv

    if images < 1:
        raise UserError(f"images: got {images}, expected at least 1; measure on some images")
    hits = round(percent / 100 * images)
    low = 0.0 if hits == 0 else float(betaincinv(hits, images - hits + 1, 0.025))
    high = 1.0 if hits == images else float(betaincinv(hits + 1, images - hits, 0.975))
    return 100 * low, 100 * high


def interval_in_words(percent: float, images: int) -> str:
    """`95 % interval 90.3 to 94.9`."""
    low, high = interval(percent, images)
    return f"95 % interval {low:.1f} to {high:.1f}"


def agreement(teacher: Tensor, student: Tensor, classes: Sequence[str]) -> Agreement:
    """Compares logits (N, classes) of the teacher and of the student for the same images.

    The result has a warning if the teacher chooses one class for nearly all images, or if the two agree hardly more often
    than independent networks with the same class frequencies (Cohen 1960, eq. 1). Raises UserError for logits with NaN or
    infinity.
    """
    check_finite("the teacher", teacher)
    check_finite("the student", student)
    teacher_classes, student_classes = teacher.argmax(1), student.argmax(1)
    equal = float((teacher_classes == student_classes).double().mean())
    shares = [
        answers.bincount(minlength=len(classes)).double() / len(teacher)
        for answers in (teacher_classes, student_classes)
    ]
    expected = float((shares[0] * shares[1]).sum())
    noise = 3 * math.sqrt(expected * (1 - expected) / len(teacher))
    warning = None
    if float(shares[0].max()) >= ONE_CLASS:
        commonest = shares[0].argmax()
        warning = (
            f"the teacher answers {classes[int(commonest)]!r} on {100 * float(shares[0][commonest]):.0f} % of these "
            "images, so their agreement says little"
        )
    elif equal <= expected + max(noise, CHANCE * (1 - expected)):
        warning = f"chance agreement is {100 * expected:.0f} % for these class frequencies"
    return Agreement(len(teacher), round(100 * equal, 4), warning)
