"""A cell of a comparison (a method, a student and a seed), and what its cell.json states."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..._core.code_names import code_name
from ..._core.files import sha256_file
from ..._core.user_code import all_files
from ...distillation.students import StudentLike
from .methods import ComparedMethod

__all__ = ["Cell", "CellResult", "Student"]


@dataclass(frozen=True)
class Student:
    """A student of the comparison, and its name in paths."""

    name: str
    label: str
    source: StudentLike

    def code(self) -> dict[str, str]:
        """The hash of the user's own code that builds it; else empty."""
        code = code_name(self.source) if isinstance(self.source, str) else None
        if code is None:
            return {}
        digests = "".join(map(sha256_file, all_files(code)))
        return {"code of student": hashlib.sha256(digests.encode()).hexdigest()}


@dataclass(frozen=True)
class Cell:
    """A method, a student and a seed."""

    method: ComparedMethod
    student: Student
    seed: int

    @property
    def id(self) -> str:
        """`METHOD/STUDENT/SEED`, which names the cell on the command line."""
        return f"{self.method.label}/{self.student.label}/{self.seed}"


class CellResult(BaseModel):
    """What cell.json states of a finished cell."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: str
    student: str
    seed: int
    control: bool
    accuracy: float = Field(ge=0, le=100)
    """On the test images after the last epoch, in %."""
    best_accuracy: float = Field(ge=0, le=100)
    """The highest of all epochs: it takes test data to choose that one."""
    best_epoch: int = Field(ge=1)
    agreement: float = Field(ge=0, le=100)
    """Share of the test images for which student and teacher choose the same class, in %; no accuracy."""
    curve: tuple[tuple[float, float], ...]
    """After each epoch: seconds for images and training so far, without evaluation; accuracy in %."""
    images: int = Field(ge=0)
    """Images that were made, or real ones."""
    steps: int = Field(ge=1)
    """Student steps."""
    epochs: int = Field(ge=1)
    image_seconds: float = Field(ge=0)
    training_seconds: float = Field(ge=0)
    temperature: float | None
    from_teacher: bool
    """Whether the student started with channels of the teacher."""
    warning: str | None
    """What is wrong with its images, such as that they do not show their classes."""
    parameters: int
    settings: dict[str, Any]
    inputs: dict[str, Any]
    versions: dict[str, Any]
    device: str

    @model_validator(mode="after")
    def _check_curve(self) -> CellResult:
        """Refuses a curve that the other numbers do not fit."""
        scores = [score for _, score in self.curve]
        if len(scores) != self.epochs or self.steps % self.epochs:
            raise ValueError(f"curve has {len(scores)} epochs, expected {self.epochs} of {self.steps} steps in all")
        if self.best_accuracy != max(scores) or self.best_epoch != scores.index(max(scores)) + 1:
            raise ValueError(
                f"best_accuracy: got {self.best_accuracy}, expected the highest of the curve, {max(scores)}"
            )
        return self

    @property
    def id(self) -> str:
        """The names of method and student, and the seed."""
        return f"{self.method}/{self.student}/{self.seed}"

    @property
    def seconds(self) -> float:
        """Seconds for images and training."""
        return self.image_seconds + self.training_seconds
