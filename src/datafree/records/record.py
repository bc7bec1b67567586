"""The record: what a publisher measures of a network's activations on its data, in one small file."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from .._core.arguments import checked
from .._core.errors import Notice, UserError, unknown
from .._core.files import HEADER_CAP_RECORD, check_room, read_tensors, safe_name, write_tensors
from .._core.progress import Progress, silent
from .._core.resume import Environment, StateHeader, load_state, open_state, save_state
from .._core.slots import Slot, Slots
from ..data import Dataset, sha256
from ..data.adapters import LabelledData, as_dataset
from ..data.dataset_checks import as_input
from ..models import hooks as tap_names
from ..models.behaviour import check_finite
from ..models.class_names import check_order
from ..models.input_spec import InputSpec
from ..models.network import LARGE, Network, frozen
from . import statistics as stats
from .cost import check_record
from .forecast import forecast_auc
from .presets import LEAK, PresetStatistics
from .presets import preset as preset_statistics
from .statistics import Accumulator, State, Statistic, Summary
from .statistics.limits import LARGEST
from .statistics.moments import Moments
from .summary_checks import check_summary
from .unknown_statistic import UnknownStatistic, unknown_statistic

__all__ = [
    "Entry",
    "Record",
    "Statistics",
    "is_of",
    "record",
]

KIND = "recording-state"
CHUNK_BYTES = 256 << 20
LARGE_IMAGES = 400
"""Number of images of `LARGE` numbers in a batch, and fewer of larger ones: 32 at 224 x 224."""
PROBE_TOLERANCE = 1e-3

OneStatistic: TypeAlias = Statistic | str | Mapping[str, Any]
"""Settings, the name of a kind, or a dict of settings with the name as its `kind`."""
Statistics: TypeAlias = Sequence[OneStatistic | tuple[OneStatistic, Iterable[str] | None]]
"""Statistics of all conv and linear layers, or pairs (statistic, layers)."""


@dataclass(frozen=True)
class Entry:
    """One measured statistic: its settings, its taps and its tensors."""

    statistic: Any
    taps: tuple[str, ...]
    summary: Summary

    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.summary.values())


@dataclass(frozen=True)
class Record:
    """Entries by name, for one teacher, which is identified by its fingerprint and its answers to fixed probes."""

    spec: InputSpec
    fingerprint: str
    answers: Tensor
    entries: dict[str, Entry]
    made: dict[str, Any] = field(default_factory=dict)
    """The data it was measured on: name, split, number of samples and hash."""
    accumulators: dict[str, Accumulator] = field(default_factory=dict, repr=False, compare=False)
    """Cache by entry name: preparing an accumulator (the basis of a graph) can take seconds."""

    def __repr__(self) -> str:
        """Names and kinds of the entries, images and bytes; the tensors would fill pages."""
        entries = ", ".join(f"{name}: {entry.statistic.kind}" for name, entry in self.entries.items())
        images = self.made.get("samples")
        counted = f"{images:,} images, " if isinstance(images, int) else ""
        return f"Record({entries or 'no entries'}; {counted}{self.nbytes():,} bytes)"

    def accumulator(self, name: str, network: Network) -> Accumulator:
        """The accumulator of an entry, for the record's own teacher."""
        if name not in self.accumulators:
            entry = self.entries[name]
            self.accumulators[name] = entry.statistic.bind(network, entry.taps)
        return self.accumulators[name]

    def of_kind(self, kind: str) -> dict[str, Entry]:
        """The entries of one kind of statistic, in order."""
        return {name: entry for name, entry in self.entries.items() if entry.statistic.kind == kind}

    def unknown(self) -> dict[str, Entry]:
        """The entries of statistics whose classes are not loaded; they are kept, and nothing is measured with them."""
        return {name: entry for name, entry in self.entries.items() if isinstance(entry.statistic, UnknownStatistic)}

    def need(self, kind: str) -> dict[str, Entry]:
        """Like `of_kind`; raises UserError if there are none."""
        entries = self.of_kind(kind)
        if not entries:
            kinds = ", ".join(sorted({entry.statistic.kind for entry in self.entries.values()})) or "nothing"
            raise UserError(
                f"the record holds {kinds}, expected {kind!r}; its publisher can add it: "
                f"datafree record {kind} TEACHER --data DATA --add"
            )
        return entries

    def nbytes(self) -> int:
        """Size of its tensors in bytes."""
        return sum(entry.nbytes() for entry in self.entries.values())

    def released_statistics(self, network: Network) -> float:
        """Number of released statistics per sample, summed over entries; `forecast_auc` turns it into a leakage.

        Raises UserError if the class of an entry is not loaded (see `unknown`).
        """
        return sum(
            self.accumulator(name, network).released_statistics(entry.summary) for name, entry in self.entries.items()
        )

    def digest(self) -> str:
        """sha256 of its content; saving and loading do not change it."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for name, entry in sorted(self.entries.items()):
            digest.update(f"{name} {entry.taps} {_text(entry.statistic)}".encode())
            for key, tensor in sorted(entry.summary.items()):
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @checked
    def save(self, path: str | Path) -> str:
        """Writes one safetensors file with tensors named `entry/name`; returns its sha256."""
        self.check_counts()
        tensors = {f"{name}/{key}": t for name, entry in self.entries.items() for key, t in entry.summary.items()}
        plan = {name: (entry.statistic, entry.taps) for name, entry in self.entries.items()}
        header = _header(self.spec, self.fingerprint, plan, self.made)
        return write_tensors(path, {"probes/answers": self.answers, **tensors}, header, kind="record")

    @classmethod
    @checked
    def load(cls, path: str | Path, network: Network) -> Record:
        """The record in `path`, checked against `network`. Raises UserError if it is damaged or of another network."""
        tensors, header = read_tensors(path, kind="record", cap=HEADER_CAP_RECORD)
        answers = tensors.pop("probes/answers", None)
        parts = (header.get("entries"), list), (header.get("spec"), dict), (header.get("made"), dict)
        if answers is None or not all(isinstance(value, expected) for value, expected in parts):
            raise UserError(
                f"{path} is not a complete record: entries, spec or probe answers are missing; get it again"
            )
        spec = InputSpec.stored(header["spec"], path)
        loaded = cls(spec, str(header.get("fingerprint")), answers, {}, header["made"])
        loaded.check_teacher(network)
        for item in header["entries"]:
            name, entry = _entry(item, tensors)
            if isinstance(entry.statistic, UnknownStatistic):
                tap_names.check(network, entry.taps)
                loaded.entries[name] = entry
                continue
            planned = entry.statistic.plan(network, tap_names.check(network, entry.taps))
            if entry.taps not in [taps for _, taps in planned.values()]:
                raise UserError(
                    f"entry {name!r} of the record is {entry.statistic.kind!r} of {', '.join(entry.taps)}, which that "
                    "kind does not measure together; get the record again"
                )
            loaded.entries[name] = entry
            accumulator = loaded.accumulator(name, network)
            accumulator.check(entry.summary)
            if not entry.statistic.needs_data:
                _check_read(name, entry.summary, accumulator)
        loaded.check_counts()
        if tensors:
            raise UserError(f"{path} holds a tensor {min(tensors)!r} that no entry owns; get the record again")
        for name, entry in loaded.unknown().items():
            warnings.warn(
                Notice(
                    f"entry {name!r} of the record is not used: its statistic {entry.statistic.kind!r} is a class of its "
                    "publisher's own that is not loaded"
                ),
                stacklevel=4,
            )
        return loaded

    def check_counts(self) -> None:
        """Raises UserError if entries were measured on different numbers of images, in total or per class."""
        samples, by_class = self.made.get("samples", 0), None
        if type(samples) is not int or not 0 <= samples <= 1 << 53:
            raise UserError(f"the record states {str(samples)[:40]} samples, expected a count; get it again")
        for name, entry in self.entries.items():
            count = entry.summary.get("count")
            if count is None:
                continue
            if int(count.sum()) != samples:
                raise UserError(
                    f"entry {name!r} of the record counts {int(count.sum()):,} samples, the record {samples:,}; "
                    "record all entries on the same data"
                )
            if len(count) > 1:
                if by_class is not None and not torch.equal(count, by_class):
                    raise UserError(
                        f"entry {name!r} of the record counts other samples per class than another entry; "
                        "record all entries on the same data"
                    )
                by_class = count

    def check_teacher(self, network: Network) -> None:
        """Raises UserError unless `network` is the recorded teacher: the same weights, spec and answers.

        Every function that takes a network and its record calls this once. It reads all weights and predicts 16 images.
        """
        described = [spec.model_dump(exclude=spec.descriptive) for spec in (self.spec, network.spec)]
        if described[0] != described[1]:
            recorded, expected = self.spec, network.spec
            ranges = ["", ""]
            if (recorded.low, recorded.high) != (expected.low, expected.high):
                ranges = [f" from {spec.low:g} to {spec.high:g}" for spec in (recorded, expected)]
            raise UserError(
                f"the record is for images {recorded.shape}{ranges[0]} normalised by {recorded.mean} / {recorded.std}, "
                f"{network.name} "
                f"takes {expected.shape}{ranges[1]} by {expected.mean} / {expected.std}; use the release it came with"
            )
        same_weights = network.fingerprint() == self.fingerprint
        check_order(self.spec.classes, network.spec.classes, "the record", network.name, renamed=same_weights)
        if not same_weights:
            raise UserError(
                f"the record was made for another teacher (fingerprint {self.fingerprint[:12]}, {network.name} has "
                f"{network.fingerprint()[:12]}); use the record of this model"
            )
        answers = network.answers()
        if answers.shape != self.answers.shape or float((answers - self.answers).abs().max()) > PROBE_TOLERANCE * (
            1 + float(self.answers.abs().max())
        ):
            network.check()  # raises if it answers differently each time
            raise UserError(
                f"{network.name} has the recorded weights but gives other answers; use the code it came with"
            )


@checked
def record(
    network: Network,
    data: LabelledData | None,
    preset: str | Statistics = "safe",
    *,
    leak: float = LEAK,
    add_to: Record | None = None,
    state: Path | None = None,
    progress: Progress = silent,
    answered: Callable[[int, int], None] | None = None,
) -> Record:
    """Measures statistics of `network` on `data`, which it was trained on, in one pass in float64.

    - `data`: what `load_data` returns, a torch Dataset or DataLoader, or a pair (images, labels); see `as_dataset`. None if
      no statistic needs data.
    - `preset`: a name (`small`, `safe`, `sharp`, `best`, `paper`, `full`), what `preset` returns, or a list of statistics
      for all conv and linear layers, or of pairs (statistic, layers). A statistic is given as settings, by the name of its
      kind (`"moments"`), or as a dict (`{"kind": "moments", "covariance": "full"}`).
    - `leak`: for the preset `safe`, the largest forecast AUC of a membership attack, above 0.5 and below 1.
    - `add_to`: a record of this network and data, whose entries are kept. Moments without layers are then measured at the
      layers that the record lacks. The promise of `safe` holds for the combined record.
    - `state`: a file for the sums of an interrupted pass; the same call continues from them and removes the file. The sums
      reveal more of the data than a record: do not share them.
    - `answered`: called for every batch with the number of images and of correct predictions; when a pass is continued,
      first for all earlier images.

    Any split of the data into batches gives the same record up to rounding; the batch is fixed by the network, so two runs
    give the same bytes. Raises UserError for data that does not fit, an unknown layer, a class without samples, an entry
    that `add_to` has with other settings, and a record whose forecast exceeds the promise of its preset.
    """
    network.check()
    dataset = None if data is None else as_dataset(data, network)
    statistics = _statistics(network, dataset, preset, leak)
    if add_to is not None:
        _check_addable(add_to, network, dataset)
        statistics = _missing(statistics, add_to, network)
    leak_allowed = statistics.leak if isinstance(statistics, PresetStatistics) else None
    earlier = 0.0
    if leak_allowed is not None and dataset is not None:
        plan = _plan(network, statistics)
        if add_to is not None:
            other_entries = {name: entry for name, entry in add_to.entries.items() if name not in plan}
            earlier = replace(add_to, entries=other_entries).released_statistics(network)
        _keep_promise(_forecast_released(network, plan, dataset), earlier, leak_allowed)  # before the pass
    result = _record(network, dataset, statistics, state, progress, answered)
    if leak_allowed is not None:
        _keep_promise(result.released_statistics(network), earlier, leak_allowed)
    return result if add_to is None else _joined(add_to, result)


def _statistics(network: Network, data: Dataset | None, preset: str | Statistics, leak: float) -> Statistics:
    """The statistics to measure, as settings."""
    if not isinstance(preset, str):
        if leak != LEAK:
            raise UserError(
                f"leak: got {leak} beside a list of statistics, expected it only with the preset 'safe'; leave it out"
            )
        statistic_layers = (statistic if isinstance(statistic, tuple) else (statistic, None) for statistic in preset)
        pairs = [
            (_settings(statistic), layers if layers is None else tuple(layers))
            for statistic, layers in statistic_layers
        ]
        return PresetStatistics(pairs, preset.leak) if isinstance(preset, PresetStatistics) else pairs
    if data is None:
        raise UserError(f"data: got None, expected the data that {network.name} was trained on; give it")
    return preset_statistics(preset, network, data, leak=leak)


def _settings(statistic: Any) -> Statistic:
    """The settings of a statistic given by name, as a dict, or as settings. Raises UserError for a kind not offered
    for new records.
    """
    if not isinstance(statistic, (str, Mapping)):
        return statistic
    values = {"kind": statistic} if isinstance(statistic, str) else statistic
    if values.get("kind") not in stats.offered():
        raise unknown("statistic", str(values.get("kind")), stats.offered())
    return stats.from_dict(values)


def _record(
    network: Network, data: Dataset | None, statistics: Statistics, state: Path | None, progress: Progress,
    answered: Callable[[int, int], None] | None,
) -> Record:  # fmt: skip
    plan = _plan(network, statistics)
    if not plan:
        got = "a list without statistics" if not statistics else "statistics of no layer"
        raise UserError(
            f"preset: got {got}, expected at least one to measure; give the name of a preset, such as 'safe', or name a "
            "statistic and layers"
        )
    if data is not None:
        check_record(network, plan, lambda taps: _chunk(network, taps), len(data))
    accumulators = {name: statistic.bind(network, taps) for name, (statistic, taps) in plan.items()}
    _check_room(network, plan, accumulators)
    measured = {name: accumulator for name, accumulator in accumulators.items() if plan[name][0].needs_data}
    states: dict[str, State] = {}
    resumed = state is not None and state.exists()
    if measured:
        if data is None:
            raise UserError(
                f"data: got None, expected the data that {network.name} was trained on, for {', '.join(measured)}; give it"
            )
        data = as_input(network, data)
        pause = None if state is None else Pause(state, _identity(network, data, plan))
        states = _measure(
            network, data, measured, {name: plan[name][1] for name in measured}, pause, progress, answered
        )
    summaries = {
        name: accumulators[name].finish(states[name]) if name in measured else accumulators[name].read()
        for name in plan
    }
    for name, (statistic, _) in plan.items():
        if not type(accumulators[name]).__module__.startswith("datafree."):
            images = len(data) if data is not None and name in measured else 0
            check_summary(name, statistic, accumulators[name], summaries[name], images)
    entries = {name: Entry(plan[name][0], plan[name][1], summaries[name]) for name in plan}
    if resumed:
        _check_resumed(state, accumulators, summaries)
    if state is not None and state.exists():
        state.unlink()
    origin = _origin(data if measured else None)
    return Record(network.spec, network.fingerprint(), network.answers(), entries, origin, accumulators)


def _forecast_released(network: Network, plan: dict[str, tuple[Any, tuple[str, ...]]], data: Dataset) -> float:
    """Number of statistics per sample that the record of a preset will release, known from the samples of each class."""
    counts = data.labels.bincount(minlength=len(network.spec.classes))
    released = 0.0
    if not counts.all():
        return released  # a class without samples, which is refused later
    for statistic, taps in plan.values():
        accumulator = statistic.bind(network, taps)
        summary = {name: torch.zeros(()).expand(shape) for name, (_, shape) in accumulator.layout().items()}
        size = next(iter(summary["count"].shape), 1)
        summary["count"] = counts if size == len(counts) else counts.sum().expand(size)
        released += accumulator.released_statistics(summary)
    return released


def _keep_promise(released: float, earlier: float, leak: float) -> None:
    """Raises UserError if the forecast for what a record of the preset `safe` releases, with what the record that it is
    added to released earlier, exceeds `leak`.
    """
    auc = forecast_auc(released + earlier)
    if auc > leak and earlier and forecast_auc(released) <= leak:
        raise UserError(
            f"add_to: got a record with which the forecast AUC is {auc:.3f}, expected at most {leak:g}, the promise of the "
            "preset 'safe'; leave `add_to` out, or give a higher `leak`"
        )
    if auc > leak:
        raise UserError(
            f"leak: got a forecast AUC of {auc:.3f} for the least that the preset 'safe' records, expected at most "
            f"{leak:g}; give more samples of each class, or a higher leak"
        )


def _check_addable(add_to: Record, network: Network, data: Dataset | None) -> None:
    """Raises UserError for a record of another network or other data."""
    try:
        add_to.check_teacher(network)
    except UserError as error:
        raise UserError(f"add_to: {error}") from None
    if data is None or add_to.made.get("samples") in (0, None):
        return
    if add_to.made["samples"] != len(data):
        raise UserError(
            f"add_to: got a record of {add_to.made['samples']:,} images, expected one of the {len(data):,} of the data; "
            "give the data that was recorded, or record all of it again without `add_to`"
        )
    recorded = add_to.made.get("sha256")
    if recorded is not None and recorded != sha256(as_input(network, data)):
        raise UserError(
            f"add_to: got a record of other images or labels, expected one of the {len(data):,} of the data; "
            "give the data that was recorded, or record all of it again without `add_to`"
        )


def _missing(statistics: Statistics, add_to: Record, network: Network) -> Statistics:
    """`statistics` without the layers of moments that the record has with other settings, if no layers are named.

    A `Notice` names these layers. If the record has all layers with other settings, for a kind that measures its layers
    together, and for a preset, nothing is left out, and `_joined` raises.
    """
    if isinstance(statistics, PresetStatistics):
        return statistics
    missing = []
    for statistic, layers in statistics:  # type: ignore[misc]
        all_layers = tap_names.layers(network) if layers is None and isinstance(statistic, Moments) else ()
        plans = {tap: statistic.plan(network, (tap,)) for tap in all_layers}  # type: ignore[union-attr]
        present = [
            tap
            for tap, plan in plans.items()
            if any(_differs(add_to, name, planned, taps) for name, (planned, taps) in plan.items())
        ]
        if present and len(present) < len(all_layers):
            warnings.warn(
                Notice(
                    f"kept as the record has them, with other settings: {', '.join(present)}; record all again to "
                    "replace them"
                ),
                stacklevel=4,
            )
            layers = tuple(tap for tap in all_layers if tap not in present)
        missing.append((statistic, layers))
    return missing


def _differs(record: Record, name: str, statistic: Any, taps: tuple[str, ...]) -> bool:
    """Whether the record has an entry of that name with other settings or layers."""
    entry = record.entries.get(name)
    return entry is not None and (entry.statistic, entry.taps) != (statistic, taps)


def _joined(add_to: Record, new: Record) -> Record:
    """A record with the entries of both. Raises UserError if an entry of `new` is in `add_to` with other settings."""
    for name, entry in new.entries.items():
        if _differs(add_to, name, entry.statistic, entry.taps):
            raise UserError(
                f"add_to: got a record that has an entry {name!r} with other settings, which would be lost; "
                "record all of it again without `add_to`, or add one kind of statistics of other layers"
            )
    joined = replace(
        new,
        entries={**add_to.entries, **new.entries},
        made=new.made if new.made.get("samples") else add_to.made,
        accumulators={**add_to.accumulators, **new.accumulators},
    )
    joined.check_counts()
    return joined


def _check_resumed(
    state: Path | None, accumulators: Mapping[str, Accumulator], summaries: Mapping[str, Summary]
) -> None:
    """Raises UserError if sums from a file lead to a record that could not be opened, which no images have."""
    for name, summary in summaries.items():
        try:
            accumulators[name].check(summary)
        except UserError as error:
            raise UserError(
                f"{state} holds sums of {name!r} that no images have: {str(error).rpartition(';')[0]}; remove it to start "
                "again"
            ) from None


def _header(spec: InputSpec, fingerprint: str, plan: Mapping[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """The header of a record's file; `plan` is entry name -> (statistic, taps)."""
    entries = [
        {"name": name, "taps": list(taps), "statistic": statistic.model_dump(mode="json")}
        for name, (statistic, taps) in plan.items()
    ]
    return {"spec": spec.model_dump(mode="json"), "fingerprint": fingerprint, "entries": entries, "made": source}


