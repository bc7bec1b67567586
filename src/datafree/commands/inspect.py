"""datafree inspect"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ..condensed import FILE, Condensed
from ..errors import UserError
from ..files import read_header, read_json
from ..quantization.folder import check_files, is_quantized, read_config, read_program
from ..release import CUSTOM, Release
from ..syntheticset import read_about
from ..unfinished import check_finished
from .common import Model, Run, load_network, load_record

__all__ = ["inspect"]


def inspect(path: Path, /, *, code: str | None = None) -> None:
    """Say what is in a release, a record, a synthetic set or a run; no code in it is run.

    Example: datafree inspect teacher

    Parameters
    ----------
    path
        A release folder, the folder of a synthetic or a condensed set, a record.safetensors, or a run.json.
    code
        file.py:function that builds a release's network, where it is not of the zoo.
    """
    if is_quantized(path):
        _quantized(path)
    elif (path / "config.json").is_file():
        _release(path, code)
    elif (path / "set.json").is_file():
        _set(path)
    elif (path / FILE).is_file() or path.name == FILE:
        _condensed(path)
    elif path.suffix == ".safetensors" and path.is_file():
        _record(path)
    elif path.suffix == ".json" and path.is_file():
        for line in json.dumps(read_json(path), indent=2, sort_keys=True).splitlines():
            print(line)
    else:
        check_finished(path)
        raise UserError(f"{path} is nothing datafree writes, wanted a release, set, record or run.json; check the path")


def _release(path: Path, code: str | None) -> None:
    release = Release.open(path)
    if code is None and release.custom:
        spec, name = release.spec, str(release.config["architecture"]).removeprefix(CUSTOM)
        print(f"{path}: release of its publisher's own network {name}")
        print(
            f"  input {spec.shape}, {len(spec.classes)} classes; --code FILE.py:FUNCTION builds it and checks its record"
        )
        if (path / "record.safetensors").is_file():
            _record(path / "record.safetensors")
        return
    network = load_network(str(path), Model(code=code), Run())
    record = load_record(str(path), Model(), network)
    spec = network.spec
    print(f"{path}: release of {network.name}, {network.parameters:,} parameters, {network.nbytes():,} bytes")
    print(f"  input {spec.shape}, pixels in [{spec.low:g}, {spec.high:g}], mean {spec.mean}, std {spec.std}")
    print(f"  {len(spec.classes)} classes: {', '.join(spec.classes[:12])}{' ...' if len(spec.classes) > 12 else ''}")
    print(f"  fingerprint {network.fingerprint()}")
    if record is None:
        print("  no record")
        return
    from ..records import forecast_auc

    auc = forecast_auc(record.released(network))
    print(f"  record: {record.nbytes():,} bytes of {record.made}, forecast of a membership attack: AUC {auc:.3f}")
    for name, entry in record.entries.items():
        settings = entry.statistic.model_dump(exclude_defaults=True)
        print(f"    {name}: {entry.statistic.kind} {settings or ''} {entry.nbytes():,} bytes")


def _quantized(path: Path) -> None:
    config = read_config(path)
    program, content = read_program(path, config)
    check_files(path)
    spec, bits, one = config.spec, config.bits, program.one
    print(f"{path}: {config.architecture} quantized to {bits.words}, model.onnx of {len(content):,} bytes")
    print(f"  bits {bits.model_dump(mode='json')}")
    print(f"  input {spec.shape}, pixels in [{spec.low:g}, {spec.high:g}], normalised within")
    print(f"  {len(spec.classes)} classes: {', '.join(spec.classes[:12])}{' ...' if len(spec.classes) > 12 else ''}")
    print(f"  made from a network with fingerprint {config.original}")
    print(
        f"  model.onnx, read but not run: {len(program.graph.nodes)} operators, {one.operations:,} operations and up to "
        f"{one.peak:,} bytes for one image; no other files, no control flow"
    )
    for kind, count in sorted(Counter(node.kind for node in program.graph.nodes).items()):
        print(f"    {count} {kind}")


def _set(path: Path) -> None:
    about = read_about(path)
    shards = about["shards"]
    state = "not finished" if shards is None else f"{len(shards)} shards"
    print(f"{path}: synthetic set of {about.get('images'):,} images, {state}, seed {about.get('seed')}")
    print(f"  method {about.get('method')}")
    print(f"  teacher {about.get('teacher')}")


def _condensed(path: Path) -> None:
    opened = Condensed.open(path)
    print(f"{path}: condensed set of {len(opened)} images {opened.spec.shape}, {len(opened.spec.classes)} classes")
    print(f"  images by class: {', '.join(map(str, opened.by_class()))}")
    for key, value in opened.about.items():
        print(f"  {key}: {value}")


def _record(path: Path) -> None:
    table, header = read_header(path, kind="record")
    print(f"{path}: record for a teacher with fingerprint {header.get('fingerprint')}")
    print(f"  made from {header.get('made')}")
    for name, (dtype, shape) in sorted(table.items()):
        print(f"    {name}: {str(dtype).removeprefix('torch.')} {tuple(shape)}")
