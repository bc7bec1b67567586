"""Writes what tests/compat/test_compat.py opens: one of every kind of file that datafree 0.1.0 writes, and what it said.

Kept for the record. It runs with version 0.1.0 alone (commit ecda8d5), whose functions it patches to stop commands midway:

    git worktree add old ecda8d5
    OMP_NUM_THREADS=1 PYTHONPATH=$PWD/old/src python tests/compat/make.py NEW_FOLDER

NEW_FOLDER gets `files.tar.xz`, with the folders, and `said.json`: the commands, and what `inspect` and `evaluate` print.
Networks see digits of 4 x 4 pixels and have a few hundred weights, so that all of it is small. Nothing of the machine is
kept: the working directory and the processor have the names below, and times in the archive are 0.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

PLACE = "/home/publisher/models"
"""The working directory, as the logs have it."""
PROCESSOR = "Processor of the Publisher"
COMMIT = "ecda8d5"
NORMED = """
from torch import nn

def build(spec):
    layers = [nn.Conv2d(spec.shape[0], 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU()]
    layers += [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, len(spec.classes)))
"""
TINY = """
from torch import nn

def build(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.pixels, 6), nn.ReLU(), nn.Linear(6, len(spec.classes)))
"""
ONLINE = (
    "--online generator --epochs 3 --iterations 3 --student-steps 2 --batch 16 --latent 2 --width 1 --student-rate 0.05 "
    "--ema 0.5"
)
FLAGS = "--threads 1 --quiet"
SET = "--images 20 --unit 10 --workers 1"
LINES = (
    # releases, and their records
    "train hinton8 --data digits --size 4 --epochs 30 --learning-rate 1e-2 --seed 1 --out teacher",
    "record teacher --data digits --preset full",
    "train normed.py:build --data digits --size 4 --mean 0.3 --std 0.35 --epochs 4 --learning-rate 1e-2 --out net",
    "record net --code normed.py:build --kind batch-norm",
    "record net --code normed.py:build --kind moments --conv units --add --data digits",
    "train hinton4 --data arrays.npz --epochs 2 --limit 60 --out of-arrays",
    *(
        f"record hinton8 --weights teacher/model.safetensors --data digits --size 4 --preset {preset} --out record-{preset}"
        for preset in ("small", "safe", "sharp", "best", "paper")
    ),
    "record hinton8 --weights teacher/model.safetensors --data digits --size 4 --kind input --out kinds",
    "record kinds --data digits --add --kind moments --covariance shrunk --taps fc1",
    "record kinds --data digits --add --kind moments --covariance diagonal --pooled --storage float16 --taps fc2",
    "record kinds --data digits --add --kind moments --covariance none --downsample 2 --taps input",
    "record kinds --data digits --add --kind moments --covariance lowrank --rank 2 --temperature 4 --taps fc3",
    "record kinds --data digits --add --kind spectral-all --signal examples --examples 2",
    "record kinds --data digits --add --kind spectral-pairs --signal class-mean",
    "convert tiny.pth --out tiny.safetensors",
    "record normed.py:build --weights net/model.safetensors --data digits --size 4 --mean 0.3 --std 0.35 --kind batch-norm "
    "--out record-batch-norm",
    "pack tiny.py:build --weights tiny.safetensors --shape 1 4 4 --classes 10 --mean 0.3 --std 0.4 --out packed",
    "pack lenet5-half --weights lenet5-half.safetensors --shape 1 32 32 --classes 10 --out packed-lenet5",
    "pack resnet8 --weights resnet8.safetensors --shape 3 8 8 --classes cat dog --out packed-resnet8",
    "pack alexnet/999 --weights alexnet.safetensors --shape 3 32 32 --classes 3 --out packed-alexnet",
    # synthetic sets
    "synthesize teacher --images 120 --unit 60 --workers 1 --out set",
    *(f"synthesize teacher --method {method} --steps 3 {SET} --out set-{method}" for method in (
        "top", "all", "all-dropout", "spectral-all", "spectral-pairs", "matched", "inception",
    )),
    f"synthesize teacher --method gaussian {SET} --out set-gaussian",
    f"synthesize net --code normed.py:build --method bns --steps 3 {SET} --out set-bns",
    "synthesize net --code normed.py:build --method bns-inception --form l2 --jitter 1 --flip --total-variation 0.5 "
    f"--pixel-norm 0.01 --no-box --steps 3 {SET} --out set-bns-inception",
    "synthesize teacher --images 25 --unit 10 --workers 1 --seed 1 --out set-cut",
    # condensed and expanded sets
    "condense --data digits --method random --per-class 1 --teacher teacher --out few",
    "condense --data digits --method kmeans --per-class 2 --size 4 --out few-kmeans",
    "condense --data digits --method dm --iterations 3 --width 4 --real 4 --per-class 1 --teacher teacher --out few-dm",
    "import-condensed arrays.npz teacher --pixels 0-1 --anyway --out few-imported",
    f"expand teacher few --steps 2 {SET} --out expanded",
    f"expand teacher few --alignment discriminator --discriminator-width 4 --steps 2 {SET} --out expanded-discriminator",
    # students
    "distill teacher --images set --data digits --epochs 30 --batch 20 --learning-rate 1e-2 --out student",
    "distill teacher hinton4 --data digits --epochs 6 --learning-rate 1e-2 --out baseline",
    "distill teacher hinton4 --online distribution --epoch-images 40 --epochs 2 --temperature 2 --out student-fresh",
    "distill teacher hinton4 --images set --condensed few --share 0.25 --epochs 2 --out student-mixed",
    "distill teacher hinton4 --condensed few --epoch-images 40 --epochs 2 --out student-few",
    "distill net tiny.py:build --code normed.py:build --images set-bns --epochs 2 --out student-own",
    f"distill teacher {ONLINE} --replay-bytes 4000 --data digits --out online",
    f"distill teacher {ONLINE} --preset dfad --condensed few --alignment means --out online-dfad",
    # quantized
    "quantize net --code normed.py:build --calibrate set-bns --data digits --out int8",
    "quantize teacher --weights 4 --activations 4 --calibrate noise --images 20 --finetune set --epochs 2 --batch 10 "
    "--out w4a4",
    # measurements
    "evaluate teacher --data digits --out measured",
    "evaluate student --data digits --teacher teacher --out measured-student",
    "similarity net --code normed.py:build set-bns digits noise --images 20 --out likeness",
    "report teacher student baseline online set likeness net --code normed.py:build --data digits --out page.html",
)  # fmt: skip
SAVES = "fit._save 1"
STOPPED = {
    "stopped-train": (SAVES, "train hinton8 --data digits --size 4 --epochs 3 --out {}"),
    "stopped-own": (SAVES, "train normed.py:build --data digits --size 4 --epochs 2 --limit 200 --out {}"),
    "stopped-distill": ("fit._save 2", "distill teacher --images set --data digits --epochs 4 --batch 30 --out {}"),
    "stopped-record": (
        "records._forward 4",
        "record hinton8 --weights teacher/model.safetensors --data digits --size 4 --preset best --out {}",
    ),
    "stopped-examples": (
        "records._forward 3",
        "record hinton8 --weights teacher/model.safetensors --data digits --size 4 --kind spectral-all --signal examples "
        "--examples 2 --out {}",
    ),
    "stopped-bank": (
        "adversarial.game.Game.epoch 3",
        f"distill teacher {ONLINE} --replay-bytes 2000 --data digits --out {{}}",
    ),
    "stopped-balanced": (
        "adversarial.game.Game.epoch 2",
        f"distill net hinton4 --code normed.py:build {ONLINE} --replay balanced --replay-bytes 2000 --statistics 0.01 "
        "--scene none --out {}",
    ),
    "stopped-vae": (
        "adversarial.game.Game.epoch 3",
        f"distill teacher hinton4 {ONLINE} --replay vae --replay-bytes 20000 --vae-code 2 --optimizer adam --out {{}}",
    ),
    "stopped-guided": (
        "adversarial.game.Game.epoch 2",
        f"distill teacher hinton4 {ONLINE} --replay ema --condensed few --alignment discriminator --discriminator-width 4 "
        "--out {}",
    ),
    "stopped-synthesize": (
        "syntheticset._write_shard 2",
        "synthesize teacher --method matched --steps 3 --images 40 --unit 10 --workers 1 --out {}",
    ),
    "stopped-expand": (
        "syntheticset._write_shard 2",
        "expand teacher few --steps 2 --images 30 --unit 10 --workers 1 --out {}",
    ),
    "stopped-condense": (
        "condensing.matching._save 2",
        "condense --data digits --method dm --iterations 4 --width 4 --real 4 --per-class 1 --teacher teacher --out {}",
    ),
    "stopped-quantize": (
        SAVES,
        "quantize exact --calibrate bytes.npz --no-equalise --correct-bias none --finetune bytes.npz --epochs 2 --batch 10 "
        "--learning-rate 2e-2 --out {}",
    ),
}  # fmt: skip
"""Folder -> the function after whose N-th call the command is stopped (those of `BEFORE`: before it), and its line."""
BEFORE = ("epoch", "_forward")
EVERY = (
    "train hinton4 --data digits --out new",
    *(f"record teacher --data digits --replace --kind {kind} --out new" for kind in (
        "moments", "spectral-all", "batch-norm", "input",
    )),
    "record teacher --data digits --replace --preset safe --out new",
    *(f"synthesize teacher --method {method} --out new" for method in (
        "all-dropout", "bns-inception", "distribution", "matched", "spectral-pairs",
    )),
    *(f"condense --data digits --method {method} --per-class 1 --teacher teacher --out new" for method in (
        "dm", "kmeans",
    )),
    *(f"expand teacher few --alignment {kind} --out new" for kind in ("coral", "discriminator")),
    "distill teacher hinton4 --images set --data digits --out new",
    "distill teacher hinton4 --condensed few --images set --out new",
    "distill teacher hinton4 --online distribution --out new",
    *(f"distill teacher hinton4 --online generator --replay {kind} --out new" for kind in (
        "balanced", "ema", "vae",
    )),
    "distill teacher hinton4 --online generator --condensed few --alignment coral --preset dafl --scene things --out new",
    "distill teacher hinton4 --online generator --preset mb-dfkd --scene things --out new",
    "distill teacher hinton4 --online generator --preset pre-dfkd --scene things --out new",
    "quantize teacher --weights 8 --calibrate noise --finetune set --out new",
    "evaluate teacher --data digits --teacher student --out new",
    "similarity teacher set noise --out new",
    "import-condensed arrays.npz teacher --pixels 0-1 --layout NHWC --out new",
    "report teacher set --data digits --out new.html",
)  # fmt: skip
"""Command lines that are given every further flag of theirs."""
VALUES = {
    "--limit": "100", "--unit": "10", "--workers": "1", "--temperature": "2", "--guidance": "1", "--width": "1",
    "--epoch-images": "20", "--first": "8", "--last": "8", "--shift": "1", "--statistics": "0", "--images": "20",
}  # fmt: skip
"""Values of flags without a default."""
LEFT_OUT = (
    "--code", "--teacher-code", "--weights", "--record", "--data-dir", "--class-order", "--size", "--mean", "--std",
    "--preset", "--taps", "--add", "--replace", "--checkpoint", "--executorch", "--threads", "--zca", "--aligned",
)  # fmt: skip
"""Flags that do not go with the others, or name what is not there."""


def main(arguments: list[str]) -> None:
    """`NEW_FOLDER`, or for a command that is to be stopped: `--stop WHERE NUMBER SIGNAL COMMAND ...`."""
    if arguments[0] == "--stop":
        where, number, name = arguments[1:4]
        _disguise()
        _stop_at(where, int(number), signal.Signals[name])
        from datafree.__main__ import main as command

        command(arguments[4:])
    import datafree

    git = ["git", "-C", str(Path(datafree.__file__).parent), "rev-parse", "--short", "HEAD"]
    head = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    assert head == COMMIT, head
    target = Path(arguments[0]).absolute()
    target.mkdir()
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        said = _make(Path.cwd())
        _check(Path.cwd())
        _pack(Path.cwd(), target / "files.tar.xz")
    text = json.dumps(said, indent=1, sort_keys=True, ensure_ascii=False)
    (target / "said.json").write_text(text + "\n", encoding="utf-8")


def _make(here: Path) -> dict[str, Any]:
    """Runs all commands in the working directory; what they were and what they printed."""
    _disguise()
    _sources()
    said: dict[str, Any] = {"folders": {}, "stopped": {}, "inspect": {}, "evaluate": {}, "flags": []}
    for line in LINES:
        line = f"{line} {FLAGS}" if line.split()[0] not in ("pack", "convert") else line
        _say(line)
    _from_python()
    for index, (name, (stop, line)) in enumerate(STOPPED.items()):
        whole = f"{line.format(name)} {FLAGS}"
        said["stopped"][name] = whole
        _stopped(whole, *stop.split(), ("SIGINT", "SIGTERM")[index % 2])
        _finished(name, f"{line.format('whole')} {FLAGS}", here)
    for path in sorted(own for own in here.iterdir() if _is_read(own)):
        said["inspect"][path.name] = _say(f"inspect {path.name}")
        if (path / "record.safetensors").exists():
            said["inspect"][f"{path.name}/record.safetensors"] = _say(f"inspect {path.name}/record.safetensors")
        said["folders"][path.name] = _held(path)
    for name in ("measured", "measured-student", "likeness", "page.html"):
        said["folders"][name] = _held(here / name)
    for line in EVERY:
        said["flags"].append(_with_every_flag(line))
        assert "--threads: got 0" in _say(said["flags"][-1], ends=2), said["flags"][-1]
    networks = ("teacher", "student", "online", "stopped-bank", "int8", "w4a4")
    for name in (*networks, "net --code normed.py:build", "packed --code tiny.py:build"):
        said["evaluate"][name] = _say(f"evaluate {name} --data digits {FLAGS}")
    return said


def _held(path: Path) -> dict[str, Any]:
    """The names of the files in a folder, and the commands that made it, the earlier one first."""
    log = path.with_name(f"{path.name}.run.json")
    last = json.loads(log.read_text()) if log.is_file() else {}
    lines = [shlex.join(own["argv"]) for own in (last.get("before", {}), last) if own]
    return {"lines": lines, "files": sorted(own.name for own in path.iterdir()) if path.is_dir() else []}


def _with_every_flag(line: str) -> str:
    """The command line with all of its flags, and a count of threads that ends it before it begins."""
    from datafree.commands import app

    words = shlex.split(line)
    command = app(words).parse_commands(words)[1][-1]
    for own in command.assemble_argument_collection():
        value = own.field_info.default if own.field_info is not None else None
        chosen = len(get_args(own.hint)) == 1  # the name of the method or kind itself
        there = own.name in words or own.name in LEFT_OUT or chosen or not own.name.startswith("--")
        if there or (own.name not in VALUES and (value is None or value == ())):
            continue
        word = own.names[-1] if value is False else own.name
        words += [word] if isinstance(value, bool) else [word, VALUES.get(own.name, str(value))]
    return shlex.join([*words, "--threads", "0"])


def _is_read(path: Path) -> bool:
    """Whether `inspect` says something of it that is not in its run.json alone."""
    if path.is_dir():
        return any((path / name).exists() for name in ("config.json", "set.json", "condensed.safetensors"))
    return path.name == "python-record.safetensors"


def _say(line: str, ends: int = 0) -> str:
    """What a command that ends so prints."""
    from datafree.__main__ import run

    print(line, file=sys.stderr)
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = run(shlex.split(line))
    assert code == ends, (line, code, out.getvalue(), err.getvalue())
    return err.getvalue() if ends else out.getvalue()


def _stopped(line: str, where: str, number: str, name: str) -> None:
    import datafree

    print(f"{line}   [{name} at {where}, {number}]", file=sys.stderr)
    words = [sys.executable, str(SCRIPT), "--stop", where, number, name, *shlex.split(line)]
    same = {**os.environ, "PYTHONPATH": str(Path(datafree.__file__).parents[1])}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=same)
    assert done.returncode == 128 + signal.Signals[name], done
    assert "the part that is complete is kept" in done.stderr, done.stderr


def _finished(name: str, line: str, here: Path) -> None:
    """Keeps beside a stopped run what version 0.1.0 made of the same command, undisturbed."""
    _say(line)
    parts = ("model.safetensors", "condensed.safetensors", "record.safetensors", "model.onnx")
    (here / "ends" / name).mkdir(parents=True)
    if (here / "whole" / "record.safetensors").exists():
        parts = ("record.safetensors",)
    for path in (here / "whole").iterdir():
        if path.name in parts or path.name.startswith("unit-"):
            shutil.copy(path, here / "ends" / name / path.name)
    shutil.rmtree(here / "whole")
    (here / "whole.run.json").unlink()


def _sources() -> None:
    """What the commands read that is not datafree's own: code, arrays of digits, weights of a plain pattern."""
    import numpy as np
    import torch
    from datafree.spec import InputSpec
    from datafree.zoo import build
    from safetensors.torch import save_file
    from sklearn.datasets import load_digits

    Path("normed.py").write_text(NORMED)
    Path("tiny.py").write_text(TINY)
    digits = load_digits()
    small = digits.images.reshape(-1, 4, 2, 4, 2).mean((2, 4)) / 16
    np.savez_compressed("arrays.npz", images=small[:100].astype(np.float32), labels=digits.target[:100])
    np.savez_compressed("bytes.npz", images=np.round(small[:60] * 255).astype(np.uint8), labels=digits.target[:60])
    names: dict[str, Any] = {}
    exec(TINY, names)
    torch.manual_seed(0)
    spec = InputSpec(shape=(1, 4, 4), classes=tuple("0123456789"))
    torch.save(names["build"](spec).state_dict(), "tiny.pth")
    for name, file, shape, classes in (
        ("lenet5-half", "lenet5-half", (1, 32, 32), 10),
        ("resnet8", "resnet8", (3, 8, 8), 2),
        ("alexnet/999", "alexnet", (3, 32, 32), 3),
    ):
        own = InputSpec(shape=shape, classes=tuple(map(str, range(classes))))
        save_file({k: _pattern(t) for k, t in build(name, own).state_dict().items()}, f"{file}.safetensors")


