"""What datafree record does, once its options are parsed."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .._core.code_names import code_name, with_arguments
from .._core.errors import Notice, UserError
from .._core.files import sha256_file
from .._core.folder_kinds import is_onnx, is_quantized
from .._core.settings import with_paths
from ..data import Dataset
from ..evaluation.accuracy import doubt
from ..models import zoo
from ..models.network import Network
from ..records import presets
from ..records.forecast import forecast_auc
from ..records.record import Record, is_of
from ..records.record import record as measure
from ..releases.builder_names import check_name
from ..releases.release import RELEASE_FOLDER, Release, is_release, is_zoo, mend_card, write_record, write_release
from ..releases.shipped_code import ShippedCode
from ..runs.output_folder import changed_folder, output_folder, read_log, recording_state
from ..runs.run_log import RunLog
from ..runs.run_reader import FinishedRun
from .arguments import Data, Input, NamedModel, Run, settings_of
from .loading import (
    check_attribute,
    check_code,
    code_for_release,
    code_of_settings,
    inputs_of,
    load_data,
    load_network,
    load_record,
    resumed,
    say_fit,
    spec_of,
)
from .progress_bar import bar

__all__ = ["_record"]

FAR = 15
"""Points of accuracy below that of the release's own log that are said."""
SAME = 1e-6
"""Forecasts of one record differ by less, on any machine."""


def _record(
    model: str,
    statistics: tuple[str, float] | list[tuple[Any, tuple[str, ...] | None]],
    keep: tuple[bool, bool],
    out: Path | None,
    data: Data | None,
    source: NamedModel | None,
    input: Input | None,
    run: Run | None,
) -> None:
    add, anew = keep
    if add and anew:
        raise UserError("--add and --replace: got both, expected one of them; leave one out")
    data, source, input, run = data or Data(), source or NamedModel(), input or Input(), run or Run()
    if source.record is not None and not add:
        raise UserError(
            f"--record: got {source.record} without --add, expected --add, which adds to that record; give both, or leave "
            "it out"
        )
    if source.code is None and source.arg:
        model, source = with_arguments(model, source.arg), replace(source, arg=())
    if not is_release(model) and not is_onnx(model):
        check_name(model)
    if not is_release(model) and not is_onnx(model) and code_name(model) is None and not is_zoo(model):
        raise zoo.no_model(model)
    if not is_release(model) and out is None:
        raise UserError(f"{model} is no release folder, expected --out; name the release folder to write")
    if source.with_code and _in_place(model, out):
        raise UserError(
            f"with_code: got it with {model}, whose record alone is written, expected `out`; name the release to write, or "
            "leave `with_code` out"
        )
    target = out if out is not None and not _in_place(model, out) else Path(model)
    beside = recording_state(target)
    run = resumed(run, beside)
    needless = (
        is_release(model)
        and isinstance(statistics, list)
        and not any(statistic.needs_data for statistic, _ in statistics)
    )
    if needless:
        check_attribute(data)
    training = None if needless else load_data(data, "train")
    spec = None if is_release(model) or training is None else spec_of(training, model, input)
    network = load_network(model, source, run, spec)
    check_code(model, source, network)
    code = _code(model, source, network)
    if isinstance(statistics, tuple):
        assert training is not None
        entries = presets.preset(statistics[0], network, training, leak=statistics[1])
    else:
        entries = statistics
    options = {"model": model, "what": _plain(entries), **asdict(data), **settings_of(source), **asdict(run)}
    if isinstance(statistics, tuple):
        options |= {"preset": statistics[0]} | ({"leak": statistics[1]} if statistics[0] == "safe" else {})
    inputs = inputs_of(model, source)
    for statistic, _ in entries:
        inputs |= code_of_settings(f"statistic {statistic.kind}", statistic)
    log = RunLog("record", options | ({"add": True} if add else {}), inputs, training)
    in_place = _in_place(model, out)
    with changed_folder(target, RELEASE_FOLDER) if in_place else output_folder(target, RELEASE_FOLDER, log) as folder:
        if folder is None or _is_recorded(target, log, network, entries, training, keep, in_place):
            return
        if in_place:
            log.check(target)
        old = load_record(model, source, network) if add else None  # not before: another run may add to it
        with bar(f"record {model}", run.quiet) as progress:
            seen = Seen()
            measured = measure(
                network, training, entries, add_to=old, state=beside, progress=progress, answered=seen.add
            )
        if in_place:
            write_record(folder, network, measured)
        else:
            notes = Release.open(model).notes if is_release(model) else ""
            write_release(folder, network, measured, notes=notes, code=code)
        path = folder / "record.safetensors"
        usual = FinishedRun.of(model).result.evaluation.accuracy if is_release(model) else None
        log.write(
            folder,
            {
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
                "forecast_auc": forecast_auc(measured.released_statistics(network)),
                **seen.result(),
            },
        )
    _say(path, measured, network, training)
    seen.say(len(network.spec.classes), usual)


def _code(model: str, source: NamedModel, network: Network) -> ShippedCode | None:
    """The code for the release that is written: with --with-code that of the user, with --trust that of the release."""
    if source.with_code or not source.trust or not is_release(model) or is_quantized(model):
        return code_for_release(source.code or model, network, source.with_code)
    release = Release.open(model)
    return None if release.listed_code is None else release.code()


