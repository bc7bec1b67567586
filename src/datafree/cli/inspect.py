"""datafree inspect"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._core.errors import UserError
from .._core.files import read_json
from .._core.files.unfinished import check_finished
from .._core.folder_kinds import CONDENSED, is_comparison, is_quantized
from .._core.text import escaped
from ..models.input_spec import InputSpec
from .arguments import Model, Run, Trust
from .json_output import result
from .loading import load_network, load_record

if TYPE_CHECKING:
    from ..releases.release import Release

__all__ = ["classes_of", "inspect", "listed", "made_from", "numbers", "say_shipped", "size_of"]


def inspect(path: Path, /, *, code: str | None = None, trust: Trust = False) -> None:
    """Say what is in a release, a record, a synthetic set, a comparison or a run; code in it runs with --trust alone.

    Example: datafree inspect teacher

    Parameters
    ----------
    path
        A release folder, the folder of a synthetic or a condensed set or of a comparison, a record.safetensors, or a
        run.json.
    code
        file.py:function that builds a release's network, where it is not of the zoo.
    trust
        Run the code that a release holds; read it first. Without it, none of it runs.
    """
    if is_quantized(path):
        _quantized(path)
    elif (path / "config.json").is_file():
        _release(path, code, trust)
    elif (path / "set.json").is_file():
        _set(path)
    elif (path / CONDENSED).is_file() or path.name == CONDENSED:
        _condensed(path)
    elif is_comparison(path):
        from .inspect_comparison import inspect_comparison

        inspect_comparison(path)
    elif path.suffix == ".safetensors" and path.is_file():
        _record(path)
    elif path.suffix == ".json" and path.is_file():
        content = read_json(path)
        result({"kind": "log", **content})
        for line in json.dumps(content, indent=2, sort_keys=True).splitlines():
            print(line)
    else:
        check_finished(path)
        raise UserError(
            f"{path} is not a file or folder that inspect can read, expected a release, set, comparison, record or "
            "run.json; check the path"
        )


def _release(path: Path, code: str | None, trust: bool) -> None:
    from ..releases.release import Release

    release = Release.open(path)
    if release.listed_code is not None:
        release.code()  # raises before anything is printed
    if code is None and release.custom and (not trust or release.listed_code is None):
        from .unopened import say_unopened

        say_unopened(release)
        return
    network = load_network(str(path), Model(code=code, trust=trust), Run())
    record = load_record(str(path), Model(), network)
    spec = network.spec
    result({
        "kind": "release", "architecture": network.name, "parameters": network.parameters, "bytes": network.nbytes(),
        "fingerprint": network.fingerprint(), "input": spec.model_dump(mode="json"), "record": None,
    })  # fmt: skip
    print(f"{path}: release of {network.title}, {network.parameters:,} parameters, {network.nbytes():,} bytes")
    print(
        f"  input {size_of(spec.shape)}, pixels in [{spec.low:g}, {spec.high:g}], mean {numbers(spec.mean)}, "
        f"std {numbers(spec.std)}" + (f", shifted in training on {numbers(spec.border)}" if spec.border else "")
    )
    print(classes_of(spec))
    print(f"  fingerprint {network.fingerprint()}")
    if release.notes:
        print(f"  {release.notes}")
    say_shipped(release)
    if record is None:
        print("  no record")
        return
    from ..records.forecast import forecast_auc

    unknown = record.unknown()
    auc = None if unknown else forecast_auc(record.released_statistics(network))
    entries = {
        name: {**entry.statistic.model_dump(mode="json"), "taps": list(entry.taps), "bytes": entry.nbytes()}
        for name, entry in record.entries.items()
    }
    result({"record": {**record.made, "bytes": record.nbytes(), "forecast_auc": auc, "entries": entries}})
    print(f"  record: {record.nbytes():,} bytes, {made_from(record.made)}")
    if auc is None:
        kinds = ", ".join(sorted({entry.statistic.kind for entry in unknown.values()}))
        print(f"  forecast of a membership attack: not known here, needs the publisher's class of {kinds}")
    else:
        print(f"  forecast of a membership attack: AUC {auc:.3f} (0.5 none, 1.0 identifies everybody)")
    for name, entry in record.entries.items():
        settings = entry.statistic.model_dump(exclude_defaults=True, exclude={"kind"})
        settings.pop("kind", None)
        parts = [entry.statistic.kind, *listed(settings), f"{entry.nbytes():,} bytes"]
        print(f"    {name}: {', '.join(parts)}")


def say_shipped(release: Release) -> None:
    """Prints the files of a release's code, their hashes and the call; nothing where it holds none. Runs none of it.

    Raises UserError for files that are missing or of other content than the hashes.
    """
    listed = release.listed_code
    if listed is None:
        return
    shipped = release.code()
    result({"code": listed.config()})
    print(f"  {escaped(listed.call)} builds the network; the release holds its code:")
    for path, name in zip(listed.paths(release.folder), listed.files):
        size, lines = len(shipped.contents[name]), shipped.contents[name].count(b"\n")
        print(f"    {path}: {lines:,} lines, {size:,} bytes, sha256 {listed.files[name]}")


def _quantized(path: Path) -> None:
    from ..releases.quantized import check_files, read_config, read_program

    config = read_config(path)
    program, content = read_program(path, config)
    check_files(path)
    spec, bits, batch_of_one = config.spec, config.bits, program.single
    result({
        "kind": "quantized", "architecture": config.architecture, "bits": bits.model_dump(mode="json"),
        "bytes": len(content), "original": config.original, "operators": len(program.graph.nodes),
        "input": spec.model_dump(mode="json"),
    })  # fmt: skip
    print(f"{path}: {config.architecture} quantized to {bits.words}, model.onnx of {len(content):,} bytes")
    print(f"  bits: {', '.join(listed(bits.model_dump(mode='json')))}")
    print(f"  input {size_of(spec.shape)}, pixels in [{spec.low:g}, {spec.high:g}], normalised within")
    print(classes_of(spec))
    print(f"  made from a network with fingerprint {config.original}")
    print(
        f"  model.onnx, read but not run: {len(program.graph.nodes)} operators, {batch_of_one.operations:,} operations "
        f"and up to {batch_of_one.peak:,} bytes for one image; no other files, no control flow"
    )
    for kind, count in sorted(Counter(node.kind for node in program.graph.nodes).items()):
        print(f"    {count} {kind}")


def _set(path: Path) -> None:
    from ..synthesis.synthetic_set import SyntheticSet, read_about

    about = read_about(path)
    shards = about["shards"]
    result({"kind": "synthetic set", **{key: value for key, value in about.items() if key != "shards"}})
    state = "not finished" if shards is None else f"{len(shards)} shard{'s' * (len(shards) != 1)}"
    print(f"{path}: synthetic set of {about.get('images'):,} images, {state}, seed {about.get('seed')}")
    method = dict(about["method"]) if isinstance(about.get("method"), dict) else {}
    print(f"  method {method.pop('method', 'unknown')}")
    for line in listed(method):
        print(f"    {line}")
    print(f"  teacher {about.get('teacher')}")
    hits = about.get("hits")
    if shards is not None and isinstance(hits, (int, float)):
        opened = SyntheticSet(path, about)
        opened.check_hits()
        if opened.targeted:
            print(f"  the teacher predicts the target class for {100 * hits:.1f} % of them")
        if warning := opened.warning():
            print(f"  warning: {warning}")


def _condensed(path: Path) -> None:
    from ..data.condensed.condensed_set import Condensed

    opened = Condensed.open(path)
    result({"kind": "condensed set", "images": len(opened), "by_class": opened.by_class(), **opened.about})
    print(
        f"{path}: condensed set of {len(opened)} images {size_of(opened.spec.shape)}, {len(opened.spec.classes)} classes"
    )
    print(f"  images by class: {', '.join(map(str, opened.by_class()))}")
    for line in listed(opened.about, between=": "):
        print(f"  {line}")


def _record(path: Path) -> None:
    from .._core.files import read_header
    from .unopened import say_entries

    table, header = read_header(path, kind="record")
    print(f"{path}: record for a teacher with fingerprint {header.get('fingerprint')}")
    source = header.get("made")
    print(f"  {made_from(source if isinstance(source, dict) else {})}")
    entries = say_entries(table, header)
    result({
        "kind": "record", "fingerprint": header.get("fingerprint"), "made": header.get("made"), "entries": entries,
        "tensors": {name: [str(dtype).removeprefix("torch."), list(shape)] for name, (dtype, shape) in table.items()},
    })  # fmt: skip
    print(f"  {len(table)} tensors:")
    for name, (dtype, shape) in sorted(table.items()):
        print(f"    {name}: {str(dtype).removeprefix('torch.')} {size_of(shape)}")


def classes_of(spec: InputSpec) -> str:
    """The number of classes and the first names."""
    return f"  {len(spec.classes)} classes: {', '.join(spec.classes[:12])}{' ...' if len(spec.classes) > 12 else ''}"


def size_of(shape: Sequence[int]) -> str:
    """`3 x 32 x 32`; `one number` for no dimension."""
    return " x ".join(map(str, shape)) or "one number"


def numbers(values: Sequence[float]) -> str:
    """`0.5` or `0.49, 0.48, 0.45`."""
    return ", ".join(f"{value:g}" for value in values)


def made_from(source: Mapping[str, Any]) -> str:
    """What a record's header says of its data, in words."""
    samples = source.get("samples")
    if not samples:
        return "read from the network itself, not from data"
    count = f"{samples:,}" if isinstance(samples, int) else str(samples)
    return f"of {count} images of {source.get('data')} ({source.get('split')} split), sha256 {source.get('sha256')}"


def listed(table: Mapping[str, Any], prefix: str = "", between: str = " ") -> list[str]:
    """`key value` for each entry, of tables within too; empty ones are left out."""
    lines = []
    for key, value in table.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            lines += listed(value, f"{name}, ", between)
        elif isinstance(value, (list, tuple)):
            lines += [f"{name}{between}{', '.join(map(str, value))}"] if value else []
        elif value is not None:
            lines.append(f"{name}{between}{'yes' if value is True else 'no' if value is False else value}")
    return lines
