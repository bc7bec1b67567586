"""A published condensed set for one teacher: read, tried on it, and refused where the reading looks wrong."""

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
"""Shares of pixels out of range that are reported, and refused: learnt pixels leave it now and then, not so often."""

Labels = Literal["auto", "hard", "logits"]
Layout = Literal["NHWC", "NCHW"]


@dataclass(frozen=True, eq=False)
class Reading:
    """A published set as one convention reads it."""

    condensed: Condensed
    trial: Trial
    """What the teacher sees in it."""
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    """What the reader chose."""
    beyond: float
    """Share of the pixels that are out of range by more than rounding explains."""
    others: dict[str, Trial] = field(default_factory=dict)
    """The same by other common conventions, unless they were not tried."""

    @property
    def warning(self) -> str | None:
        """That many pixels are out of range, where they are."""
        if self.beyond <= BEYOND:
            return None
        return f"{100 * self.beyond:.0f} % of the pixels are out of range: check that pixels is what the authors did"

    def check(self) -> None:
        """Raises UserError where the teacher, the range of the pixels, or another reading says that this one is wrong."""
        spec, pixels, trial, others = self.condensed.spec, self.condensed.pixels, self.trial, self.others
        low, high = float(pixels.min()), float(pixels.max())
        result = f"pixels came out from {low:.3g} to {high:.3g}"
        best = max(others, key=lambda name: others[name].hits, default=None)
        better = best is not None and others[best].passed and others[best].hits > trial.hits
        other = f" (with pixels={best!r}, say, it sees {others[best].accuracy:.1f} %)" if best and better else ""
        if not trial.passed:
            raise UserError(
                f"the teacher sees the labelled class in {trial}, expected above chance at 1 in {1 / ALPHA:.0f} and at least "
                f"{100 * trial.required:.1f} %; {result}: mostly the wrong convention of pixels{other}, labels in another "
                "order than the network's classes, or whitened images; give the authors' numbers, or import it anyway"
            )
        if best and trial.beaten(others[best]):
            reason, expected = (
                f"the teacher sees the labelled class in {trial}",
                f"no other reading so much better{other}",
            )
        elif self.beyond > WRONG:
            reason = f"{100 * self.beyond:.0f} % of the pixels are out of range, {result}"
            expected = f"at most {100 * WRONG:.0f} %{other}"
        elif high - low < NARROW * (spec.high - spec.low):
            reason, expected = f"{result}, which is one grey", f"some of the range {spec.low:g} to {spec.high:g}{other}"
        else:
            return
        raise UserError(f"{reason}, expected {expected}; give the authors' convention of pixels, or import it anyway")


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
    """The set in `source` as `import_condensed` reads it, not judged yet; `compare` tries other conventions too."""
    options = options or Options()
    raw = read(source, teacher.spec, options)
    convention = _convention(raw, pixels)
    images, rows = _understood(raw, teacher, convention, labels, options, patches)
    trial = tried(teacher, images, rows)
    others = _others(convention, raw, teacher, labels, options, patches) if compare else {}
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
    """A condensed set as its authors published it, tried on `teacher`; `save` writes it as one checked file.

    `source` is a .pt of DC, DSA, DM or IDC, a folder with images_best.pt and labels_best.pt (MTT, DATM), an .npz (KIP,
    FRePo), a folder of class folders of images (SRe2L, RDED), or parquet; no pickle in it is run.

    - `pixels`: what the stored numbers are: "0-1", "0-255", or "normalised:MEAN/STD" with the authors' numbers, one or one
      per channel. Image files need none.
    - `labels`: "auto" takes class numbers and distributions alone, "logits" takes their softmax, "hard" the highest alone.
    - `patches`: for IDC, number of parts per side of each image; each part becomes an image.
    - `entry`: index of the set in a file with several, the last by default. `layout`: of an .npz whose shape fits both.
    - `zca`: the set was learnt under ZCA whitening: the un-whitened images_zca_*.pt must be there.
    - `resize`: bring images to the teacher's size.

    The set's accuracy on the teacher is in its `about`. Raises UserError where it is near chance, where another convention is
    clearly better, and where the pixels look wrong, unless `anyway`; and for a file that is damaged or of no known format.
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
    """The user's, or that of image files."""
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
    """Pixels of the network's shape, and label rows."""
    rows = labels_of(raw, network.spec, labels)
    if not bool(raw.images.isfinite().all()):
        raise UserError("images with NaN or infinity, expected finite ones; get the set again")
    images, rows = decoded(convention.undo(raw.images, network.spec), rows, patches, network.spec)
    return fitted(images, network.spec, options.resize), rows


def _beyond(images: Tensor, network: Network) -> float:
    """Share of pixels out of range by more than a thousandth of it, which no rounding explains."""
    low, high = network.spec.low, network.spec.high
    return float(((images - (low + high) / 2).abs() > 0.501 * (high - low)).float().mean())


def _others(
    convention: Pixels, raw: Raw, network: Network, labels: str, options: Options, patches: int
) -> dict[str, Trial]:
    """What the teacher sees by other common conventions than the one it was read by; image files have one alone."""
    spec = network.spec
    names = ["0-1", "0-255", f"normalised:{_numbers(spec.mean)}/{_numbers(spec.std)}"] if raw.pixels is None else []
    others = [
        other for other in map(Pixels.parse, names) if (other.mean, other.std) != (convention.mean, convention.std)
    ]
    return {other.name: tried(network, *_understood(raw, network, other, labels, options, patches)) for other in others}


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