def _check_room(network: Network, plan: Mapping[str, Any], accumulators: Mapping[str, Accumulator]) -> None:
    """Raises UserError if a record of the plan would have more layers or classes than a file can list."""
    table = {
        f"{name}/{key}": (getattr(torch, number), shape)
        for name, accumulator in accumulators.items()
        for key, (number, shape) in accumulator.layout().items()
    }
    header = _header(network.spec, "0" * 64, plan, {"data": "", "split": "", "samples": 0, "sha256": "0" * 64})
    try:
        check_room("record.safetensors", table, header, kind="record")
    except UserError as error:
        raise UserError(
            f"that record of {len(plan):,} entries and {len(network.spec.classes):,} classes cannot be written: "
            f"{str(error).rpartition(';')[0]}; record fewer layers, or shorten the class names"
        ) from None


def is_of(record: Record, network: Network, data: Dataset | None, statistics: Statistics) -> bool:
    """Whether `record` holds these statistics, measured on all of this data according to its header."""
    plan = _plan(network, statistics)
    entries = {name: (entry.statistic, entry.taps) for name, entry in record.entries.items()}
    origin = _origin(data if any(statistic.needs_data for statistic, _ in plan.values()) else None)
    return entries == plan and all(record.made.get(key) == value for key, value in origin.items())


