"""datafree report"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from cyclopts import Parameter

from .._core.errors import UserError
from .._core.files import locked, read_json, sha256_file, sweep
from .._core.files.atomic import check_name_length, sync_folder
from .._core.folder_kinds import without_logs
from ..evaluation.accuracy import doubt, evaluate
from ..evaluation.report import (
    Grid,
    Line,
    Match,
    OnlineRun,
    Report,
    Row,
    SimilarityTable,
    grid_of,
    online_lines,
    online_run,
    timeline,
    write,
)
from ..evaluation.report.numbers import duration
from ..evaluation.similarity import Similarity, layer_matches
from ..models.class_names import class_positions
from ..models.pixel_bytes import to_pixels
from ..quantization.folder import is_quantized
from ..records.divergence import UNITS, stored_statistics
from ..releases.bits import ends
from ..releases.load import read_code
from ..releases.release import Release
from ..runs.difference import difference
from ..runs.provenance import hash_of, place, shown
from ..runs.run_log import IGNORED, RunLog, versions
from ..runs.run_reader import FinishedRun, Scores
from ..synthesis.synthetic_set import SyntheticSet
from .arguments import Data, Model, Run
from .loading import check_attribute, check_code, images_of, load_data, load_network, load_record

if TYPE_CHECKING:
    from ..data import Dataset
    from ..models.network import Network

__all__ = ["report"]

GENERATOR = b'<meta name="generator" content="datafree">'
"""What a page of datafree's has near its start."""
FEW = "from a few images"
"""The group of students that learnt from condensed images, which may be training images as they are."""
IMAGES_SHOWN = 4096
IMAGES_MATCHED = 512


