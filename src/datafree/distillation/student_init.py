"""Initialises a student with a subset of the channels of each teacher layer; see `pruning.selection`."""

from __future__ import annotations

from contextlib import suppress

from torch import nn

from .._core.errors import UserError
from ..models.network import Network, copied
from ..models.reducing import pass_block, passed_blocks
from ..pruning.selection import copy_teacher_channels, same_layers
from ..synthesis.generator import untrained
from ..synthesis.scene import Scene

__all__ = ["init_student_from_teacher", "same_architecture"]


def init_student_from_teacher(student: Network, teacher: Network, scene: Scene | None, *, seed: int) -> bool:
    """Calls `copy_teacher_channels` with images of untrained generators. Returns whether the student was initialised.

    Of a teacher with more blocks per stage the middle ones are left out. `scene` is the generators' image model, by default
    `Scene()`. A student of another architecture stays unchanged.
    """
    aligned = _aligned(student, teacher)
    if aligned is None:
        return False
    return copy_teacher_channels(student, aligned, untrained(teacher, scene or Scene(), seed=seed))


def same_architecture(student: Network, teacher: Network) -> bool:
    """Whether the student has the teacher's layers, none wider, or those of some of its blocks."""
    return _aligned(student, teacher) is not None


def _aligned(student: Network, teacher: Network) -> Network | None:
    """The teacher, or a copy of it without blocks that the student does not have; None for another architecture."""
    if same_layers(student, teacher):
        return teacher
    if passed := passed_blocks(student.module):
        module = copied(teacher.module)
        with suppress(AttributeError):  # of a teacher without such blocks
            for name in passed:
                pass_block(module, name)
        teacher = teacher.with_module(module)
        return teacher if same_layers(student, teacher) else None
    shallower = without_blocks(teacher, student)
    return shallower if shallower is not None and same_layers(student, shallower) else None


def without_blocks(teacher: Network, student: Network) -> Network | None:
    """A copy of the teacher with as many blocks in each container as the student has; None if it has no more.

    A container is a Sequential or ModuleList whose children after the first have the same weights' names and shapes, as
    the residual blocks of a stage have. The first and the last blocks are kept.
    """
    module, changed = copied(teacher.module), False
    containers = dict(student.module.named_modules())
    for name, container in list(module.named_modules()):
        other = containers.get(name)
        kinds = (nn.Sequential, nn.ModuleList)
        if not isinstance(container, kinds) or not isinstance(other, kinds) or not 0 < len(other) < len(container):
            continue
        shapes = [{key: tensor.shape for key, tensor in block.state_dict().items()} for block in container]
        if not all("." in key for key in shapes[-1]) or any(block != shapes[-1] for block in shapes[1:]):
            return None
        for _ in range(len(container) - len(other)):
            del container[1]
        changed = True
    if not changed:
        return None
    network = teacher.with_module(module)
    try:
        network.check()
    except UserError:
        return None
    return network