def _origin(data: Dataset | None) -> dict[str, Any]:
    """The description of the data in a record's header."""
    if data is None:
        return {"data": None, "split": None, "samples": 0}
    return {"data": data.public, "split": data.split, "samples": len(data), "sha256": sha256(data)}


def _plan(network: Network, statistics: Statistics) -> dict[str, tuple[Any, tuple[str, ...]]]:
    """Entry name -> (statistic, taps)."""
    plan: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for item in statistics:
        statistic, taps = item if isinstance(item, tuple) else (item, None)
        statistic = _settings(statistic)
        chosen = tap_names.layers(network) if taps is None else tap_names.check(network, taps)
        for name, entry_taps in statistic.plan(network, chosen).items():
            if plan.get(name, entry_taps) != entry_taps:
                raise UserError(f"two statistics would be entry {name!r} of the record; record them one at a time")
            plan[safe_name(name)] = entry_taps
    return plan


class RecordingHeader(StateHeader):
    """Header of the file with the sums of an interrupted recording."""

    images: int = Field(ge=1)
    right: int = Field(ge=0)
    """Number of images that the network classifies correctly."""


class Progressed(NamedTuple):
    """What a pass has measured so far."""

    images: int
    states: dict[str, State]
    """By entry."""
    hits: int
    """Number of images that the network classifies correctly."""