def report(
    *runs: Path,
    out: Path,
    data: Data | None = None,
    title: str = "datafree report",
    code: Annotated[tuple[str, ...], Parameter(negative="")] = (),
    run: Run | None = None,
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
        Heading of the page.
    code
        file.py:function that builds a network of somebody's own, which is not measured without; repeat it for several, in
        their order among the runs, or as FOLDER=file.py:function.
    """
    if not runs:
        raise UserError("no runs given, wanted release folders and synthetic sets; name some")
    data, run = data or Data(), run or Run()
    check_attribute(data)
    runs = without_logs(runs)
    for folder in runs:
        if not folder.is_dir():
            Release.open(folder)  # says what is wrong
        if FinishedRun.of(folder).verb == "evaluate" and not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} is what datafree evaluate wrote, wanted a release, set or similarity; name the folder of the "
                "network that it measured, and the data with --data"
            )
    _check_page(out)
    codes = _codes(runs, code)
    test = None if data.data is None else load_data(data, "test")
    settings = {"runs": list(map(str, runs)), "title": title, "code": list(code), **asdict(data), **asdict(run)}
    files = [path for name in codes.values() for path in read_code(name)]
    log = RunLog("report", settings, {**_read(runs), "code": files or None}, test)
    with locked(out.parent, file=out.name) if out.parent.is_dir() else nullcontext():
        if _is_complete(out, log):
            print(f"already complete: report in {out}, of the same runs and settings; nothing was changed")
            return
        rows, grids, warnings = _write(out, runs, codes, log, data, test, title, run)
    print(f"{out}: {_count(rows, 'network')}, {_count(grids, 'set')} of images")
    for warning in warnings:
        print(f"  {warning}")


def _write(
    out: Path, runs: tuple[Path, ...], codes: dict[Path, str], log: RunLog, data: Data, test: Dataset | None,
    title: str, run: Run,
) -> tuple[int, int, list[str]]:  # fmt: skip
    """Writes the page and, last, its log; how many networks and sets of images are on it, and its warnings."""
    logs = {folder: FinishedRun.of(folder) for folder in runs}
    sets = [folder for folder in runs if (folder / "set.json").is_file()]
    networks = [folder for folder in runs if folder not in sets and logs[folder].verb != "similarity"]
    spec, teacher = Release.open(_first_release(runs)).spec, _teacher(networks, logs)
    measured, warnings = _measured(networks, logs, teacher, test, run, codes)
    warnings = warnings + _of_other_networks(networks, logs, teacher)
    made_by = {hash_of(folder): logs[folder] for folder in sets}
    rows = [_row(folder, logs[folder], folder == teacher, measured[folder], made_by) for folder in networks]
    grids = [set_grid(folder, logs[folder]) for folder in sets]
    matches, missed = _matches(sets, networks, teacher, run, codes)
    if data.data is not None:
        grids.insert(0, real_grid(data, spec))
    page = Report(
        title=title, summary=_summary(rows), rows=rows, grids=grids,
        lines=[line for folder in networks for line in curve_lines(folder.name, logs[folder])],
        settings={**{folder.name: logs[folder].settings for folder in runs}, "versions": versions()},
        warnings=warnings + _doubts(networks, measured) + missed + _warnings(rows), classes=spec.classes,
        likenesses=_likenesses(logs), matches=matches, online=_online(networks, logs),
        timelines=[found for folder in networks if (found := timeline(folder)) is not None],
    )  # fmt: skip
    write(page, out)
    log.write_to(_beside(out), {"networks": [asdict(row) for row in rows], "page": sha256_file(out)})
    return len(rows), len(grids), page.warnings


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _check_page(out: Path) -> None:
    """Raises UserError where the page, or the log beside it, would take the place of another kind of file."""
    beside = _beside(out)
    check_name_length(beside)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder, wanted a file; give it a name, as in {out / 'report.html'}")
    if os.path.lexists(out) and not _is_page(out, beside):
        raise UserError(f"--out {out} is there already and no page of datafree's, and would be lost; name another file")
    if os.path.lexists(beside) and not stat.S_ISREG(os.lstat(beside).st_mode):
        raise UserError(f"{beside} is there already and no file, and would be lost; name another --out")
    if beside.is_file() and read_json(beside).get("verb") != "report":
        raise UserError(f"{beside} is there already and is no report's, and would be lost; name another --out")


def _read(runs: tuple[Path, ...]) -> dict[str, str | Path | None]:
    """What the page is made from, by path."""
    files = [folder / name for folder in runs for name in ("run.json", "record.safetensors")]
    return {str(path): path for path in (*runs, *files)}


def _is_complete(out: Path, log: RunLog) -> bool:
    """Whether the page is that of this very run. Raises UserError for another run's, which would be lost.

    A page without a log is of a run that was stopped, and is made again; so is one that has changed since.
    """
    beside = _beside(out)
    for path in (out, beside) if out.parent.is_dir() else ():
        sweep(path.parent, name=path.name)
    if not out.exists():
        if beside.exists():  # the log of a page that is gone
            beside.unlink()
            sync_folder(beside)
        return False
    old = read_json(beside) if beside.is_file() else {}
    result = old.get("result")
    if not isinstance(result, dict) or "page" not in result:  # of an earlier version
        return False
    other = difference(log.private, old)
    if other is not None:
        raise UserError(f"{out} was made {other}: name another --out, or remove that page first")
    return result["page"] == sha256_file(out)


def _beside(out: Path) -> Path:
    """The page's log: its whole name is in the log's, since teacher.run.json is the log of a folder `teacher`."""
    return out.with_name(f"{out.name}.run.json")


def _is_page(path: Path, log: Path) -> bool:
    """Whether datafree wrote the page; those of earlier versions are known by their log."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    with path.open("rb") as file:
        start = file.read(2048)
    if not start.lstrip().startswith(b"<!doctype html>"):
        return False
    return GENERATOR in start or (log.is_file() and read_json(log).get("verb") == "report")


def _teacher(networks: list[Path], logs: dict[Path, FinishedRun]) -> Path | None:
    """The release that another run learnt from or was quantized from, by its content; in older logs by its path or, where
    that is elsewhere now, by its name."""
    read = {log.inputs.get("model" if log.verb == "quantize" else "teacher") for log in logs.values()}
    for folder in networks:
        if hash_of(folder) in read:
            return folder
    settings = [log.settings.get("model" if log.verb == "quantize" else "teacher") for log in logs.values()]
    teachers = [str(name) for name in settings if name]
    paths, names = set(map(_real, teachers)), {Path(name).name for name in teachers}
    for folder in networks:
        if os.path.realpath(folder) in paths:
            return folder
    return next((folder for folder in networks if folder.name in names), None)


def _of_other_networks(networks: list[Path], logs: dict[Path, FinishedRun], teacher: Path | None) -> list[str]:
    """A warning for each network that was made from another one than the teacher that all are compared with."""
    if teacher is None:
        return []
    names = {hash_of(folder): folder.name for folder in networks}
    expected, warnings = hash_of(teacher), []
    for folder in networks:
        source = logs[folder].inputs.get("model" if logs[folder].verb == "quantize" else "teacher")
        if folder != teacher and source is not None and source != expected:
            warnings.append(
                f"{folder.name} was made from {names.get(str(source), 'another network')}; its agreement here is with "
                f"{teacher.name}"
            )
    return warnings


def _measured(
    networks: list[Path],
    logs: dict[Path, FinishedRun],
    teacher: Path | None,
    test: Dataset | None,
    run: Run,
    codes: dict[Path, str],
) -> tuple[dict[Path, Scores], list[str]]:
    """Every network on the test data, beside the teacher; without data, what the runs' own logs say."""
    if test is None:
        told = any(logs[folder].result.evaluation.accuracy is not None for folder in networks)
        note = "accuracies are what the runs' own logs say of their own test data; --data measures them here"
        return {folder: logs[folder].result.evaluation for folder in networks}, [note] if told else []
    found, warnings = {}, []
    original = None if teacher is None else _network(teacher, run, codes)
    for folder in networks:
        network = _network(folder, run, codes)
        if network is None:
            found[folder] = Scores()
            warnings.append(
                f"{folder.name} is of its publisher's own code and was not measured here; name it with --code"
            )
            continue
        own = evaluate(network, test, original if folder != teacher else None)
        found[folder] = Scores(accuracy=own.accuracy, agreement=own.agreement, images=own.images)
    return found, warnings


def _codes(runs: tuple[Path, ...], named: tuple[str, ...]) -> dict[Path, str]:
    """What builds each network of somebody's own, by its folder. Raises UserError for a name that belongs to none."""
    custom = [
        folder
        for folder in runs
        if (folder / "config.json").is_file() and not is_quantized(folder) and Release.open(folder).custom
    ]
    codes: dict[Path, str] = {}
    for own in named:
        place, _, code = own.rpartition("=")
        if place:
            meant = [folder for folder in custom if folder.resolve() == Path(place).resolve() or folder.name == place]
        else:
            meant = [folder for folder in custom if folder not in codes][:1]
        if len(meant) != 1:
            names = ", ".join(map(str, custom)) or "none"
            raise UserError(
                f"--code: got {own!r}, which fits {len(meant)} of the runs of somebody's own code ({names}), wanted one; "
                "give FOLDER=file.py:function for one of them"
            )
        codes[meant[0]] = code
    return codes


def _network(folder: Path, run: Run, codes: dict[Path, str]) -> Network | None:
    """None for a release that needs code, where none was named."""
    if Release.open(folder).custom and not is_quantized(folder) and folder not in codes:
        return None
    source = Model(code=codes.get(folder))
    network = load_network(str(folder), source, run)
    check_code(str(folder), source, network)
    return network


def _real(name: str) -> str | None:
    """The absolute path without links; None for a name that no file can have."""
    try:
        return os.path.realpath(name)
    except (ValueError, OSError):  # a NUL, or a lone surrogate
        return None


def _likenesses(logs: dict[Path, FinishedRun]) -> list[SimilarityTable]:
    """The similarities among the runs, those together that can be compared: of one network, form and way of showing."""
    groups: dict[tuple[str, ...], list[Path]] = {}
    for folder, log in logs.items():
        if log.verb == "similarity" and log.result.similarity:
            network = [str(log.settings.get(key)) for key in ("model", "code", "weights", "record")]
            how = [str(log.settings.get(key, 0)) for key in ("form", "shift", "flip")]
            groups.setdefault(
                (*(log.inputs.get(own, own) for own in network), log.inputs.get("record", ""), *how), []
            ).append(folder)
    names = {place(folder): folder.name for folder in logs}
    return [_likeness({folder: logs[folder] for folder in own}, names) for own in groups.values()]


def _likeness(logs: dict[Path, FinishedRun], releases: dict[str, str]) -> SimilarityTable:
    pairs = [(folder, entry) for folder, log in logs.items() for entry in log.result.similarity]
    counts_by_name = Counter(entry.name for _, entry in pairs)
    similarities = [
        Similarity(
            **{
                **entry.model_dump(),
                "name": entry.name if counts_by_name[entry.name] == 1 else f"{entry.name} ({folder.name})",
            }
        )
        for folder, entry in pairs
    ]
    settings = next(iter(logs.values())).settings
    form, counts = str(settings.get("form", "forward")), sorted({entry.images for entry in similarities})
    unit = UNITS.get(form, "")
    name = releases.get(str(settings.get("model")), settings.get("model"))
    parts = [
        f"{name}: {form}, {f'in {unit}' if unit else 'without a unit'}",
        f"{counts[0]:,} images each" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} images",
        _shown(settings),
        f"from {', '.join(folder.name for folder in logs)}",
    ]
    return SimilarityTable("; ".join(parts), sorted(similarities, key=lambda entry: entry.total), unit)


