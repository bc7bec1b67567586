"""datafree import-condensed"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from torch import Tensor

from .._core.errors import UserError
from ..data.condensed.condensed_set import FILE, Condensed
from ..data.condensed.importers import Options, Raw, read
from ..data.condensed.importers.meaning import Pixels, by_name, decoded, fitted, labels_of
from ..data.condensed.importers.trial import ALPHA, Trial, tried
from ..models.input_spec import NARROW
from ..models.network import Network
from ..runs.output_folder import CONDENSED_FOLDER, output_folder
from ..runs.run_log import RunLog
from .arguments import Model, Run, Whole
from .loading import check_code, inputs_of, load_network

__all__ = ["import_condensed"]

Flag = Annotated[bool, Parameter(negative="")]
BEYOND, WRONG = 0.25, 0.5
"""The shares of pixels out of range that are said, and refused: learnt pixels leave it now and then, not so often."""
LOGGED = 8
"""Files of a set whose hashes run.json holds one by one; folders of images have more, and one hash for all."""


def import_condensed(
    source: Path,
    teacher: str,
    /,
    *,
    out: Path,
    pixels: str | None = None,
    labels: Literal["auto", "hard", "logits"] = "auto",
    patches: Whole = 1,
    entry: Whole = -1,
    layout: Literal["NHWC", "NCHW"] | None = None,
    zca: Flag = False,
    resize: Flag = False,
    anyway: Flag = False,
    model: Model | None = None,
    run: Run | None = None,
) -> None:
    """Reads the set; `datafree import-condensed` has the options."""
    own, run = model or Model(), run or Run()
    network = load_network(teacher, own, run)
    check_code(teacher, own, network)
    options = Options(entry=entry, zca=zca, layout=layout, resize=resize)
    raw = read(source, network.spec, options)
    convention = _convention(raw, pixels)
    images, rows = _understood(raw, network, convention, labels, options, patches)
    trial = tried(network, images, rows)
    by_place = by_name(raw, network.spec)[1]
    if not anyway:
        _check(trial, images, network, _others(convention, raw, network, labels, options, patches))
    given = {"pixels": pixels, "labels": labels, "patches": patches, "anyway": anyway, **asdict(options)}
    settings = {"source": source, "teacher": teacher, **given, **asdict(own), **asdict(run)}
    files = {f"file {index}": file for index, file in enumerate(raw.files, 1)} if len(raw.files) <= LOGGED else {}
    log = RunLog(
        "import-condensed", settings, {**inputs_of(teacher, own, role="teacher"), **files}, images={"source": raw.files}
    )
    about = {
        "made": {"format": raw.format, "files": len(raw.files), "patches": patches, "labels": labels},
        "pixels": convention.name,
        "teacher": {"fingerprint": network.fingerprint(), "accuracy": round(trial.accuracy, 2)},
    }
    made = Condensed(images, rows, network.spec, about)
    for note in (*raw.notes, *([by_place] if by_place else [])):
        print(note)
    print(f"the teacher sees the labelled class in {trial}")
    if (share := _beyond(images, network)) > BEYOND:
        print(f"  {100 * share:.0f} % of the pixels are out of range: look whether --pixels is what the authors did")
    with output_folder(out, CONDENSED_FOLDER, log) as folder:
        if folder is None:
            return
        made.save(folder)
        log.write(folder, {"images": len(made), "accuracy": trial.accuracy, "chance": 100 * trial.chance})
    _say(made, folder)


def _convention(raw: Raw, named: str | None) -> Pixels:
    """The user's, or that of image files."""
    if raw.pixels is not None and named not in (None, raw.pixels):
        raise UserError(f"--pixels: got {named}, but image files are {raw.pixels}; leave --pixels out")
    known = raw.pixels or named
    if known is None:
        low, high = float(raw.images.min()), float(raw.images.max())
        raise UserError(
            f"no --pixels, wanted 0-1, 0-255 or normalised:MEAN/STD with the authors' numbers; the stored numbers go from "
            f"{low:.4g} to {high:.4g}"
        )
    return Pixels.parse(known)


def _understood(
    raw: Raw, network: Network, convention: Pixels, labels: str, options: Options, patches: int
) -> tuple[Tensor, Tensor]:
    """Pixels of the network's shape, and label rows."""
    rows = labels_of(raw, network.spec, labels)
    if not bool(raw.images.isfinite().all()):
        raise UserError("images with NaN or infinity, wanted finite ones; get the set again")
    images, rows = decoded(convention.undo(raw.images, network.spec), rows, patches, network.spec)
    return fitted(images, network.spec, options.resize), rows


def _beyond(images: Tensor, network: Network) -> float:
    """The share of pixels out of range by more than a thousandth of it, which no rounding explains."""
    low, high = network.spec.low, network.spec.high
    return float(((images - (low + high) / 2).abs() > 0.501 * (high - low)).float().mean())


def _others(
    read_by: Pixels, raw: Raw, network: Network, labels: str, options: Options, patches: int
) -> dict[str, Trial]:
    """What the teacher sees by other common conventions than the one it was read by; image files have one alone."""
    spec = network.spec
    names = ["0-1", "0-255", f"normalised:{_numbers(spec.mean)}/{_numbers(spec.std)}"] if raw.pixels is None else []
    others = [own for own in map(Pixels.parse, names) if (own.mean, own.std) != (read_by.mean, read_by.std)]
    return {own.name: tried(network, *_understood(raw, network, own, labels, options, patches)) for own in others}


def _check(trial: Trial, images: Tensor, network: Network, others: dict[str, Trial]) -> None:
    """Raises UserError for a reading that the teacher, the range of its pixels, or another reading say is wrong."""
    spec, low, high = network.spec, float(images.min()), float(images.max())
    came = f"pixels came out from {low:.3g} to {high:.3g}"
    best = max(others, key=lambda name: others[name].hits, default=None)
    better = best is not None and others[best].passed and others[best].hits > trial.hits
    other = f" (with --pixels {best}, say, it sees {others[best].accuracy:.1f} %)" if best and better else ""
    if not trial.passed:
        raise UserError(
            f"the teacher sees the labelled class in {trial}, wanted above chance at 1 in {1 / ALPHA:.0f} and at least "
            f"{100 * trial.required:.1f} %; {came}: mostly the wrong --pixels{other}, labels in another order than the "
            "network's classes, or whitened images; give the authors' numbers, or --anyway"
        )
    share = _beyond(images, network)
    if best and trial.beaten(others[best]):
        why, wanted = f"the teacher sees the labelled class in {trial}", f"no other reading so much better{other}"
    elif share > WRONG:
        why, wanted = (
            f"{100 * share:.0f} % of the pixels are out of range, {came}",
            f"at most {100 * WRONG:.0f} %{other}",
        )
    elif high - low < NARROW * (spec.high - spec.low):
        why, wanted = f"{came}, which is one grey", f"some of the range {spec.low:g} to {spec.high:g}{other}"
    else:
        return
    raise UserError(f"{why}, wanted {wanted}; give the authors' --pixels, or --anyway")


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.6g}" for value in values)


def _say(made: Condensed, folder: Path) -> None:
    low, high = float(made.pixels.min()), float(made.pixels.max())
    counts = sorted(set(made.by_class()))
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    size = (folder / FILE).stat().st_size
    print(f"{len(made)} images, {each} a class, pixels from {low:.3g} to {high:.3g}; {size:,} bytes in {folder}")
    print("  what they give away: unknown here; whoever made them knows. Suppose that they show training images.")