@dataclass(frozen=True)
class Pause:
    """The file for the sums of an interrupted pass, and the identity of its run."""

    path: Path
    identity: dict[str, Any]

    def load(
        self, images: int, accumulators: dict[str, Accumulator], shapes: dict[str, list[tuple[int, ...]]]
    ) -> Progressed:
        """What a stopped pass over `images` images has measured; nothing if there is no file.

        `shapes` are those of each accumulator's activations.
        """
        if not self.path.exists():
            return Progressed(0, {}, 0)
        header = open_state(self.path, KIND, RecordingHeader, self.identity)
        if header.images > images:
            raise UserError(
                f"{self.path} is of a run over {header.images:,} images, expected {images:,}; remove the file"
            )
        if header.right > header.images:
            raise UserError(
                f"{self.path} counts {header.right:,} right answers on {header.images:,} images, expected at most as many; "
                "remove it to start again"
            )
        layout = {
            f"{name}/{key}": slot
            for name, accumulator in accumulators.items()
            for key, slot in _state_slots(accumulator, shapes[name], header.images).items()
        }
        states: dict[str, State] = {name: {} for name in accumulators}
        for name, tensor in load_state(self.path, KIND, header, layout).items():
            entry, key = name.split("/", 1)
            states[entry][key] = tensor
        for name, state in states.items():
            if "outer" in state and not _is_sum_of_squares(state["outer"]):
                raise UserError(
                    f"{self.path} holds sums of squares in {name!r} that no images have; remove it to start again"
                )
            if int(state["count"].sum()) % header.images:
                raise UserError(f"{self.path} counts other images in {name!r} than in total; remove it to start again")
        return Progressed(header.images, states, header.right)

    def save(self, progressed: Progressed) -> None:
        """Writes the sums, if they can be written."""
        images, states, hits = progressed
        tensors = {f"{name}/{key}": tensor for name, sums in states.items() for key, tensor in sums.items()}
        header = RecordingHeader(identity=self.identity, environment=Environment.here(), images=images, right=hits)
        with suppress(UserError):  # sums that cannot be kept are measured again
            save_state(self.path, KIND, header, tensors)


