"""Alignment: made images are pulled to where a few anchors lie in the teacher's penultimate features (Binici et al. 2024).

Frozen settings, one file each, discovered. `Alignment.bind(teacher, pixels, labels, seed)` gives a `Guide`: `loss` for the
images being made, `learn` for what the guide itself learns, `nbytes` of all that it keeps, and `state` / `load`, which carry
it through a stop without a difference. An image made for a class without an anchor is not guided: it adds nothing to the
loss, gets no gradient, and nothing is learnt from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from ...._core.plugins import Family
from ...._core.settings import Settings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...._core.slots import Slots
    from ....data.augmentation import Augmentation
    from ....models.input_spec import InputSpec
    from ....models.network import Network

__all__ = ["DEFAULT", "FAMILY", "Alignment", "Guide", "from_dict", "from_name", "kinds"]

DEFAULT = "mmd"


@runtime_checkable
class Guide(Protocol):
    """Holds the anchors. Random numbers come from the streams it is handed alone; the teacher is never changed."""

    def loss(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        """A scalar, summed over the images whose penultimate features (N, F) these are, each meant as a class (N,)."""
        ...

    def learn(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> float:
        """One step of what the guide itself learns; its loss before it, 0 where there is nothing to learn."""
        ...

    def nbytes(self) -> int:
        """Bytes of everything that is kept from one step to the next, anchors included."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `load` makes it again, bit for bit."""
        ...

    def slots(self, steps: int) -> Slots:
        """What each tensor of `state` must be after at most so many steps."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Raises UserError for a state of other anchors or settings."""
        ...


@runtime_checkable
class Alignment(Protocol):
    """Settings with an `alignment`, and how images are shown to the teacher while they are made."""

    summary: ClassVar[str]
    guidance: ClassVar[float]
    """The weight it takes where none is given, beside a cross-entropy of weight 1; kinds differ in how steep they are.

    Our choice, of a few runs on MNIST that do not settle it.
    """

    @property
    def alignment(self) -> str: ...

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> Guide:
        """Anchors are pixels (N, C, H, W) in the spec's range with labels (N, classes), probabilities.

        An anchor stands for its most likely class; a class may have none. Raises UserError where there are no anchors, or
        where they do not fit the teacher.
        """
        ...

    def show(self, pixels: Tensor, spec: InputSpec, rng: torch.Generator) -> Tensor:
        """Pixels (N, C, H, W) augmented: the anchors always are, each time anew."""
        ...

    def steady(self) -> Augmentation:
        """How the images that are made are shown: as anchors are, but for bends and exposures, which stay with an image."""
        ...


FAMILY: Family[Alignment] = Family(
    __name__, "alignment", "kind of alignment", ("summary", "guidance", "show", "steady", "bind")
)
"""The kinds of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def kinds() -> dict[str, type[Settings]]:
    """Every kind by its name: those of this folder, and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A kind by name with settings: ``named("mmd", cutout=0.2)``."""
    return from_dict({"alignment": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A kind from its dict; raises UserError for an unknown name or a setting that is off."""
    return FAMILY.from_dict(values)
