"""datafree report"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..evaluation import evaluate
from ..files import read_json
from ..likeness import Similarity
from ..quantization.folder import is_quantized
from ..release import Release
from ..report import Grid, Line, Report, Row, grid_of, write
from ..runlog import RunLog, versions
from ..syntheticset import SyntheticSet, to_pixels
from .common import Data, Model, Run, load_data, load_network

__all__ = ["report"]

IMAGES_SHOWN = 4096


def report(
    *runs: Path, out: Path, data: Data | None = None, title: str = "datafree report", run: Run | None = None
) -> None:
    """One self-contained page about any number of runs: table, images, curves, settings; run.json's content beside it.

    Example: datafree report teacher baseline student set --data mnist --out report.html

    Parameters
    ----------
    runs
        Release folders, synthetic sets, quantized networks and similarities, as the commands wrote them.
    out
        The HTML file to write.
    title
        Its heading.
    """
    if not runs:
        raise UserError("no runs given, wanted release folders and synthetic sets; name some")
    run = run or Run()
    options = {"title": title, **asdict(data or Data()), **asdict(run)}
    made = RunLog("report", options, list(runs))
    rows, grids, lines, settings, divergences = [], [], [], {}, []
    teachers = {Path(str(_log(folder).get("settings", {}).get("teacher", ""))).resolve() for folder in runs}
    for folder in runs:
        log = _log(folder)
        if (folder / "set.json").is_file():
            grids.append(set_grid(folder))
        elif log.get("verb") == "similarity":
            divergences += [parse_similarity(own) for own in log.get("result", {}).get("similarity", [])]
        elif log.get("verb") == "quantize":
            rows.append(quantized_row(folder, log))
            lines += curve_lines(folder.name, log)
        else:
            rows.append(release_row(folder, log, folder.resolve() in teachers, data, run))
            lines += curve_lines(folder.name, log)
        settings[folder.name] = log.get("settings", {})
    if data is not None and data.data is not None:
        grids.insert(0, real_grid(data, Release.open(_first_release(runs)).spec))
    spec = Release.open(_first_release(runs)).spec
    page = Report(
        title=title, summary=_summary(rows), rows=rows, grids=grids, lines=lines,
        settings={**settings, "versions": versions()}, warnings=_warnings(rows), classes=spec.classes,
        divergences=sorted(divergences, key=lambda own: own.total),
    )  # fmt: skip
    write(page, out)
    made.write_to(out.with_suffix(".run.json"), {"networks": [asdict(row) for row in rows]})
    print(f"{out}: {len(rows)} networks, {len(grids)} sets of images")


def _log(folder: Path) -> dict[str, Any]:
    """The run.json of what made the folder, not of what recorded it."""
    log = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    return log["before"] if isinstance(log.get("before"), dict) else log


def _measured(folder: Path, log: dict[str, Any], data: Data | None, run: Run) -> dict[str, Any]:
    """The evaluation that run.json holds; else one on the test data, where some was named."""
    found = log.get("result", {}).get("evaluation", {})
    if found or data is None or data.data is None:
        return found
    network = load_network(str(folder), Model(), run)
    return asdict(evaluate(network, load_data(data, "test")))


def release_row(folder: Path, log: dict[str, Any], is_teacher: bool, data: Data | None, run: Run) -> Row:
    """A table row from a release and its run.json."""
    release = Release.open(folder)
    verb = log.get("verb")
    found = _measured(folder, log, data, run)
    learnt = str(log.get("settings", {}).get("learns from", ""))
    group = (
        "teacher"
        if is_teacher or verb in (None, "record", "pack")
        else "with data"
        if verb == "train" or "real" in learnt
        else "without data"
    )
    weights = sum(_numbers(shape) for shape in _shapes(release))
    return Row(
        name=folder.name, group=group, accuracy=found.get("accuracy"), agreement=found.get("agreement"),
        parameters=weights, nbytes=(folder / "model.safetensors").stat().st_size, seconds=log.get("seconds"),
        images=None, note=learnt or release.config.get("architecture", ""),
    )  # fmt: skip


def quantized_row(folder: Path, log: dict[str, Any]) -> Row:
    """A table row from the run.json of `datafree quantize`."""
    result, settings = log.get("result", {}), log.get("settings", {})
    found, speed = result.get("evaluation", {}), result.get("speed", {})
    tuned = f", fine-tuned on {settings['finetune']}" if settings.get("finetune") else ""
    if "faster" not in speed or "quantized_bytes" not in speed:
        raise UserError(f"{folder / 'run.json'} is no finished run of datafree quantize; run it again")
    return Row(
        name=folder.name, group="quantized", accuracy=found.get("accuracy"), agreement=found.get("agreement"),
        parameters=int(result["parameters"]), nbytes=int(speed["quantized_bytes"]), seconds=log.get("seconds"), images=None,
        note=f"W{settings.get('weights')}A{settings.get('activations')}, calibrated on {settings.get('calibrate')}{tuned}; "
        f"{speed['faster']:.2f} times as fast{', simulated bits' if result.get('simulated') else ''}",
    )  # fmt: skip


def parse_similarity(own: dict[str, Any]) -> Similarity:
    """One entry of the run.json of `datafree similarity`. Raises UserError for another shape."""
    try:
        layers = {str(tap): float(value) for tap, value in own["by_layer"].items()}
        return Similarity(str(own["name"]), int(own["images"]), float(own["total"]), layers)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError("a run.json of datafree similarity is not as it was written; measure again") from None


def _shapes(release: Release) -> list[tuple[int, ...]]:
    from ..files import read_weights

    return [
        tuple(t.shape)
        for name, t in read_weights(release.weights).items()
        if not name.endswith(("_mean", "_var", "tracked"))
    ]


def _numbers(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def curve_lines(name: str, log: dict[str, Any]) -> list[Line]:
    curve = log.get("result", {}).get("curve", {})
    lines = [Line(name, curve["loss"], "training loss")] if curve.get("loss") else []
    return lines + ([Line(name, curve["scores"], "test accuracy, %")] if curve.get("scores") else [])


def set_grid(folder: Path) -> Grid:
    """Class means and random samples of a synthetic set, by the class that the teacher sees."""
    found = SyntheticSet.open(folder)
    pixels, _, logits = found.load()
    seen = logits.argmax(1)
    note = f"method {found.about['method']['method']}, {len(found):,} images; sorted by the teacher's answer"
    return grid_of(
        folder.name, to_pixels(pixels, found.spec), seen, len(found.spec.classes), spec=found.spec, note=note
    )


def real_grid(data: Data, spec: Any) -> Grid:
    """The same of real images."""
    found = load_data(data, "test").subset(None)
    count = min(len(found), IMAGES_SHOWN)
    shown = found.subset(count)
    pixels = shown.pixels(torch.arange(len(shown)).numpy(), spec.shape[1:])
    return grid_of(f"real: {found.name}", pixels, shown.labels, len(spec.classes), spec=spec, note="test images")


def _first_release(runs: tuple[Path, ...]) -> Path:
    for folder in runs:
        if (folder / "config.json").is_file() and not is_quantized(folder):
            return folder
    raise UserError("no release among the runs, wanted at least the teacher; name its folder too")


def _summary(rows: list[Row]) -> str:
    """What every student reached; none is picked out by its accuracy."""
    parts = []
    for group in ("without data", "quantized", "with data", "teacher"):
        own = [f"{row.name} {row.accuracy:.2f} %" for row in rows if row.group == group and row.accuracy is not None]
        parts += [f"{group}: {', '.join(own)}"] if own else []
    if not parts or not parts[0].startswith(("without", "quantized")):
        parts.insert(0, "no student without data was measured with labels")
    return "Accuracy on the test set. " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _warnings(rows: list[Row]) -> list[str]:
    unmeasured = [row.name for row in rows if row.accuracy is None]
    return [f"no accuracy was measured for {', '.join(unmeasured)}"] if unmeasured else []