def _is_sum_of_squares(outer: Tensor) -> bool:
    """Whether every matrix (G, D, D) has a diagonal of at least 0 that no entry exceeds by more than rounding."""
    for matrix in outer:
        (low, high), diagonal = matrix.aminmax(), matrix.diagonal()
        if float(diagonal.min()) < 0 or float(max(-low, high)) > (1 + 1e-6) * float(diagonal.max()):
            return False
    return True


def _state_slots(accumulator: Accumulator, shapes: list[tuple[int, ...]], images: int) -> Slots:
    """The slots of an accumulator's state after that many images: the formats and shapes of one black image's state."""
    state = accumulator.reduce([torch.zeros(1, *shape) for shape in shapes], torch.zeros(1, dtype=torch.long))
    if "count" not in state:
        raise UserError(
            f"{type(accumulator).__name__}.reduce returns {', '.join(sorted(state))} without 'count', expected the "
            "number of samples of each class or group as 'count', by which a stopped recording is checked; add it"
        )
    positions = int(state["count"].sum())
    rules = {
        "count": {"low": 0, "high": images * positions, "integral": True},
        "square": {"low": 0.0},
        "key": {"low": 0.0, "high": 0.5},
    }
    return {name: Slot.like(tensor, **rules.get(name, {})) for name, tensor in state.items()}


