"""Collects the contents of a report from the folders of runs, measures the networks, and writes the page and its log."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..._core.arguments import checked
from ..._core.device import check_device
from ..._core.errors import UserError
from ..._core.files import locked, read_json, read_weights, sha256_file, sweep
from ..._core.files.atomic import check_name_length, sync_folder
from ..._core.folder_kinds import without_logs
from ...data import Dataset
from ...data.adapters import LabelledData, as_dataset
from ...data.registry import PATHS
from ...models.input_spec import InputSpec
from ...models.network import Network
from ...quantization.folder import is_quantized
from ...releases.load import read_code
from ...releases.release import Release
from ...runs.difference import difference
from ...runs.provenance import IN_MEMORY, hash_of, is_known
from ...runs.run_log import RunLog, versions
from ...runs.run_reader import FinishedRun
from .groups import online_runs, similarity_tables
from .measured_on import measured_on, public_notes
from .model import Report, Row
from .networks import (
    NetworkOpener,
    code_by_folder,
    doubts,
    find_teacher,
    measured,
    trusted_code,
    warn_of_other_teachers,
)
from .page import write
from .rows import FEW, curve_lines, network_row
from .sets import matches, real_grid, set_grid
from .setting_names import named_settings
from .timelines import timeline

__all__ = ["WrittenReport", "collect", "report"]

GENERATOR = b'<meta name="generator" content="datafree">'
"""Line near the start of every page that datafree writes."""


@dataclass(frozen=True)
class WrittenReport:
    """A report on disk."""

    path: Path
    """The page. Its log, with the numbers of the table, is `PAGE.run.json` beside it."""
    networks: int
    """Number of networks in the table."""
    sets: int
    """Number of image sets that are shown."""
    warnings: tuple[str, ...]
    """The page's warnings, one line each."""
    unchanged: bool = False
    """Whether the page already existed, for the same runs and settings; the counts above are 0 then."""


