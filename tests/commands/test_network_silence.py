"""No command talks to the network, and onnxruntime leaves nothing in the user's home."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import datafree
from datafree._core.optional_packages import quiet
from datafree.cli import VERBS

with quiet():
    pytest.importorskip("torchao")
    pytest.importorskip("onnxruntime")

LINES = (
    "train hinton16 --data digits --limit 64 --epochs 1 --out t --quiet",
    "record teacher --data digits --preset full --out r --quiet",
    "inspect teacher",
    "synthesize gaussian teacher --images 4 --chunk 4 --out g --quiet",
    "distill teacher --set set --epochs 1 --out d --quiet",
    "prune teacher --keep 0.5 --set set --epochs 1 --out n --quiet",
    "evaluate student --data digits",
    "similarity teacher noise --images 16 --quiet",
    "train hinton16 --data digits --epochs 5 --batch 16 --learning-rate 0.01 --out taught --quiet",
    "compare taught --data digits --students hinton8 --methods gaussian --seeds 1 --images 128 --steps 10 --out c --quiet",
    "report teacher student --out page.html",
    "pack hinton16 --weights teacher/model.safetensors --shape 1 8 8 --classes 10 --out p",
    "convert weights.pt --out converted.safetensors",
    "rerun g --out again",
    "condense random --data digits --per-class 1 --out few --quiet",
    "import-condensed few.npz teacher --pixels 0-1 --out imported",
    "expand teacher few --images 10 --chunk 10 --steps 1 --out e --quiet",
    "quantize teacher --calibrate noise --images 16 --out int8 --quiet",
    "inspect int8",
    "evaluate int8 --data digits --quiet",
    "list methods",
    "completion bash",
)
"""Every verb, with as little to do as there is; `demo` is left out, since it takes twice as long as all the others, which
it calls."""
QUICK = [
    line
    for line in LINES
    if line.split()[0] in ("inspect", "train", "synthesize", "quantize", "evaluate", "list") and "taught" not in line
]
"""Among them what opens every library that is known to talk: torch, scikit-learn, onnxruntime, torchao."""

SCRIPT = """
import json, os, shlex, sys
events = []
def hook(event, args):
    if event.startswith(("socket.", "urllib.", "http.", "ftplib.", "smtplib.")):
        events.append([event, str(args)[:200]])
sys.addaudithook(hook)
import torch
torch.set_num_threads(1)
from datafree.cli.main import run
torch.save({"fc.weight": torch.zeros(2, 2)}, "weights.pt")
import numpy as np
from datafree.data import load
digits = load("digits", "test")
np.savez("few.npz", images=digits.pixels(range(400)).permute(0, 2, 3, 1).numpy(), labels=digits.labels[:400])
codes = []
for line in json.loads(sys.argv[1]):
    codes.append([line, run(shlex.split(line))])
with open("found.json", "w") as file:
    json.dump({"events": events, "codes": codes}, file)
"""


def environment(home: Path) -> dict[str, str]:
    """As a user has it who never heard of telemetry, with an empty home."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_"))}
    return {
        **own,
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        "MPLCONFIGDIR": str(home.parent),
    }


@pytest.mark.parametrize("lines", [QUICK, pytest.param(LINES, marks=pytest.mark.slow)], ids=["some", "every"])
def test_every_verb_runs_without_a_socket_and_leaves_the_home_empty(made_plain, tmp_path, lines):
    work, home = tmp_path / "work", tmp_path / "home"
    shutil.copytree(made_plain, work)
    home.mkdir()
    assert {line.split()[0] for line in LINES} == set(VERBS) - {"demo"}
    command = [sys.executable, "-c", SCRIPT, json.dumps(lines)]
    if shutil.which("strace"):  # what native code does, in every thread and process
        traced = ["-e", "trace=socket,connect,bind,sendto", "-o", "trace.txt"]
        command = ["strace", "-f", "-qq", "--seccomp-bpf", *traced, *command]
    done = subprocess.run(command, cwd=work, env=environment(home), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads((work / "found.json").read_text())
    assert [line for line, code in found["codes"] if code != 0] == [], done.stderr[-2000:]
    assert found["events"] == []
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []
    trace = (work / "trace.txt").read_text().splitlines() if (work / "trace.txt").exists() else []
    calls = [line for line in trace if re.match(r"\d+ +(socket|connect|bind|sendto)\(", line)]
    assert [line for line in calls if "AF_UNIX" not in line] == []  # libc asks its daemon there for the user's name


def test_importing_datafree_turns_telemetry_off_before_onnxruntime_is_imported(tmp_path):
    line = "import datafree, onnxruntime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for choice, kept in ((None, "1"), ("", "1"), ("yes", "yes")):
        own = {**environment(tmp_path), **({} if choice is None else {"ORT_DISABLE_TELEMETRY": choice})}
        done = subprocess.run([sys.executable, "-c", line], env=own, capture_output=True, text=True)
        assert (done.returncode, done.stdout.strip()) == (0, kept), done.stderr
        assert list(tmp_path.iterdir()) == []


def test_somebodys_own_choice_of_telemetry_stays(tmp_path):
    own = {**environment(tmp_path), "ORT_DISABLE_TELEMETRY": "0"}
    line = "import datafree, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert subprocess.run([sys.executable, "-c", line], env=own, capture_output=True, text=True).stdout.strip() == "0"


def test_onnxruntime_is_imported_only_where_datafree_was_before():
    """In the package, whose own __init__ comes first; papers and benchmarks go through the package."""
    root = Path(datafree.__file__).parents[2]
    files = [path for part in ("papers", "benchmarks", "examples") for path in (root / part).rglob("*.py")]
    assert [str(path) for path in files if "import onnxruntime" in path.read_text()] == []
    assert 'os.environ["ORT_DISABLE_TELEMETRY"] = "1"' in (root / "src/datafree/__init__.py").read_text()