@dataclass
class Seen:
    """The teacher's answers on the images of the pass."""

    images: int = 0
    right: int = 0

    def add(self, images: int, right: int) -> None:
        self.images += images
        self.right += right

    def result(self) -> dict[str, Any]:
        return {"accuracy_on_the_data": 100 * self.right / self.images} if self.images else {}

    def say(self, classes: int, usual: float | None) -> None:
        """Prints the accuracy, and a warning where it is near chance or far below what the release's log says."""
        if not self.images:
            return
        accuracy = 100 * self.right / self.images
        print(f"the teacher's accuracy on {self.images:,} recorded images: {accuracy:.2f} %")
        logged = "" if usual is None else f", and its own log says {usual:.2f} % on its test data"
        if warning := doubt(accuracy, self.images, classes, logged):
            print(f"  warning: {warning}")
        elif usual is not None and accuracy < usual - FAR:
            print(f"  warning: its own log says {usual:.2f} % on its test data: is this the data it was trained for?")


def _is_recorded(
    folder: Path,
    log: RunLog,
    network: Network,
    entries: list[Any],
    data: Dataset | None,
    keep: tuple[bool, bool],
    in_place: bool,
) -> bool:
    """Whether the release has the record of this very run, which is said. One that is not made `in place` is incomplete.

    `keep` are --add and --replace. Raises UserError for another record, which would be lost without them. One that is
    damaged, or of other weights, is of no use, and cannot be added to.
    """
    add, anew = keep
    path, old = folder / "record.safetensors", read_log(folder)
    if not path.exists():
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Notice)  # what cannot be read is an error below
            stored = Record.load(path, network)
    except UserError as error:
        if add:
            raise
        print(f"the record that is there is of no use, and is replaced: {error}")
        return False
    other = log.difference(old) if old.get("verb") == "record" else None
    missing = {entry.statistic.kind for entry in stored.unknown().values()}
    if missing and not anew:
        raise UserError(
            f"the record in {folder} has entries of {', '.join(sorted(missing))}, whose class is not loaded, expected it "
            "for the forecast of the new record; install the class as a plug-in, name it file.py:Class as the kind to "
            "record, or give --replace to lose these entries"
        )
    is_own = not missing and old.get("verb") == "record" and other is None and _is_logged(path, stored, network, old)
    if is_own and in_place:
        status = "the card alone was written again" if mend_card(folder, network, stored) else "nothing was changed"
        print(f"already complete: record in {path}, of the same settings; {status}")
        return True
    # of the same command, or of a run killed before its log
    if add or anew or is_own or (other is None and is_of(stored, network, data, entries)):
        return False
    names = ", ".join(stored.entries)
    settings = old.get("settings")
    grown = isinstance(settings, dict) and settings.get("add")  # the log is of what was added last
    reason = f"another record, made {other}" if other is not None and not grown else None
    reason = reason or f"a record of other data or entries ({names[:200]})"
    raise UserError(
        f"{folder} holds {reason}: give --replace to lose it, --add to keep it and add to it, or name another `out`"
    )


def _is_logged(path: Path, stored: Record, network: Network, log: dict[str, Any]) -> bool:
    """Whether the record in `path` is the one that its log is of: another may have come in its place before its own log."""
    result = log.get("result")
    if not isinstance(result, dict):
        return False
    if "sha256" in result:
        return result["sha256"] == sha256_file(path)
    leak, logged = (
        forecast_auc(stored.released_statistics(network)),
        result.get("forecast_auc"),
    )  # an earlier version's log
    return result.get("bytes") == path.stat().st_size and isinstance(logged, float) and abs(leak - logged) < SAME


def _in_place(model: str, out: Path | None) -> bool:
    return out is None or (out.is_dir() and is_release(model) and out.resolve() == Path(model).resolve())


def _plain(entries: list[Any]) -> list[Any]:
    return [{"statistic": with_paths(s), "taps": list(t) if t else None} for s, t in entries]


def _say(path: Path, measured: Record, network: Network, data: Dataset | None) -> None:
    """Prints the record's size in bytes and its leakage."""
    beside = f"model {network.nbytes():,}"
    if data is not None:
        beside += f"; the {len(data):,} images as bytes {len(data) * network.spec.pixels:,}"
    print(f"{path}: {path.stat().st_size:,} bytes ({beside})")
    if data is not None:
        say_fit(network, data)
    for name, entry in measured.entries.items():
        released = measured.accumulator(name, network).released_statistics(entry.summary)
        print(f"  {name}: {entry.statistic.kind}, {entry.nbytes():,} bytes, forecast AUC {forecast_auc(released):.3f}")
    total = forecast_auc(measured.released_statistics(network))
    print(
        f"forecast of a membership attack that knows the population: AUC {total:.3f} (0.5 none, 1.0 identifies everybody)"
    )
    if total > 0.6:
        print(
            "  above 0.60: training samples can be told from others. --preset safe reveals less, and so do fewer layers "
            "(record moments --taps) and --pooled"
        )