def _identity(network: Network, data: Dataset, plan: dict[str, tuple[Any, tuple[str, ...]]]) -> dict[str, Any]:
    entries = {name: [statistic.model_dump(mode="json"), list(taps)] for name, (statistic, taps) in plan.items()}
    return {"teacher": network.fingerprint(), "content": sha256(data), "what": entries}


@torch.no_grad()
def _measure(
    network: Network, data: Dataset, accumulators: dict[str, Accumulator], taps: dict[str, tuple[str, ...]],
    pause: Pause | None, progress: Progress, answered: Callable[[int, int], None] | None = None,
) -> dict[str, State]:  # fmt: skip
    """The merged state of every accumulator after one pass over the data."""
    all_taps = sorted({tap for entry_taps in taps.values() for tap in entry_taps})
    chunk = _chunk(network, all_taps)
    shapes = tap_names.shapes(network, all_taps)
    entry_shapes = {name: [shapes[tap] for tap in taps[name]] for name in accumulators}
    done = Progressed(0, {}, 0)
    for name, accumulator in accumulators.items():
        if not type(accumulator).__module__.startswith("datafree."):
            _state_slots(accumulator, entry_shapes[name], len(data))  # raises what a resumed run would, before the pass
    if pause is not None:
        done = pause.load(len(data), accumulators, entry_shapes)
        if answered is not None and done.images:
            answered(done.images, done.hits)
    try:
        with frozen(network.module), tap_names.watch(network, all_taps) as activations:
            for start in range(done.images, len(data), chunk):
                indices = torch.arange(start, min(start + chunk, len(data)))
                pixels, labels = data.pixels(indices.numpy(), network.spec.shape[1:]), data.labels[indices]
                network.spec.check(pixels)
                logits = _forward(network, pixels, all_taps, activations)
                check_finite(network.name, logits, start)
                hits = int((logits.argmax(1) == labels).sum())
                if answered is not None:
                    answered(len(labels), hits)
                states = {}
                for name, accumulator in accumulators.items():
                    state = accumulator.reduce([activations[tap] for tap in taps[name]], labels)
                    states[name] = accumulator.merge(done.states[name], state) if name in done.states else state
                # one assignment: an interruption finds all accumulators at the same image
                done = Progressed(start + len(indices), states, done.hits + hits)
                progress(done.images, len(data))
    except BaseException as stop:
        if pause is not None and done.images and not isinstance(stop, Exception):
            pause.save(done)
        raise
    return done.states


