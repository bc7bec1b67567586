"""datafree import-condensed"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from ..data.condensed.condensed_set import FILE, Condensed
from ..data.condensed.importers import Options
from ..data.condensed.importers.judging import read_condensed
from ..runs.output_folder import CONDENSED_FOLDER, output_folder
from ..runs.run_log import RunLog
from .arguments import Model, Run, settings_of
from .loading import check_code, inputs_of, load_network

__all__ = ["import_condensed"]

LOGGED = 8
"""Files of a set whose hashes run.json holds one by one; folders of images have more, and one hash for all."""


def import_condensed(
    source: Path,
    teacher: str,
    /,
    *,
    out: Path,
    pixels: str | None,
    labels: Literal["auto", "hard", "logits"],
    patches: int,
    entry: int,
    layout: Literal["NHWC", "NCHW"] | None,
    zca: bool,
    resize: bool,
    anyway: bool,
    model: Model | None,
    run: Run | None,
) -> None:
    """Does what `import_condensed_command.import_condensed` has the options of."""
    model_options, run = model or Model(), run or Run()
    network = load_network(teacher, model_options, run)
    check_code(teacher, model_options, network)
    options = Options(entry=entry, zca=zca, layout=layout, resize=resize)
    reading = read_condensed(
        source, network, pixels=pixels, labels=labels, patches=patches, options=options, compare=not anyway
    )
    if not anyway:
        reading.check()
    condensed, trial = reading.condensed, reading.trial
    settings = {"pixels": pixels, "labels": labels, "patches": patches, "anyway": anyway, **asdict(options)}
    settings = {"source": source, "teacher": teacher, **settings, **settings_of(model_options), **asdict(run)}
    files = (
        {f"file {index}": file for index, file in enumerate(reading.files, 1)} if len(reading.files) <= LOGGED else {}
    )
    log = RunLog(
        "import-condensed",
        settings,
        {**inputs_of(teacher, model_options, role="teacher"), **files},
        images={"source": list(reading.files)},
    )
    for note in reading.notes:
        print(note)
    print(f"the teacher predicts the labelled class for {trial}")
    if reading.warning is not None:
        print(f"  {reading.warning}")
    with output_folder(out, CONDENSED_FOLDER, log) as folder:
        if folder is None:
            return
        condensed.save(folder)
        log.write(folder, {"images": len(condensed), "accuracy": trial.accuracy, "chance": 100 * trial.chance})
    _say(condensed, folder)


def _say(condensed: Condensed, folder: Path) -> None:
    low, high = float(condensed.pixels.min()), float(condensed.pixels.max())
    counts = sorted(set(condensed.by_class()))
    each = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    size = (folder / FILE).stat().st_size
    print(f"{len(condensed)} images, {each} a class, pixels from {low:.3g} to {high:.3g}; {size:,} bytes in {folder}")
    print("  what they reveal: unknown here; their author knows. Assume that they show training images.")
