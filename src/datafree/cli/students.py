"""What the ways to distil have in common: the student that is begun with, and what is said of it in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .._core.errors import UserError
from ..models import zoo
from ..models.agreement import NO_ACCURACY
from ..models.network import Network
from ..releases.load import new_model
from .arguments import Run
from .loading import on_device

__all__ = ["new_student", "say_accuracy", "say_size"]


def new_student(name: str | None, teacher: Network, run: Run) -> tuple[str, Network]:
    """A fresh network for the teacher's inputs, by default its half, and its name.

    Raises UserError where nobody has named one and the zoo has no half of the teacher.
    """
    name = name or zoo.half(teacher.name)
    if name is None:
        raise UserError(f"no student named for {teacher.name}; name one, from the zoo or as file.py:function")
    return name, on_device(new_model(name, teacher.spec, seed=run.seed), run)


def say_size(folder: Path, student: Network, teacher: Network) -> None:
    """Its parameters beside the teacher's."""
    if not teacher.parameters:  # of a quantized file nobody counts them
        print(f"{student.name}: {student.parameters:,} parameters; in {folder}")
        return
    smaller = teacher.parameters / student.parameters
    words = f"{smaller:.2f} times fewer than" if smaller >= 1 else f"{1 / smaller:.2f} times as many as"
    print(f"{student.name}: {student.parameters:,} parameters, {words} {teacher.name}; in {folder}")
    if smaller < 1:
        print("  warning: the student is larger than its teacher")


def say_accuracy(result: dict[str, Any]) -> None:
    """Accuracy and agreement on test images, or that there were none; and where an agreement says little."""
    if result.get("agreement_warning"):
        print(f"  warning: {result['agreement_warning']}")
    if "evaluation" in result:
        found = result["evaluation"]
        print(
            f"accuracy {found['accuracy']:.2f} % on {found['images']} test images, agreement {found['agreement']:.2f} %"
        )
    else:
        print(f"  {NO_ACCURACY}")
