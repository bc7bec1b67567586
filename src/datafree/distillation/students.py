"""The network that a distillation trains, from a name, a module or a network; never the caller's own object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from torch import nn

from .._core.errors import UserError
from .._core.folder_kinds import REDUCED
from ..models import zoo
from ..models.network import Network, copied
from ..models.reducing import new_weights
from ..pruning.blocks import shallower
from ..pruning.channels import narrower
from ..releases.load import new_student_model, without_unused_output
from ..releases.release import is_of_zoo
from ..synthesis.generator import untrained
from ..synthesis.scene import Scene
from .train_student import check_student

__all__ = ["Provenance", "Start", "StudentLike", "new_student", "student_name"]

StudentLike: TypeAlias = Network | nn.Module | str
"""A network, a module that takes what the teacher takes, or a name of the zoo or `file.py:function`."""
Start: TypeAlias = Literal["teacher", "random"]
"""`teacher`: the subset of the teacher's channels that best reconstructs the rest, if the student has the same layers, none
wider. `random`: the student's own weights."""


@dataclass(frozen=True)
class Provenance:
    """Where a student comes from, for its card and log."""

    teacher: str
    """Architecture of the teacher, in words."""
    student: str
    """Fingerprint of the trained student."""
    settings: dict[str, Any]
    hashes: dict[str, str]
    """sha256 of what it learned from, by role."""
    seconds: float
    """Duration of the training."""


ADVICE = "name one, from the zoo or as file.py:function"


def student_name(teacher: Network, student: str | None = None, advice: str = ADVICE) -> str:
    """The name of the student: `half` has half of the teacher's channels, `shallow` fewer blocks, None is the default.

    Other names are returned as they are, and so are these two for a teacher that is not of the zoo. Raises UserError if the
    zoo has no such network for this teacher.
    """
    if student is not None and student not in REDUCED:
        return student
    if not is_of_zoo(teacher):
        return student or "half"
    if student is not None:
        name = zoo.narrower(teacher.name) if student == "half" else zoo.shallower(teacher.name)
        if name is None:
            raise UserError(
                f"student {student!r}: the zoo has none for {teacher.name}, expected a teacher of the zoo that has one; "
                "name the student, from the zoo or as file.py:function"
            )
        return name
    name = zoo.half(teacher.name)
    if name is None:
        raise UserError(f"no student named, and the zoo has no half of {teacher.name}; {advice}")
    return name


def new_student(student: StudentLike | None, teacher: Network, *, seed: int) -> Network:
    """The network to train, on the teacher's device: new for a name, a copy of a module or network.

    A module gets the teacher's spec. Raises UserError if it does not fit the teacher, or is the teacher's own.
    """
    if student is None or isinstance(student, str):
        name = student_name(teacher, student, f"{ADVICE}, or give a module")
        if name in REDUCED:
            network = new_weights(_reduced(teacher, name, seed), seed=seed)
        else:
            network = new_student_model(name, teacher, seed=seed)
    elif isinstance(student, Network):
        network = student
    else:
        network = without_unused_output(Network(student, teacher.spec, output=teacher.output))
    check_student(network, teacher, teacher.spec)
    if not isinstance(student, (Network, nn.Module)):
        network.module.to(teacher.device)
        return network
    network.check()
    return replace(network, module=copied(network.module).to(teacher.device))


def _reduced(teacher: Network, name: str, seed: int) -> Network:
    """The teacher with half of its channels or fewer blocks, for images of an untrained generator."""
    teacher.check()
    return narrower(teacher) if name == "half" else shallower(teacher, untrained(teacher, Scene(), seed=seed))
