"""datafree distill --condensed: the student learns from a few condensed or real images, alone or among synthetic ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from .._core.errors import UserError
from ..data.augmentation import Augmentation
from ..data.condensed.condensed_set import Condensed
from ..distillation.distill import Distillation
from ..distillation.sources import MixedImages, Source, stored_images
from ..models.network import Network
from ..synthesis.synthetic_set import SyntheticSet
from .common import Data, Model, Run, Whole, chosen

__all__ = ["CondensedSource", "mixed"]

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
        source = MixedImages(teacher, few.clamped(), others, count, share=self.share, how=self.how)
        beside = "" if made is None else f" and a synthetic set of {made.about['method']['method']}"
        settings = {
            "condensed": self.condensed, "images": self.images, "share": 1.0 if made is None else self.share,
            "epoch_images": count, **self.how.model_dump(mode="json"),
        }  # fmt: skip
        return source, f"{len(few)} condensed images{beside}", settings


def mixed(argv: list[str], distill: Callable[..., None], run_it: Callable[..., None]) -> Callable[..., None]:
    """`distill` with the flags of --condensed. Raises UserError where --online is given too."""
    if chosen(argv, "--online") is not None:
        online = f"--online {chosen(argv, '--online')}"
        raise UserError(f"--condensed and {online}: got both, wanted --images SET or --online generator; leave one out")

    def few_images(
        teacher: str,
        student: str | None = None,
        /,
        *,
        out: Path,
        condensed: Path,
        images: Path | None = None,
        share: float = 0.5,
        epoch_images: int | None = None,
        how: Augmentation | None = None,
        settings: Distillation | None = None,
        data: Data | None = None,
        source: Model | None = None,
        run: Run | None = None,
    ) -> None:
        learn = CondensedSource(condensed, images, share, epoch_images, how or Augmentation())
        run_it(teacher, student, out, learn, settings, data, source, run)

    share = "    share\n        Of what is learnt from, the condensed images' part; the rest are those of --images.\n"
    few_images.__doc__ = (distill.__doc__ or "").rstrip() + "\n" + 4 * " " + share.lstrip()
    few_images.__annotations__ = {
        "teacher": str, "student": str | None, "out": Path, "condensed": Path, "images": Path | None, "share": float,
        "epoch_images": Whole | None, "how": Annotated[Augmentation | None, Parameter(name="*")],  # type: ignore[operator]
        "settings": Annotated[Distillation | None, Parameter(name="*")],
        "data": Data | None, "source": Model | None, "run": Run | None, "return": None,
    }  # fmt: skip
    return few_images
