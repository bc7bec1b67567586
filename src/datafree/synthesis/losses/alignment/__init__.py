"""Alignment: pulls generated images towards a few anchors in the teacher's penultimate features (Binici et al. 2024).

Each kind is a frozen settings class in its own file, found by discovery. `Alignment.bind(teacher, pixels, labels,
seed)` returns a `Guide` with a `loss` for the generated images, `learn` for its own training step, `nbytes` of its
memory, and `state` / `load` to resume exactly. An image of a class without an anchor is ignored: it adds nothing to the
loss, gets no gradient, and the guide does not learn from it.
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
    """Holds the anchors. Uses only the random generators passed to it; never changes the teacher."""

    def loss(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        """A scalar, summed over images with penultimate `features` (N, F) and classes `labels` (N,)."""
        ...

    def learn(self, features: Tensor, labels: Tensor, rng: torch.Generator) -> float:
        """One training step of the guide. Returns its loss before the step, 0 if it does not learn."""
        ...

    def nbytes(self) -> int:
        """Number of bytes kept from one step to the next, including the anchors."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Tensors from which `load` restores the guide, bit for bit."""
        ...

    def slots(self, steps: int) -> Slots:
        """Expected dtype, shape and range of each tensor of `state` after at most `steps` steps."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores a `state`. Raises UserError if it belongs to other anchors or settings."""
        ...


@runtime_checkable
class Alignment(Protocol):
    """Settings of one kind of alignment, and the augmentation of images that the teacher sees."""

    summary: ClassVar[str]
    guidance: ClassVar[float]
    """Default weight, relative to a cross-entropy of weight 1; the scale of the loss differs between kinds.

    Our choice, from a few runs on MNIST that are not conclusive.
    """

    @property
    def alignment(self) -> str: ...

    def bind(self, teacher: Network, pixels: Tensor, labels: Tensor, seed: int) -> Guide:
        """A guide with anchors `pixels` (N, C, H, W) in the spec's range and `labels` (N, classes), probabilities.

        An anchor counts for its most likely class; a class may have none. Raises UserError if there are no anchors or
        they do not fit the teacher.
        """
        ...

    def show(self, pixels: Tensor, spec: InputSpec, rng: torch.Generator) -> Tensor:
        """Pixels (N, C, H, W), newly augmented. Anchors are augmented each time they are used."""
        ...

    def steady(self) -> Augmentation:
        """Augmentation of the generated images: as for anchors, without warps and exposure, which an image keeps."""
        ...


FAMILY: Family[Alignment] = Family(
    __name__, "alignment", "kind of alignment", ("summary", "guidance", "show", "steady", "bind")
)
"""The kinds of this folder, installed plug-ins, and the user's own by `file.py:Class` or `package.module:Class`."""


def kinds() -> dict[str, type[Settings]]:
    """All kinds by name: those in this folder and installed plug-ins."""
    return FAMILY.kinds()


def from_name(name: str, /, **settings: Any) -> Any:
    """A kind by name with settings: ``from_name("mmd", cutout=0.2)``. Raises UserError as `from_dict` does."""
    return from_dict({"alignment": name, **settings})


def from_dict(values: dict[str, Any]) -> Any:
    """A kind from its dict; raises UserError for an unknown name or an invalid setting."""
    return FAMILY.from_dict(values)