def _exact() -> None:
    """A network of quarters on whole pixels: its activations are exact, so that every processor calibrates it alike."""
    import torch

    import datafree as df

    spec = df.InputSpec(shape=(1, 4, 4), low=0.0, high=255.0, classes=tuple("0123456789"))
    network = df.new_model("hinton4", spec, seed=0)
    with torch.no_grad():
        for own in network.module.parameters():
            own.copy_((4 * own).round() / 4)
    df.write_release("exact", network)


def _pattern(like: Any) -> Any:
    """Weights that compress to nothing, and variances above 0."""
    import torch

    if not like.is_floating_point():
        return like
    return (torch.arange(like.numel()) % 7 * 0.02 - 0.03 + (like.ndim < 2)).reshape(like.shape).to(like.dtype)


def _from_python() -> None:
    """The same kinds written by calls from Python, which leave no run.json."""
    import datafree as df
    from datafree import condensing

    _exact()
    digits = df.load_data("digits", "train")
    teacher = df.load_model("teacher")
    known = df.record(teacher, digits, df.preset("sharp", teacher, digits))
    df.write_release("python-release", teacher, known)
    known.save("python-record.safetensors")
    df.synthesize(teacher, known, df.method("distribution"), "python-set", images=20, unit=10, workers=1)
    job = condensing.Job(digits, teacher.spec, 1)
    df.condense(condensing.named("random"), job).save("python-condensed")


