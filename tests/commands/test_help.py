"""What --help says, how fast, and that every verb is there."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest

from datafree.cli import VERBS

ALL = (
    "demo", "train", "record", "inspect", "synthesize", "distill", "quantize", "evaluate", "similarity", "report", "pack",
    "convert", "rerun", "condense", "import-condensed", "expand",
)  # fmt: skip
FLAGS = {
    "train": ("--out", "--data", "--limit", "--size", "--epochs", "--learning-rate", "--seed", "--device", "--quiet"),
    "record": ("--data", "--preset", "--leak", "--kind", "--taps", "--add", "--replace", "--weights", "--code", "--seed"),
    "inspect": ("--code",),
    "synthesize": ("--out", "--images", "--method", "--unit", "--workers", "--record", "--seed", "--inflate"),
    "expand": (
        "--out", "--images", "--alignment", "--translate", "--bend", "--exposure", "--steps", "--start", "--guidance",
        "--unit", "--workers", "--record", "--code", "--seed", "--device", "--quiet",
    ),
    "distill": ("--images", "--condensed", "--online", "--data", "--temperature", "--epochs", "--loss", "--code", "--seed"),
    "quantize": (
        "--out", "--weights", "--activations", "--first", "--last", "--calibrate", "--images", "--equalise",
        "--correct-bias", "--finetune", "--epochs", "--repeats", "--mixup", "--data", "--checkpoint", "--record", "--code",
        "--seed", "--quiet",
    ),
    "similarity": ("--split", "--images", "--form", "--layers", "--data-dir", "--out", "--weights", "--code", "--record"),
    "evaluate": ("--data", "--split", "--teacher", "--weights", "--code"),
    "report": ("--out", "--data", "--title"),
    "pack": ("--weights", "--shape", "--classes", "--mean", "--std", "--out"),
    "convert": ("--out",),
    "condense": (
        "--out", "--per-class", "--method", "--teacher", "--iterations", "--rate", "--start", "--data", "--limit", "--size",
        "--mean", "--std", "--code", "--seed", "--device", "--quiet",
    ),
    "import-condensed": (
        "--out", "--pixels", "--labels", "--patches", "--entry", "--layout", "--zca", "--resize", "--anyway", "--code",
        "--weights",
    ),
    "rerun": ("--out",),
    "demo": ("--out", "--images", "--seed", "--quiet"),
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


def test_a_methods_and_a_kinds_own_flags_are_in_its_help(command):
    assert "--steps" in command("synthesize --method top --help").out
    assert "--fraction" in command("record --kind spectral-all --help").out
    assert "--epoch-images" in command("distill --online distribution --help").out
    mixed = command("distill --condensed few --help").out
    assert all(flag in mixed for flag in ("--share", "--epoch-images", "--translate", "--bend", "--exposure"))
    assert "--covariance" in command("expand --alignment coral --help").out


def test_help_takes_under_a_second_of_cpu_and_leaves_torch_alone():
    code = "import sys; from datafree.cli.main import run; run(['--help']); sys.exit('torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
