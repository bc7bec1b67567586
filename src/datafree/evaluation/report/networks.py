"""The networks of a report: opens them, finds the teacher, and measures all on one data set."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..._core.errors import UserError
from ...data import Dataset
from ...models.network import Network
from ...quantization.folder import is_quantized
from ...releases.load import load_model
from ...releases.release import Release
from ...runs.provenance import hash_of
from ...runs.run_reader import FinishedRun, Scores
from ..accuracy import doubt, evaluate

__all__ = [
    "NetworkOpener",
    "code_by_folder",
    "doubts",
    "find_teacher",
    "measured",
    "trusted_code",
    "warn_of_missing_code",
    "warn_of_other_teachers",
]


@dataclass(frozen=True)
class NetworkOpener:
    """Opens the networks of a report's folders."""

    codes: Mapping[Path, str]
    """Folder -> `file.py:function` that builds its network, for custom networks."""
    device: str = "cpu"
    networks: Mapping[Path, Network] = field(default_factory=dict)
    """Folder -> its network, for networks that are already open."""
    trusted: frozenset[Path] = frozenset()
    """Folders whose own code may run."""

    def open(self, folder: Path) -> Network | None:
        """The network in `folder`; None for a custom network without code.

        Raises UserError if the code builds another function of the release's weights.
        """
        if folder in self.networks:
            return self.networks[folder]
        quantized, code, trust = is_quantized(folder), self.codes.get(folder), folder in self.trusted
        if not quantized and code is None and not trust and Release.open(folder).custom:
            return None
        network = load_model(str(folder), code=code, trust=trust)
        network.module.to(self.device)
        if (code is not None or trust) and not quantized:
            Release.open(folder).record(network)  # checks the logits that it stores
        return network


def warn_of_missing_code(sets: Sequence[str], networks: Sequence[Path], opener: NetworkOpener) -> list[str]:
    """A warning if these sets may be of one of the custom networks that could not be opened; none otherwise."""
    closed = [folder for folder in networks if not is_quantized(folder) and opener.open(folder) is None]
    if not sets or not closed:
        return []
    return [
        f"the images of {', '.join(sets)} were not compared with the statistics of their network, which may be "
        f"{' or '.join(folder.name for folder in closed)}, a custom network whose code was not given; "
        f"{_how_to_give_code(closed)}"
    ]


def _how_to_give_code(folders: Sequence[Path]) -> str:
    """What to do so that these custom networks are opened, from Python and as a command: a page is read by users of both."""
    if all(Release.open(folder).listed_code is not None for folder in folders):
        run = "datafree report ... --trust, or from Python report(..., trust=True)"
        return f"read what is in its folder code and run it: {run}"
    codes = " ".join(f"--code {shlex.quote(folder.name)}=file.py:function" for folder in folders)
    networks = ", ".join(f"{folder.name!r}: network" for folder in folders)
    return f"give it: datafree report ... {codes}, or from Python report(..., networks={{{networks}}})"


def trusted_code(folders: Sequence[Path], others: Iterable[Path]) -> dict[Path, list[Path]]:
    """The files of the code that releases hold, by folder; without the `others`, which are opened in another way."""
    files: dict[Path, list[Path]] = {}
    for folder in folders:
        if folder in others or not (folder / "config.json").is_file() or is_quantized(folder):
            continue
        if (listed := Release.open(folder).listed_code) is not None:
            files[folder] = listed.paths(folder)
    return files


def code_by_folder(folders: Sequence[Path], codes: Sequence[str]) -> dict[Path, str]:
    """The code of each custom network: `codes` in the order of the folders, or as FOLDER=file.py:function.

    Raises UserError for a name that does not belong to exactly one of the folders.
    """
    custom = [
        folder
        for folder in folders
        if (folder / "config.json").is_file() and not is_quantized(folder) and Release.open(folder).custom
    ]
    by_folder: dict[Path, str] = {}
    for name in codes:
        place, _, code = name.rpartition("=")
        if place:
            matches = [folder for folder in custom if folder.resolve() == Path(place).resolve() or folder.name == place]
        else:
            matches = [folder for folder in custom if folder not in by_folder][:1]
        if len(matches) != 1:
            names = ", ".join(map(str, custom)) or "none"
            raise UserError(
                f"code: got {name!r}, which fits {len(matches)} of the custom networks among the runs ({names}), expected "
                "one; give FOLDER=file.py:function for one of them"
            )
        by_folder[matches[0]] = code
    return by_folder


