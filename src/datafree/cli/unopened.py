"""What `datafree inspect` says of a custom network's release without the code that builds it, from its files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.errors import UserError, cut
from .._core.files import read_header
from .._core.folder_kinds import is_onnx
from .inspect import classes_of, listed, made_from, numbers, say_shipped, size_of
from .json_output import result

if TYPE_CHECKING:
    from ..releases.release import Release

__all__ = ["say_entries", "say_unopened"]

LAYERS = 60
"""The largest number of layers that are printed; --json has all of them."""
COUNTERS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of tensors that are no parameters."""
Table = Mapping[str, tuple[Any, tuple[int, ...]]]
"""Tensor -> number format and shape."""


def say_unopened(release: Release) -> None:
    """Prints layers, parameters, input, classes and record of a release whose network cannot be built."""
    spec, name = release.spec, release.public_name
    table, _ = read_header(release.weights, kind="weights")
    parameters = sum(math.prod(shape) for key, (_, shape) in table.items() if not key.endswith(COUNTERS))
    nbytes = _bytes(table, table)
    layers: dict[str, list[str]] = {}
    for key in table:
        layers.setdefault(key.rpartition(".")[0], []).append(key)
    result({
        "kind": "release", "architecture": name, "parameters": parameters, "bytes": nbytes,
        "input": spec.model_dump(mode="json"),
        "layers": {layer: {key.rpartition(".")[2]: list(table[key][1]) for key in keys} for layer, keys in layers.items()},
    })  # fmt: skip
    print(
        f"{release.folder}: release of its publisher's own network {name}, {parameters:,} parameters, {nbytes:,} bytes"
    )
    print(
        f"  input {size_of(spec.shape)}, pixels in [{spec.low:g}, {spec.high:g}], mean {numbers(spec.mean)}, "
        f"std {numbers(spec.std)}"
    )
    print(classes_of(spec))
    if release.notes:
        print(f"  {release.notes}")
    print(f"  {len(layers)} layer{'s' * (len(layers) != 1)} with weights:")
    for layer, keys in list(layers.items())[:LAYERS]:
        shapes = (f"{cut(key.rpartition('.')[2])} {size_of(table[key][1])}" for key in keys)
        print(f"    {cut(layer) or 'the network itself'}: {', '.join(shapes)}")
    if len(layers) > LAYERS:
        print(f"    and {len(layers) - LAYERS} more layers")
    record = release.folder / "record.safetensors"
    if record.is_file():
        _say_record(record)
    else:
        print("  no record")
    say_shipped(release)
    flags = "--code FILE.py:FUNCTION" if release.listed_code is None else "--trust, or --code FILE.py:FUNCTION"
    source = "--code FILE.onnx, the ONNX file" if is_onnx(name) else f"{flags}, the code"
    print(
        f"  {source} of its publisher, builds the network, checks weights and record, and shows the fingerprint "
        "and the forecast of a membership attack"
    )


def _say_record(path: Path) -> None:
    table, header = read_header(path, kind="record")
    source = header.get("made")
    source = source if isinstance(source, dict) else {}
    print(f"  record: {_bytes(table, (key for key in table if key != 'probes/answers')):,} bytes, {made_from(source)}")
    print(f"  it is for a network with fingerprint {header.get('fingerprint')}")
    entries = say_entries(table, header)
    result({"record": {**source, "fingerprint": header.get("fingerprint"), "entries": entries}})


def say_entries(table: Table, header: Mapping[str, Any]) -> dict[str, Any]:
    """Prints the kind, settings, layers and size of each entry of a record, and returns them for --json.

    Raises UserError for an entry without name, layers and statistic.
    """
    listed_entries = header.get("entries")
    entries = {}
    for item in listed_entries if isinstance(listed_entries, list) else ():
        name, taps, statistic = (
            item.get(key) if isinstance(item, dict) else None for key in ("name", "taps", "statistic")
        )
        if not isinstance(name, str) or not isinstance(taps, list) or not isinstance(statistic, dict):
            raise UserError(
                "an entry of the record is not an object with name, taps and statistic; get the record again"
            )
        nbytes = _bytes(table, (key for key in table if key.startswith(f"{name}/")))
        entries[name] = {**statistic, "taps": taps, "bytes": nbytes}
        layers = [] if taps == [name] else [_layers(taps)]
        parts = [str(statistic.get("kind")), *_changed(statistic), *layers, f"{nbytes:,} bytes"]
        print(f"    {cut(name)}: {', '.join(parts)}")
    return entries


def _layers(taps: Sequence[object]) -> str:
    return f"of {len(taps)} layers" if len(taps) > 4 else f"of {' and '.join(cut(tap) for tap in taps)}"


def _changed(statistic: Mapping[str, Any]) -> list[str]:
    """The settings that are not the default ones; all of them where the kind is not known here."""
    from ..records import statistics

    try:
        settings = statistics.from_dict(dict(statistic), strict=True).model_dump(exclude_defaults=True)
    except UserError:
        settings = dict(statistic)
    return listed({key: value for key, value in settings.items() if key != "kind"})


def _bytes(table: Table, keys: Any) -> int:
    return sum(math.prod(table[key][1]) * table[key][0].itemsize for key in keys)
