"""The networks of a report: opened, told apart from their teacher, and measured on one data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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

__all__ = ["NetworkOpener", "code_by_folder", "doubts", "measured", "of_other_networks", "teacher_of"]


@dataclass(frozen=True)
class NetworkOpener:
    """Opens the networks of a report's folders."""

    codes: Mapping[Path, str]
    """Folder -> `file.py:function` that builds its network, for releases of their publisher's own code."""
    device: str = "cpu"
    networks: Mapping[Path, Network] = field(default_factory=dict)
    """Folder -> its network, where that is open already."""

    def open(self, folder: Path) -> Network | None:
        """The network in `folder`; None for a release that needs code where none was named.

        Raises UserError for code that builds another function of the release's weights.
        """
        if folder in self.networks:
            return self.networks[folder]
        quantized, code = is_quantized(folder), self.codes.get(folder)
        if not quantized and code is None and Release.open(folder).custom:
            return None
        network = load_model(str(folder), code=code)
        network.module.to(self.device)
        if code is not None and not quantized:
            Release.open(folder).record(network)  # which holds the logits of the network that it was made of
        return network


def code_by_folder(folders: Sequence[Path], codes: Sequence[str]) -> dict[Path, str]:
    """What builds each network of its publisher's own code: `codes` in their order, or as FOLDER=file.py:function.

    Raises UserError for a name that belongs to none of the folders.
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
            fitting = [folder for folder in custom if folder.resolve() == Path(place).resolve() or folder.name == place]
        else:
            fitting = [folder for folder in custom if folder not in by_folder][:1]
        if len(fitting) != 1:
            names = ", ".join(map(str, custom)) or "none"
            raise UserError(
                f"code: got {name!r}, which fits {len(fitting)} of the runs of somebody's own code ({names}), expected one; "
                "give FOLDER=file.py:function for one of them"
            )
        by_folder[fitting[0]] = code
    return by_folder


def teacher_of(networks: list[Path], logs: Mapping[Path, FinishedRun], opener: NetworkOpener) -> Path | None:
    """The release that another run learnt from or was quantized from: by its content; for a run from Python by its
    fingerprint; in older logs by its path or, where that is elsewhere now, by its name. None where there is none.
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
    """What settings or inputs say of the network that a run began with."""
    return values.get(_role(log))


def _fingerprint(folder: Path, opener: NetworkOpener) -> str | None:
    """None for a quantized network, which is nobody's teacher, and for one that needs code."""
    network = None if is_quantized(folder) else opener.open(folder)
    return None if network is None else network.fingerprint()


def _real_path(name: str) -> str | None:
    """The absolute path without links; None for a name that no file can have."""
    try:
        return os.path.realpath(name)
    except (ValueError, OSError):  # a NUL, or a lone surrogate
        return None


def of_other_networks(networks: list[Path], logs: Mapping[Path, FinishedRun], teacher: Path | None) -> list[str]:
    """A warning for each network that was made from another one than the teacher that all are compared with."""
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
    """Every network's scores on `data`, beside the teacher, and warnings; without data, what the runs' own logs say."""
    if data is None:
        any_logged = any(logs[folder].result.evaluation.accuracy is not None for folder in networks)
        note = "accuracies are what the runs' own logs say of their own test data; --data measures them here"
        return {folder: logs[folder].result.evaluation for folder in networks}, [note] if any_logged else []
    scores, warnings = {}, []
    original = None if teacher is None else opener.open(teacher)
    for folder in networks:
        network = opener.open(folder)
        if network is None:
            scores[folder] = Scores()
            warnings.append(
                f"{folder.name} is of its publisher's own code and was not measured here; name it with --code"
            )
            continue
        result = evaluate(network, data, original if folder != teacher else None)
        scores[folder] = Scores(accuracy=result.accuracy, agreement=result.agreement, images=result.images)
    return scores, warnings


def doubts(networks: list[Path], scores: Mapping[Path, Scores]) -> list[str]:
    """A warning for each accuracy that is hardly above that of guessing, as `datafree evaluate` prints it."""
    warnings = []
    for folder in networks:
        score = scores[folder]
        if score.accuracy is None or score.images is None:
            continue
        if warning := doubt(score.accuracy, score.images, len(Release.open(folder).spec.classes)):
            warnings.append(f"{folder.name}: accuracy {score.accuracy:.2f} % is {warning}")
    return warnings
