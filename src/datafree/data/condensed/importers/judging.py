"""Reads a published condensed set for a teacher, tries it on the teacher, and refuses an interpretation that looks wrong."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from ...._core.arguments import check_argument, checked
from ...._core.errors import Notice, UserError
from ....models.input_spec import NARROW
from ....models.network import Network
from ..condensed_set import Condensed
from . import Options, Raw, read
from .meaning import Pixels, by_name, decoded, fitted, labels_of
from .trial import ALPHA, Trial, tried

__all__ = ["Reading", "import_condensed", "read_condensed"]

BEYOND, WRONG = 0.25, 0.5
"""Share of pixels out of range from which a set is reported, and refused. Some learned pixels always are."""

Labels = Literal["auto", "hard", "logits"]
Layout = Literal["NHWC", "NCHW"]


@dataclass(frozen=True, eq=False)
class Reading:
    """A published set, read by one convention."""

    condensed: Condensed
    trial: Trial
    """The teacher's hits on it."""
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    """Choices of the reader."""
    beyond: float
    """Share of the pixels that are out of range by more than rounding explains."""
    others: dict[str, Trial] = field(default_factory=dict)
    """The teacher's hits by other common conventions; empty if they were not tried."""

    @property
    def warning(self) -> str | None:
        """A line if many pixels are out of range."""
        if self.beyond <= BEYOND:
            return None
        return f"{100 * self.beyond:.0f} % of the pixels are out of range: check the authors' convention of pixels"

    def check(self) -> None:
        """Raises UserError if the teacher, the range of the pixels, or another convention shows that this reading is
        wrong.
        """
        spec, pixels, trial, others = self.condensed.spec, self.condensed.pixels, self.trial, self.others
        low, high = float(pixels.min()), float(pixels.max())
        result = f"the pixels are from {low:.3g} to {high:.3g}"
        best = max(others, key=lambda name: others[name].hits, default=None)
        better = best is not None and others[best].passed and others[best].hits > trial.hits
        comparison = f" (with `pixels={best!r}` it is {others[best].accuracy:.1f} %)" if best and better else ""
        if not trial.passed:
            raise UserError(
                f"the teacher predicts the labelled class in {trial}, expected above chance at 1 in {1 / ALPHA:.0f} "
                "and at least "
                f"{100 * trial.required:.1f} %; {result}: most often the convention of pixels is wrong{comparison}, "
                "the labels are in "
                "another order than the network's classes, or the images are whitened; give the authors' numbers, or "
                "`anyway=True`"
            )
        if best and trial.beaten(others[best]):
            reason, expected = (
                f"the teacher predicts the labelled class in {trial}",
                f"no convention with a much higher accuracy{comparison}",
            )
        elif self.beyond > WRONG:
            reason = f"{100 * self.beyond:.0f} % of the pixels are out of range, {result}"
            expected = f"at most {100 * WRONG:.0f} %{comparison}"
        elif high - low < NARROW * (spec.high - spec.low):
            reason, expected = (
                f"{result}, which is one grey",
                f"some of the range {spec.low:g} to {spec.high:g}{comparison}",
            )
        else:
            return
        raise UserError(f"{reason}, expected {expected}; give the authors' convention of pixels, or `anyway=True`")


def read_condensed(
    source: str | Path,
    teacher: Network,
    *,
    pixels: str | None = None,
    labels: Labels = "auto",
    patches: int = 1,
    options: Options | None = None,
    compare: bool = True,
) -> Reading:
    """The set in `source` as `import_condensed` reads it, before `check`; `compare` tries other conventions too."""
    options = options or Options()
    raw = read(source, teacher.spec, options)
    convention = _convention(raw, pixels)
    images, rows = _understood(raw, teacher, convention, labels, options, patches)
    trial = tried(teacher, images, rows)
    others = _other_trials(convention, raw, teacher, labels, options, patches) if compare else {}
    by_place = by_name(raw, teacher.spec)[1]
    about = {
        "made": {"format": raw.format, "files": len(raw.files), "patches": patches, "labels": labels},
        "pixels": convention.name,
        "teacher": {"fingerprint": teacher.fingerprint(), "accuracy": round(trial.accuracy, 2)},
    }
    condensed = Condensed(images, rows, teacher.spec, about)
    notes = (*raw.notes, *([by_place] if by_place else []))
    return Reading(condensed, trial, tuple(raw.files), notes, _beyond(images, teacher), others)