def _online(networks: list[Path], logs: dict[Path, FinishedRun]) -> list[OnlineRun]:
    """The online runs; a series is of those with the same settings but for the seed, from the same inputs."""
    found = []
    for folder in networks:
        log = logs[folder]
        if log.result.online is not None:
            own = {key: value for key, value in log.settings.items() if key not in (*IGNORED, "seed")}
            series = json.dumps([log.verb, own, log.inputs], sort_keys=True)
            memory = log.settings.get("replay")
            kind = str(memory.get("replay", ""))[:80] if isinstance(memory, dict) else ""
            found.append(online_run(folder.name, log.result.online, kind, series))
    return found


def _shown(settings: dict[str, Any]) -> str:
    moved = [f"moved by up to {settings['shift']} pixels"] if settings.get("shift") else []
    moved += ["mirrored half of the time"] if settings.get("flip") else []
    return f"shown as in training ({', '.join(moved)})" if moved else "shown as they are"


def _matches(
    sets: list[Path], networks: list[Path], teacher: Path | None, run: Run, codes: dict[Path, str]
) -> tuple[list[Match], list[str]]:
    """What sets match of the statistics that the network they were made from stored, where that is among the runs."""
    wanted: dict[str, list[Path]] = {}
    for folder in sets:
        wanted.setdefault(str(SyntheticSet.open(folder).about["teacher"]), []).append(folder)
    found, warnings = [], []
    for folder in sorted(networks, key=lambda own: own != teacher):
        if not wanted:
            break
        network = None if is_quantized(folder) else _network(folder, run, codes)
        own = [] if network is None else wanted.pop(network.fingerprint(), [])
        if own and network is not None:
            match, missed = _match(folder, network, own, run)
            found, warnings = found + match, warnings + missed
    return found, warnings


