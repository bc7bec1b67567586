"""Replay: what a student sees again of the images a generator made before. Frozen settings, one file each, discovered.

`Replay.bind(teacher, seed)` gives a `Memory`: `write` new images, `sample` old ones, `nbytes` of what it replays from, and
`state` / `load`, which carry it through a stop without a difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ..._core.errors import UserError
from ..._core.plugins import Family
from ..._core.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..._core.slots import Slots
    from ...models.network import Network
    from ..online.generator import Generator

__all__ = ["BYTES", "FAMILY", "Memory", "Replay", "Written", "from_dict", "from_name", "kinds", "room_for"]

BYTES = 3_932_160
"""The default budget: the bank of Binici et al. 2022, 1,280 colour images of 32 x 32."""


@dataclass(frozen=True)
class Written:
    """What a memory was shown so far: images, in so many writes, and at most so many steps of the generator."""

    images: int
    writes: int
    steps: int


@runtime_checkable
class Memory(Protocol):
    """What is kept of the images so far. Random numbers come from the streams it is handed alone."""

    def begin(self, generator: Generator) -> None:
        """Is shown the generator before its first step, and another that takes its place. Raises UserError for one that it
        cannot keep."""
        ...

    def follow(self, generator: Generator) -> None:
        """Is shown the generator after each of its steps."""
        ...

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        """Takes in pixels (N, C, H, W) in the spec's range, with the teacher's logits (N, classes)."""
        ...

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        """At most `count` pixels (N, C, H, W) in the spec's range; None while there is nothing to replay."""
        ...

    def nbytes(self) -> int:
        """Bytes of all that is replayed from; never above the budget.

        What only training takes is not in it: the moments of a VAE's optimiser, twice its own bytes.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `load` makes it again, bit for bit."""
        ...

    def slots(self, written: Written) -> Slots:
        """What each tensor of `state` must be after that much was written."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Takes a state that is as `slots` says. Raises UserError where its numbers contradict each other."""
        ...


@runtime_checkable
class Replay(Protocol):
    """Settings with a `replay`; `on` makes an empty memory for a teacher's images."""

    replay: str
    summary: ClassVar[str]

    def bind(self, teacher: Network, seed: int) -> Memory:
        """Raises UserError where the budget is too small for the least that it has to keep."""
        ...


def room_for(teacher: Network, nbytes: int) -> int:
    """How many images, a byte a number, fit in `nbytes`. Raises UserError where not one does."""
    each = teacher.spec.pixels
    if nbytes < each:
        raise UserError(
            f"--replay-bytes: got {nbytes:,}, wanted at least {each:,}, which one image takes; give more, or --replay none"
        )
    return nbytes // each


FAMILY: Family[Replay] = Family(__name__, "replay", "kind of replay", ("summary", "bind"))
"""The kinds of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def kinds() -> dict[str, type[Settings]]:
    """Every kind by its name: those of this folder, and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A kind by name with settings: ``named("bank", replay_bytes=1 << 20)``."""
    return from_dict({"replay": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A kind from its dict; raises UserError for an unknown name or a setting that is off."""
    return FAMILY.from_dict(values)
