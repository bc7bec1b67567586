"""datafree distill --condensed: the student learns from a few condensed or real images, alone or among synthetic ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..distillation.sources import MixedImages, Source, stored_images
from ..models.network import Network
from ..synthesis.synthetic_set import SyntheticSet

__all__ = ["CondensedSource"]

ALONE = 10_000
"""Images an epoch where there is no set that says."""


@dataclass(frozen=True)
class CondensedSource:
    """A condensed set, and beside it perhaps a synthetic one."""

    condensed: Path
    images: Path | None
    share: float
    epoch_images: int | None
    how: Augmentation

    @property
    def paths(self) -> dict[str, Path]:
        """By role."""
        return {"condensed": self.condensed, **({"images": self.images} if self.images is not None else {})}

    def material(self, teacher: Network) -> tuple[Source, str, dict[str, Any]]:
        """What is learnt from, in words, and the settings. Raises UserError for sets that do not fit the teacher."""
        few = Condensed.open(self.condensed, teacher)
        made = None if self.images is None else SyntheticSet.open(self.images, teacher)
        others, count = None if made is None else stored_images(made), self.epoch_images
        if count is None:
            count = ALONE if others is None else len(others)
        source = MixedImages(teacher, few.clamped(), others, count, share=self.share, augmentation=self.how)
        beside = "" if made is None else f" and a synthetic set of {made.about['method']['method']}"
        settings = {
            "condensed": self.condensed, "images": self.images, "share": 1.0 if made is None else self.share,
            "epoch_images": count, **self.how.model_dump(mode="json"),
        }  # fmt: skip
        return source, f"{len(few)} condensed images{beside}", settings