def _disguise() -> None:
    """One thread, and a processor of nobody's: every machine that opens the files is another one."""
    import torch

    from datafree import runlog, states

    torch.set_num_threads(1)
    states.processor = lambda: PROCESSOR
    runlog._processor = lambda: PROCESSOR
    runlog.commit = lambda: COMMIT
    runlog.os.cpu_count = lambda: 4


def _stop_at(where: str, number: int, kind: signal.Signals) -> None:
    """Sends this process the signal at the N-th call of a function of datafree, and waits for it to arrive."""
    import importlib

    from datafree.condensing import matching

    from datafree import records

    records._chunk = lambda *_: 200
    matching.PAUSE = -1
    place, _, name = where.rpartition(".")
    head, _, inner = place.rpartition(".")
    owner: Any
    if inner[:1].isupper():
        owner = getattr(importlib.import_module(f"datafree.{head}"), inner)
    else:
        owner = importlib.import_module(f"datafree.{place}")
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def one(*values: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number and name in BEFORE:
            _signal(kind)
        result = real(*values, **named)
        if calls == number and name not in BEFORE:
            _signal(kind)
        return result

    setattr(owner, name, one)


def _signal(kind: signal.Signals) -> None:
    os.kill(os.getpid(), kind)
    time.sleep(1)


def _check(here: Path) -> None:
    """Puts `PLACE` where the logs name the working directory, and raises where anything else names the machine."""
    for path in sorted(own for own in here.rglob("*") if own.is_file()):
        content = path.read_bytes()
        if str(here).encode() in content:
            assert path.name.endswith("run.json"), path
            path.write_bytes(content.replace(str(here).encode(), PLACE.encode()))
    shutil.rmtree(here / "__pycache__", ignore_errors=True)


def _pack(here: Path, target: Path) -> None:
    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        info.mode = 0o755 if info.isdir() else 0o644
        return info

    with tarfile.open(target, "w:xz", preset=9, format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(here.iterdir(), key=lambda own: (own.suffix, own.name)):
            archive.add(path, path.name, filter=plain)


SCRIPT = Path(__file__).absolute()

if __name__ == "__main__":
    main(sys.argv[1:])