def _forward(network: Network, pixels: Tensor, taps: Sequence[str], activations: dict[str, Tensor]) -> Tensor:
    """The logits of one batch. Adds its pixels to `activations` and checks all of them."""
    logits = network.logits(pixels.to(network.device))
    activations[tap_names.INPUT] = pixels
    for tap in taps:
        if not bool(activations[tap].isfinite().all()):
            raise UserError(f"activations of layer {tap!r} are not finite; check the weights and the data")
        if (largest := float(activations[tap].abs().max())) > LARGEST:
            raise UserError(
                f"activations of layer {tap!r} are as large as {largest:.3g}, expected at most {LARGEST:g}, beyond which "
                "float32 cannot count; check the weights and the data"
            )
    return logits.cpu()


def _chunk(network: Network, taps: Sequence[str]) -> int:
    """Number of images per batch, from the sizes of images and activations alone, so that every run uses the same.

    Large images are fewer: 111 ImageNet images at a time need 0.4 GB more for a ResNet-18 than 32, and a tenth more time.
    """
    pixels = network.spec.pixels
    units = sum(math.prod(shape) for shape in tap_names.shapes(network, taps).values()) + pixels
    largest = 4096 if pixels <= LARGE else LARGE_IMAGES * LARGE // pixels
    return max(16, min(largest, CHUNK_BYTES // (8 * units)))


def _text(statistic: Any) -> str:
    """The settings as text, the same whether or not a class of the publisher's own is loaded."""
    if type(statistic).__module__.startswith("datafree."):
        return statistic.model_dump_json()
    return UnknownStatistic(statistic.kind, statistic.model_dump(mode="json")).model_dump_json()


def _check_read(name: str, summary: Summary, accumulator: Any) -> None:
    """Raises UserError for an entry that is read from the network itself and differs from what the network has."""
    current = accumulator.read()
    if any(not torch.equal(summary[key], tensor) for key, tensor in current.items()):
        raise UserError(f"entry {name!r} of the record differs from the network's own statistics; get the record again")


def _entry(item: Any, tensors: dict[str, Tensor]) -> tuple[str, Entry]:
    """One entry of a header; its tensors are removed from `tensors`."""
    taps, name = (item.get("taps"), item.get("name")) if isinstance(item, dict) else (None, None)
    if not isinstance(taps, list) or not taps or not all(isinstance(word, str) for word in (*taps, name)):
        raise UserError("an entry of the record is not an object with name, taps and statistic; get the record again")
    name = safe_name(str(name))
    statistic = unknown_statistic(item["statistic"]) if "statistic" in item else None
    if statistic is None:
        statistic = stats.from_dict(item.get("statistic"), strict=True)
    summary = {key: tensors.pop(key) for key in [key for key in tensors if key.startswith(f"{name}/")]}
    if not summary:
        raise unknown("entry", name, sorted({key.split("/")[0] for key in tensors}), "the record's tensors")
    return name, Entry(statistic, tuple(taps), {key.split("/", 1)[1]: tensor for key, tensor in summary.items()})