def _match(folder: Path, network: Network, sets: list[Path], run: Run) -> tuple[list[Match], list[str]]:
    record = load_record(str(folder), Model(), network)
    try:
        layers = stored_statistics(network, record)
    except UserError:  # it stored nothing to match
        return [], []
    found, warnings = [], []
    for own in sets:
        opened = SyntheticSet.open(own)
        pixels = to_pixels(opened.load()[0][:IMAGES_MATCHED], opened.spec)
        try:
            found.append(layer_matches(network, own.name, pixels, layers))
        except UserError as error:
            warnings.append(f"{own.name} was not matched: {error}")
    noise = images_of("noise", network, "test", IMAGES_MATCHED, Data(), run.seed)
    assert isinstance(noise, torch.Tensor)
    found.append(layer_matches(network, "noise", noise, layers, reference=True))
    caption = f"{folder.name}: at most {IMAGES_MATCHED} images of each set, shown as they are; noise in grey"
    return [Match(caption, found)] if len(found) > 1 else [], warnings


def release_row(
    folder: Path, log: FinishedRun, is_teacher: bool, found: Scores, sets: Mapping[str, FinishedRun] | None = None
) -> Row:
    """A table row from a release and its run.json; `sets` are the logs of the synthetic sets at hand, by their hash."""
    release = Release.open(folder)
    learnt = str(log.settings.get("learns_from", ""))
    group = (
        "teacher"
        if is_teacher or log.verb in (None, "record", "pack")
        else "with data"
        if log.verb == "train" or "real" in learnt
        else FEW
        if "condensed" in learnt or "a synthetic set of expand" in learnt
        else "without data"
    )
    weights = sum(_numbers(shape) for shape in _shapes(release))
    return Row(
        name=folder.name, group=group, accuracy=found.accuracy, agreement=found.agreement,
        parameters=weights, nbytes=(folder / "model.safetensors").stat().st_size, seconds=log.whole_seconds,
        images=log.distinct_images, note=_note(learnt or str(release.config.get("architecture", "")), log, sets),
    )  # fmt: skip


def _row(folder: Path, log: FinishedRun, is_teacher: bool, found: Scores, sets: Mapping[str, FinishedRun]) -> Row:
    if is_quantized(folder):
        return quantized_row(folder, log, found)
    return release_row(folder, log, is_teacher, found, sets)


def _note(words: str, log: FinishedRun, sets: Mapping[str, FinishedRun] | None) -> str:
    """What a network learnt from and, of a stored set, what making it took, by the set's own log: it is not in the time."""
    if "condensed images" in words:
        words += " (their card says whether they are training images)"
    if "a synthetic set" not in words:
        return words
    own = [sets[digest] for digest in log.inputs.values() if digest in sets] if sets else []
    return f"{words}, {_making(own[0] if own else None)}"