@checked
def import_condensed(
    source: str | Path,
    teacher: Network,
    *,
    pixels: str | None = None,
    labels: Labels = "auto",
    patches: int = 1,
    entry: int = -1,
    layout: Layout | None = None,
    zca: bool = False,
    resize: bool = False,
    anyway: bool = False,
) -> Condensed:
    """A published condensed set, tried on `teacher`; `save` writes it as one checked file.

    `source` is a .pt of DC, DSA, DM or IDC, a folder with images_best.pt and labels_best.pt (MTT, DATM), an .npz (KIP,
    FRePo), a folder of class folders of images (SRe2L, RDED), or parquet; no pickle is executed.

    - `pixels`: what the stored numbers are: "0-1", "0-255", or "normalised:MEAN/STD" with the authors' numbers, one or one
      per channel. Image files need none.
    - `labels`: "auto" accepts only class numbers and distributions, "logits" takes their softmax, "hard" their maximum.
    - `patches`: for IDC, number of parts per side of each image; each part becomes an image.
    - `entry`: index of the set in a file with several, the last by default. `layout`: NHWC or NCHW, for an .npz whose shape
      fits both.
    - `zca`: the set was learned with ZCA whitening, and the un-whitened images_zca_*.pt must be next to it.
    - `resize`: resize images to the teacher's size.

    The teacher's accuracy on the set is in its `about`. Unless `anyway`, raises UserError if that is near chance, if another
    convention is clearly better, and if the pixels look wrong; always for a damaged file or an unknown format.
    """
    check_argument("patches", patches, int)
    reading = read_condensed(
        source, teacher, pixels=pixels, labels=labels, patches=patches,
        options=Options(entry=entry, zca=zca, layout=layout, resize=resize), compare=not anyway,
    )  # fmt: skip
    if not anyway:
        reading.check()
    for note in (*reading.notes, *([reading.warning] if reading.warning else [])):
        warnings.warn(Notice(note), stacklevel=3)
    return reading.condensed


def _convention(raw: Raw, name: str | None) -> Pixels:
    """The user's pixel convention, or that of the format."""
    if raw.pixels is not None and name not in (None, raw.pixels):
        raise UserError(f"pixels: got {name}, but image files are {raw.pixels}; give no pixels")
    chosen = raw.pixels or name
    if chosen is None:
        low, high = float(raw.images.min()), float(raw.images.max())
        raise UserError(
            "pixels: got None, expected 0-1, 0-255 or normalised:MEAN/STD with the authors' numbers; the stored numbers go "
            f"from {low:.4g} to {high:.4g}"
        )
    return Pixels.parse(chosen)


def _understood(
    raw: Raw, network: Network, convention: Pixels, labels: str, options: Options, patches: int
) -> tuple[Tensor, Tensor]:
    """Pixels in the network's shape, and label rows, by this interpretation."""
    rows = labels_of(raw, network.spec, labels)
    if not bool(raw.images.isfinite().all()):
        raise UserError("images with NaN or infinity, expected finite ones; get the set again")
    images, rows = decoded(convention.undo(raw.images, network.spec), rows, patches, network.spec)
    return fitted(images, network.spec, options.resize), rows


def _beyond(images: Tensor, network: Network) -> float:
    """Share of pixels out of range by more than a thousandth of its width, which is no rounding."""
    low, high = network.spec.low, network.spec.high
    return float(((images - (low + high) / 2).abs() > 0.501 * (high - low)).float().mean())


def _other_trials(
    convention: Pixels, raw: Raw, network: Network, labels: str, options: Options, patches: int
) -> dict[str, Trial]:
    """The trials of other common conventions; image files have only one convention."""
    spec = network.spec
    names = ["0-1", "0-255", f"normalised:{_numbers(spec.mean)}/{_numbers(spec.std)}"] if raw.pixels is None else []
    candidates = [
        candidate
        for candidate in map(Pixels.parse, names)
        if (candidate.mean, candidate.std) != (convention.mean, convention.std)
    ]
    return {
        candidate.name: tried(network, *_understood(raw, network, candidate, labels, options, patches))
        for candidate in candidates
    }


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