@checked
def report(
    runs: Sequence[str | Path],
    out: str | Path = Path("report.html"),
    data: LabelledData | None = None,
    *,
    title: str = "datafree report",
    code: Sequence[str] = (),
    networks: Mapping[str, Network] | None = None,
    device: str = "cpu",
    seed: int = 0,
    replace: bool = False,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> WrittenReport:
    """Writes one self-contained page about any number of runs: a table, images, curves and settings.

    `runs` are folders written by the commands, `write_release` and `QuantizedNetwork.save`: releases, synthetic sets,
    quantized networks, similarities. Every network is measured on `data` (what `load_data` returns, a torch Dataset or
    DataLoader, or a pair of images and labels) and compared with the release that others learned from. Without data, the
    page shows the numbers in the runs' logs. `code` names the code that builds custom networks: ``file.py:function``, in the
    order of the runs, or ``FOLDER=file.py:function``. `networks` are custom networks by folder, or its name, that are
    already open, as from ``load_model(folder, module=...)``. `trust` runs the code that releases hold, where no other is
    given. `replace` overwrites an existing report of other runs or
    settings, but no other file. `settings` are written to the page's log; by default the arguments.

    Raises UserError for a folder that holds no run, for runs without a release, and if `out` or its log would replace
    another file. Nothing is left half-written.
    """
    if not runs:
        raise UserError("runs: got none, expected release folders and synthetic sets; name some")
    check_device(device)
    folders = without_logs([Path(run) for run in runs])
    out = Path(out)
    for folder in folders:
        if not folder.is_dir():
            Release.open(folder)  # says what is wrong
        if FinishedRun.of(folder).verb == "evaluate" and not (folder / "config.json").is_file():
            raise UserError(
                f"{folder} was written by datafree evaluate, expected a release, set or similarity; name the folder of the "
                "network that it measured, and give `data` to measure it on"
            )
    _check_page(out)
    open_networks = _by_folder(folders, networks or {})
    test = None if data is None else as_dataset(data, _spec(folders))
    codes = code_by_folder(folders, code)
    trusted = trusted_code(folders, (*codes, *open_networks)) if trust else {}
    settings = settings or _settings(folders, test, title, code, seed) | ({"trust": True} if trust else {})
    if networks:  # the networks that are measured are another page's
        settings = {**settings, "networks": sorted(map(str, open_networks))}
    log = _log(folders, codes, trusted, test, settings)
    with locked(out.parent, file=out.name) if out.parent.is_dir() else nullcontext():
        if _is_complete(out, log, replace):
            return WrittenReport(out, 0, 0, (), unchanged=True)
        opener = NetworkOpener(codes, device, open_networks, frozenset(trusted))
        page = collect(folders, test, title=title, opener=opener, seed=seed)
        write(page, out)
        log.write_to(_log_path(out), {"networks": [asdict(row) for row in page.rows], "page": sha256_file(out)})
    return WrittenReport(out, len(page.rows), len(page.grids), tuple(page.warnings))


def collect(
    folders: Sequence[Path], data: Dataset | None, *, title: str, opener: NetworkOpener, seed: int = 0
) -> Report:
    """The contents of the page. Writes nothing."""
    logs = {folder: FinishedRun.of(folder) for folder in folders}
    sets = [folder for folder in folders if (folder / "set.json").is_file()]
    networks = [folder for folder in folders if folder not in sets and logs[folder].verb != "similarity"]
    spec, teacher = _spec(folders), find_teacher(networks, logs, opener)
    scores, warnings = measured(networks, logs, teacher, data, opener)
    warnings = warnings + warn_of_other_teachers(networks, logs, teacher)
    logs_by_hash = {hash_of(folder): logs[folder] for folder in sets}
    rows = [network_row(folder, logs[folder], folder == teacher, scores[folder], logs_by_hash) for folder in networks]
    grids = [] if data is None else [real_grid(data, spec)]
    set_matches, unmatched = matches(sets, networks, teacher, opener, seed)
    return Report(
        title=title, summary=_summary(rows, data), rows=rows,
        grids=grids + [set_grid(folder, logs[folder]) for folder in sets],
        lines=[line for folder in networks for line in curve_lines(folder.name, logs[folder])],
        settings={**{folder.name: named_settings(logs[folder]) for folder in folders}, "versions": versions()},
        warnings=warnings + doubts(networks, scores) + unmatched + _unmeasured(rows), classes=spec.classes,
        similarities=similarity_tables(logs), matches=set_matches, online=online_runs(networks, logs),
        measured_on="" if data is None else measured_on(data), data_notes=() if data is None else public_notes(data),
        timelines=[images for folder in networks if (images := timeline(folder)) is not None],
    )  # fmt: skip


def _by_folder(folders: Sequence[Path], networks: Mapping[str, Network]) -> dict[Path, Network]:
    """The open networks by folder. Raises UserError for a folder that is not among the runs, and for other weights."""
    by_folder: dict[Path, Network] = {}
    for name, network in networks.items():
        matches = [folder for folder in folders if folder.resolve() == Path(name).resolve()]
        matches = matches or [folder for folder in folders if folder.name == str(name)]
        if len(matches) != 1:
            several = f", of which {len(matches)} have that name" if matches else ""
            raise UserError(
                f"networks: got one for {name}, expected a folder among the runs{several}; give its path, or leave it out"
            )
        folder = matches[0]
        by_folder[folder] = network
        if not is_quantized(folder):
            weights = read_weights(Release.open(folder).weights)
            state = network.module.state_dict()
            if state.keys() != weights.keys() or any(
                not torch.equal(state[name].cpu(), weights[name]) for name in state
            ):
                raise UserError(
                    f"networks: got a network with other weights than those in {folder}, expected its own; open it with "
                    "load_model(folder, module=...)"
                )
    return by_folder


# -- the page's file and its log ------------------------------------------------------------


def _settings(
    folders: Sequence[Path], data: Dataset | None, title: str, code: Sequence[str], seed: int
) -> dict[str, Any]:
    """Settings in the log of a call from Python."""
    name = None if data is None else data.name
    if data is not None and not is_known(data.name) and data.public not in PATHS.values():
        name = IN_MEMORY
    return {"runs": list(map(str, folders)), "title": title, "code": list(code), "data": name, "seed": seed}


def _log(
    folders: Sequence[Path], codes: Mapping[Path, str], trusted: Mapping[Path, list[Path]], data: Dataset | None,
    settings: Mapping[str, Any],
) -> RunLog:  # fmt: skip
    files = [folder / name for folder in folders for name in ("run.json", "record.safetensors")]
    sources = {str(path): path for path in (*folders, *files)}
    code_files = [path for name in codes.values() for path in read_code(name)]
    code_files += [path for paths in trusted.values() for path in paths]
    return RunLog("report", dict(settings), {**sources, "code": code_files or None}, data)


def _check_page(out: Path) -> None:
    """Raises UserError if the page, or the log beside it, would replace another kind of file."""
    log_path = _log_path(out)
    check_name_length(log_path)
    if out.is_dir():
        raise UserError(f"out: got {out}, a folder, expected a file; give it a name, as in {out / 'report.html'}")
    if os.path.lexists(out) and not _is_page(out, log_path):
        raise UserError(f"{out} exists, is no page of datafree's and would be lost; name another file")
    if os.path.lexists(log_path) and not stat.S_ISREG(os.lstat(log_path).st_mode):
        raise UserError(f"{log_path} exists, is no file and would be lost; name another file")
    if log_path.is_file() and read_json(log_path).get("verb") != "report":
        raise UserError(f"{log_path} exists, is no log of a report and would be lost; name another file")


def _is_complete(out: Path, log: RunLog, replace: bool) -> bool:
    """Whether the page was made by this same run. Raises UserError if it was made by another run and is not to be replaced.

    A page without a log belongs to a stopped run and is made again; so is a page that was changed.
    """
    log_path = _log_path(out)
    for path in (out, log_path) if out.parent.is_dir() else ():
        sweep(path.parent, name=path.name)
    if not out.exists():
        if log_path.exists():  # the log of a removed page
            log_path.unlink()
            sync_folder(log_path)
        return False
    existing_log = read_json(log_path) if log_path.is_file() else {}
    result = existing_log.get("result")
    if not isinstance(result, dict) or "page" not in result:  # of an earlier version
        return False
    changed = difference(log.private, existing_log)
    if changed is not None and replace:
        return False
    if changed is not None:
        raise UserError(f"{out} was made {changed}: give `replace=True` to overwrite it, or name another `out`")
    return result["page"] == sha256_file(out)


def _log_path(out: Path) -> Path:
    """The page's log. Its name contains the page's suffix, since teacher.run.json is the log of a folder `teacher`."""
    return out.with_name(f"{out.name}.run.json")


def _is_page(path: Path, log: Path) -> bool:
    """Whether datafree wrote the page. Pages of earlier versions are recognised by their log."""
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return False
    with path.open("rb") as file:
        start = file.read(2048)
    if not start.lstrip().startswith(b"<!doctype html>"):
        return False
    return GENERATOR in start or (log.is_file() and read_json(log).get("verb") == "report")


# -- summary ------------------------------------------------------------------------------


def _spec(folders: Sequence[Path]) -> InputSpec:
    for folder in folders:
        if (folder / "config.json").is_file() and not is_quantized(folder):
            return Release.open(folder).spec
    raise UserError("runs: got no release, expected at least the teacher; name its folder too")


def _summary(rows: Sequence[Row], data: Dataset | None) -> str:
    """The accuracy of every network; none is selected by it."""
    parts = []
    for group in ("without data", FEW, "quantized", "with data", "teacher"):
        scores = [f"{row.name} {row.accuracy:.2f} %" for row in rows if row.group == group and row.accuracy is not None]
        parts += [f"{group}: {', '.join(scores)}"] if scores else []
    if not parts:
        return "No accuracy was measured, because no labelled data was given."
    if not parts[0].startswith(("without", FEW, "quantized")):
        parts.insert(0, "no student without data was measured with labels")
    subject = "each run's own test data" if data is None else measured_on(data)
    return f"Accuracy on {subject}. " + ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _unmeasured(rows: Sequence[Row]) -> list[str]:
    names = [row.name for row in rows if row.accuracy is None]
    return [f"no accuracy was measured for {', '.join(names)}"] if names else []
