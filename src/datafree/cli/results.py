"""What commands print of a student: its size, its start, its accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..models.network import Network

__all__ = ["say_accuracy", "say_batch", "say_learned", "say_size", "say_start"]


def say_size(folder: Path, student: Network, teacher: Network) -> None:
    """Prints the number of parameters, beside the teacher's."""
    if not teacher.parameters:  # a quantized file does not tell
        print(f"{student.title}: {student.parameters:,} parameters; in {folder}")
        return
    smaller = teacher.parameters / student.parameters
    words = f"{smaller:.2f} times fewer than" if smaller >= 1 else f"{1 / smaller:.2f} times as many as"
    print(f"{student.title}: {student.parameters:,} parameters, {words} {teacher.title}; in {folder}")
    if smaller < 1:
        print("  warning: the student is larger than its teacher")


def say_accuracy(result: dict[str, Any]) -> None:
    """Prints accuracy and agreement on test images, or that there were none; and where an agreement says little."""
    from ..models.agreement import NO_ACCURACY

    if result.get("agreement_warning"):
        print(f"  warning: {result['agreement_warning']}")
    if "evaluation" in result:
        scores = result["evaluation"]
        print(
            f"accuracy {scores['accuracy']:.2f} % on {scores['images']} test images, agreement {scores['agreement']:.2f} %"
        )
        say_learned(scores["accuracy"], scores["images"], len(scores["by_class"]))
    else:
        print(f"  {NO_ACCURACY}")


def say_learned(accuracy: float, images: int, classes: int) -> None:
    """Prints a warning where the accuracy of a network that was just trained is near chance."""
    from ..evaluation.accuracy import learned_little

    if warning := learned_little(accuracy, images, classes):
        print(f"  warning: {warning}")


def say_batch(batch: int, images: int) -> None:
    """Prints that a batch has all images, where more were asked for."""
    if batch > images:
        print(f"note: a batch of {batch:,} is more than the {images:,} images: each epoch is one step on all of them")


def say_start(start: str, from_teacher: bool) -> None:
    """Prints how the student was initialised, where that was to be from the teacher."""
    if start == "teacher":
        words = (
            "with channels of the teacher"
            if from_teacher
            else "from random weights: its layers do not match the teacher's"
        )
        print(f"  started {words}")
