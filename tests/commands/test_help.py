"""What --help says, how fast, and that every verb is there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from datafree.cli import VERBS

ALL = (
    "demo", "train", "record", "inspect", "synthesize", "distill", "quantize", "evaluate", "similarity", "report", "pack",
    "convert", "rerun", "condense", "import-condensed", "expand", "list", "completion", "compare", "prune",
)  # fmt: skip
FLAGS = {
    "train": ("--out", "--data", "--limit", "--size", "--epochs", "--learning-rate", "--seed", "--device", "--quiet"),
    "record": ("--data", "--preset", "--leak", "--add", "--replace", "--weights", "--code", "--seed"),
    "inspect": ("--code",),
    "synthesize": ("--out", "--images", "--chunk", "--workers", "--record", "--seed", "--inflate"),
    "expand": (
        "--out", "--images", "--translate", "--bend", "--exposure", "--steps", "--start", "--guidance",
        "--chunk", "--workers", "--record", "--code", "--seed", "--device", "--quiet",
    ),
    "distill": ("--set", "--condensed", "--share", "--epoch-images", "--data", "--temperature", "--epochs", "--loss",
    "--code", "--seed"),
    "prune": ("--keep", "--rounds", "--out", "--set", "--epochs", "--optimizer", "--shift", "--data", "--code", "--seed"),
    "quantize": (
        "--out", "--weight-bits", "--activation-bits", "--first-bits", "--last-bits", "--calibrate", "--images",
        "--equalise",
        "--correct-bias", "--finetune", "--epochs", "--repeats", "--mixup", "--data", "--weights", "--record", "--code",
        "--seed", "--quiet",
    ),
    "similarity": ("--split", "--images", "--form", "--layers", "--data-dir", "--out", "--weights", "--code", "--record"),
    "evaluate": ("--data", "--split", "--teacher", "--weights", "--code"),
    "compare": (
        "--out", "--methods", "--students", "--seeds", "--images", "--steps", "--budget", "--start", "--controls",
        "--print-cells", "--cell", "--replace", "--shift", "--flip", "--mixup", "--data", "--record", "--code", "--quiet",
    ),
    "report": ("--out", "--data", "--split", "--title", "--replace"),
    "pack": ("--weights", "--shape", "--classes", "--mean", "--std", "--out"),
    "convert": ("--out",),
    "condense": (
        "--out", "--per-class", "--teacher", "--iterations", "--learning-rate", "--start", "--data", "--limit", "--size",
        "--mean", "--std", "--code", "--seed", "--device", "--quiet",
    ),
    "import-condensed": (
        "--out", "--pixels", "--labels", "--patches", "--entry", "--layout", "--zca", "--resize", "--anyway", "--code",
        "--weights",
    ),
    "rerun": ("--out",),
    "demo": ("--out", "--images", "--seed", "--quiet"),
    "list": ("--json",),
    "completion": ("--log",),
}  # fmt: skip


def test_every_verb_is_listed(command):
    done = command("--help")
    assert (done.code, done.err) == (0, "")
    assert tuple(sorted(VERBS)) == tuple(sorted(ALL)) and len(FLAGS) == len(ALL)
    assert all(re.search(rf"^│ {verb} ", done.out, re.MULTILINE) for verb in ALL)


@pytest.mark.parametrize("verb", ALL)
def test_help_names_every_flag_with_an_explanation_and_an_example(command, verb):
    done = command(f"{verb} --help")
    assert (done.code, done.err) == (0, "")
    assert f"Example: datafree {verb}" in done.out or (verb == "synthesize" and "Example: datafree" in done.out)
    for flag in FLAGS[verb]:
        assert re.search(rf"^│ [* ]*{flag} ", done.out, re.MULTILINE), flag
    bare = re.findall(r"^│ [* ]*(--[a-z-]+)(?: [A-Z.]+)*  +│$", done.out, re.MULTILINE)
    assert [flag for flag in bare if not re.search(rf"{flag}[^\n]*\n│  +[A-Za-z]", done.out)] == []


@pytest.mark.parametrize("verb", ALL)
def test_help_says_where_data_sets_are_looked_for_if_the_command_has_the_flag(command, verb):
    text = command(f"{verb} --help").out
    assert bool(re.search(r"^│ [* ]*--data-dir ", text, re.MULTILINE)) == ("Data sets are looked for under" in text)


def test_a_methods_and_a_kinds_own_flags_are_in_its_help(command):
    assert "--steps" in command("synthesize top --help").out
    assert "--fraction" in command("record spectral-all --help").out
    assert "--epoch-images" in command("distill fresh distribution --help").out
    mixed = command("distill --help").out
    assert all(flag in mixed for flag in ("--share", "--epoch-images", "--translate", "--bend", "--exposure"))
    online = command("distill online --help").out
    assert all(
        flag in online for flag in ("--vae-code", "--memory-decay", "--covariance-weight", "--discriminator-width")
    )
    assert "--covariance" in command("expand coral --help").out


QUICK = [
    "--help", "synthesize bns --help", "distill online --help", "list methods", "synthesize teacher --bogus 1",
    *(
        pytest.param(line, marks=pytest.mark.slow)
        for line in (
            "synthesize --help", "record moments --help", "quantize --help", "report --help", "train hinton16 --bogus 1",
        )
    ),
]  # fmt: skip
TIMED = """
import sys, time
from datafree.cli.main import run
run({words})
taken = time.process_time()
for _ in range(3_000_000):
    pass
print(taken / (time.process_time() - taken), file=sys.stderr)
sys.exit("torch" in sys.modules)
"""


@pytest.mark.parametrize("line", QUICK)
def test_help_takes_little_cpu_and_leaves_torch_alone(line):
    """About 4 times as long as three million rounds of an empty loop, which take 0.15 s here; with torch, 20 times."""
    command = [sys.executable, "-c", TIMED.format(words=line.split())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stderr.splitlines()[-1]) < 14
