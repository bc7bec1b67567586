"""Replay: shows the student earlier images of the generator again, against forgetting.

Each kind is a frozen settings class in its own file, found by discovery. `Replay.bind(teacher, seed)` returns an empty
`Memory`: `write` new images, `sample` old ones, `nbytes` of its contents, and `state` / `load` to resume exactly.
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
    from ...synthesis.generator import Generator

__all__ = ["BYTES", "FAMILY", "Memory", "Replay", "Written", "from_dict", "from_name", "kinds", "room_for"]

BYTES = 3_932_160
"""Default budget in bytes: the bank of Binici et al. 2022, 1,280 colour images of 32 x 32."""


@dataclass(frozen=True)
class Written:
    """What a memory has received: numbers of images and writes, and the maximum number of generator steps."""

    images: int
    writes: int
    steps: int


@runtime_checkable
class Memory(Protocol):
    """Earlier images, or a model of them. Uses only the random generators passed to it."""

    def on_new_generator(self, generator: Generator) -> None:
        """Called with each new generator before its first step. Raises UserError if the memory cannot hold it."""
        ...

    def on_generator_step(self, generator: Generator) -> None:
        """Called with the generator after each of its steps."""
        ...

    def write(self, pixels: Tensor, logits: Tensor, rng: torch.Generator) -> None:
        """Adds pixels (N, C, H, W) in the spec's range with the teacher's logits (N, classes)."""
        ...

    def sample(self, count: int, rng: torch.Generator) -> Tensor | None:
        """At most `count` images (N, C, H, W) in the spec's range; None if there is nothing to replay yet."""
        ...

    def nbytes(self) -> int:
        """Size of what is replayed from, in bytes; never above the budget.

        Excludes what only training needs: the moments of a VAE's optimizer take twice the bytes of its weights.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `load` restores the memory, bit for bit."""
        ...

    def slots(self, written: Written) -> Slots:
        """Expected dtype, shape and range of each tensor of `state` after `written`."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores a state that fits `slots`. Raises UserError if its numbers contradict each other."""
        ...


@runtime_checkable
class Replay(Protocol):
    """Settings of one kind of replay."""

    replay: str
    summary: ClassVar[str]

    def bind(self, teacher: Network, seed: int) -> Memory:
        """An empty memory for the teacher's images. Raises UserError if the budget is too small for any content."""
        ...


def room_for(teacher: Network, nbytes: int) -> int:
    """Number of images that fit in `nbytes`, at one byte per value. Raises UserError if none fits."""
    image_bytes = teacher.spec.pixels
    if nbytes < image_bytes:
        raise UserError(
            f"replay_bytes: got {nbytes:,}, expected at least {image_bytes:,}, the size of one image; give more, or use "
            "`replay='none'`"
        )
    return nbytes // image_bytes


FAMILY: Family[Replay] = Family(__name__, "replay", "kind of replay", ("summary", "bind"))
"""The kinds of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def kinds() -> dict[str, type[Settings]]:
    """All kinds by name: those in this folder and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A kind by name with settings: ``from_name("bank", replay_bytes=1 << 20)``. Errors as in `from_dict`."""
    return from_dict({"replay": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A kind from its dict; raises UserError for an unknown name or an invalid setting."""
    return FAMILY.from_dict(values)