def _making(log: FinishedRun | None) -> str:
    seconds = None if log is None else log.whole_seconds
    return "time to make its images unknown" if seconds is None else f"images made in {duration(seconds)}"


def quantized_row(folder: Path, log: FinishedRun, found: Scores) -> Row:
    """A table row from the run.json of `datafree quantize`."""
    settings, speed = log.settings, log.result.speed
    if speed is None or log.result.parameters is None:
        raise UserError(f"{folder / 'run.json'} is no finished run of datafree quantize; run it again")
    tuned = f", fine-tuned on {shown(settings['finetune'])}" if settings.get("finetune") else ""
    return Row(
        name=folder.name, group="quantized", accuracy=found.accuracy, agreement=found.agreement,
        parameters=log.result.parameters, nbytes=speed.quantized_bytes, seconds=log.whole_seconds, images=log.result.images,
        note=f"W{settings.get('weights')}A{settings.get('activations')}"
        f"{ends(settings.get('first'), settings.get('last'))}, calibrated on {shown(settings.get('calibrate'))}{tuned}; "
        f"{speed.faster:.2f} times as fast{', simulated bits' if log.result.simulated else ''}",
    )  # fmt: skip


def _shapes(release: Release) -> list[tuple[int, ...]]:
    from .._core.files import read_weights

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


def curve_lines(name: str, log: FinishedRun) -> list[Line]:
    """The curves that a run.json holds."""
    if log.result.online is not None:
        return online_lines(name, log.result.online)
    curve = log.result.curve
    lines = [Line(name, list(curve.loss), "training loss")] if curve.loss else []
    return lines + ([Line(name, list(curve.scores), "test accuracy, %")] if curve.scores else [])


def set_grid(folder: Path, log: FinishedRun | None = None) -> Grid:
    """Class means and random samples of a synthetic set, by the class that the teacher sees."""
    found = SyntheticSet.open(folder)
    found.check_hits()
    pixels, _, logits = found.load()
    seen = logits.argmax(1)
    note = f"method {found.about['method']['method']}, {len(found):,} {_making(log)}; sorted by the teacher's answer"
    if (warning := found.warning()) is not None:
        note += f"; {warning}"
    return grid_of(
        folder.name, to_pixels(pixels, found.spec), seen, len(found.spec.classes), spec=found.spec, note=note
    )


def real_grid(data: Data, spec: Any) -> Grid:
    """The same of real images."""
    found = load_data(data, "test", quiet=True)
    positions = class_positions(found.classes, spec.classes, found.name, "the teacher", part=True)
    found = found.relabelled(positions, spec.classes).scaled_to(spec)
    count = min(len(found), IMAGES_SHOWN)
    shown = found.subset(count)
    pixels = shown.pixels(torch.arange(len(shown)).numpy(), spec.shape[1:])
    return grid_of(f"real: {found.public}", pixels, shown.labels, len(spec.classes), spec=spec, note="test images")


def _first_release(runs: tuple[Path, ...]) -> Path:
    for folder in runs:
        if (folder / "config.json").is_file() and not is_quantized(folder):
            return folder
    raise UserError("no release among the runs, wanted at least the teacher; name its folder too")


def _summary(rows: list[Row]) -> str:
    """What every student reached; none is picked out by its accuracy."""
    parts = []
    for group in ("without data", FEW, "quantized", "with data", "teacher"):
        own = [f"{row.name} {row.accuracy:.2f} %" for row in rows if row.group == group and row.accuracy is not None]
        parts += [f"{group}: {', '.join(own)}"] if own else []
    if not parts:
        return "No accuracy was measured: --data names labelled images to measure on."
    if not parts[0].startswith(("without", FEW, "quantized")):
        parts.insert(0, "no student without data was measured with labels")
    return "Accuracy on the test set. " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _doubts(networks: list[Path], measured: dict[Path, Scores]) -> list[str]:
    """A warning for each accuracy that is hardly above that of guessing, as `datafree evaluate` prints it."""
    warnings = []
    for folder in networks:
        scores = measured[folder]
        if scores.accuracy is None or scores.images is None:
            continue
        if warning := doubt(scores.accuracy, scores.images, len(Release.open(folder).spec.classes)):
            warnings.append(f"{folder.name}: accuracy {scores.accuracy:.2f} % is {warning}")
    return warnings


def _warnings(rows: list[Row]) -> list[str]:
    unmeasured = [row.name for row in rows if row.accuracy is None]
    return [f"no accuracy was measured for {', '.join(unmeasured)}"] if unmeasured else []