def find_teacher(networks: list[Path], logs: Mapping[Path, FinishedRun], opener: NetworkOpener) -> Path | None:
    """The release that another run learned from or was quantized from; None if there is none.

    Found by its content; for runs from Python by its fingerprint; for older logs by its path, or by its name if it was
    moved.
    """
    hashes = {_source(log.inputs, log) for log in logs.values()} - {None}
    for folder in networks:
        if hash_of(folder) in hashes:
            return folder
    fingerprints = {log.inputs.get(f"{_role(log)}_fingerprint") for log in logs.values()} - {None}
    for folder in networks if fingerprints else ():
        if _fingerprint(folder, opener) in fingerprints:
            return folder
    teachers = [str(name) for log in logs.values() if (name := _source(log.settings, log))]
    paths, names = set(map(_real_path, teachers)), {Path(name).name for name in teachers}
    for folder in networks:
        if os.path.realpath(folder) in paths:
            return folder
    return next((folder for folder in networks if folder.name in names), None)


def _role(log: FinishedRun) -> str:
    return "model" if log.verb == "quantize" else "teacher"


def _source(values: Mapping[str, object], log: FinishedRun) -> object:
    """The entry of settings or inputs for the network that a run started from."""
    return values.get(_role(log))


def _fingerprint(folder: Path, opener: NetworkOpener) -> str | None:
    """None for a quantized network, which cannot be a teacher, and for a custom network without code."""
    network = None if is_quantized(folder) else opener.open(folder)
    return None if network is None else network.fingerprint()


def _real_path(name: str) -> str | None:
    """The absolute path without links; None for an impossible file name."""
    try:
        return os.path.realpath(name)
    except (ValueError, OSError):  # a NUL, or a lone surrogate
        return None


def warn_of_other_teachers(networks: list[Path], logs: Mapping[Path, FinishedRun], teacher: Path | None) -> list[str]:
    """A warning for each network that was made from another network than the common teacher."""
    if teacher is None:
        return []
    names = {hash_of(folder): folder.name for folder in networks}
    expected, warnings = hash_of(teacher), []
    for folder in networks:
        source = _source(logs[folder].inputs, logs[folder])
        if folder != teacher and source is not None and source != expected:
            warnings.append(
                f"{folder.name} was made from {names.get(str(source), 'another network')}; its agreement here is with "
                f"{teacher.name}"
            )
    return warnings


def measured(
    networks: list[Path],
    logs: Mapping[Path, FinishedRun],
    teacher: Path | None,
    data: Dataset | None,
    opener: NetworkOpener,
) -> tuple[dict[Path, Scores], list[str]]:
    """Every network's scores on `data`, and warnings; without data, the scores in the runs' logs."""
    if data is None:
        any_logged = any(logs[folder].result.evaluation.accuracy is not None for folder in networks)
        note = "accuracies are those in the runs' logs, on each run's own test data; no data was given to measure them here"
        return {folder: logs[folder].result.evaluation for folder in networks}, [note] if any_logged else []
    scores, warnings = {}, []
    original = None if teacher is None else opener.open(teacher)
    for folder in networks:
        network = opener.open(folder)
        if network is None:
            scores[folder] = Scores()
            warnings.append(
                f"{folder.name} is a custom network and was not measured, because its code was not given; "
                f"{_how_to_give_code([folder])}"
            )
            continue
        result = evaluate(network, data, original if folder != teacher else None)
        scores[folder] = Scores(accuracy=result.accuracy, agreement=result.agreement, images=result.images)
    return scores, warnings


def doubts(networks: list[Path], scores: Mapping[Path, Scores]) -> list[str]:
    """A warning for each accuracy near chance, as `datafree evaluate` prints it."""
    warnings = []
    for folder in networks:
        score = scores[folder]
        if score.accuracy is None or score.images is None:
            continue
        if warning := doubt(score.accuracy, score.images, len(Release.open(folder).spec.classes)):
            warnings.append(f"{folder.name}: accuracy {score.accuracy:.2f} % is {warning}")
    return warnings
