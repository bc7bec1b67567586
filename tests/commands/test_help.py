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
    "convert", "rerun", "condense", "import-condensed", "expand", "list", "completion",
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
    "distill": ("--set", "--condensed", "--share", "--epoch-images", "--data", "--temperature", "--epochs", "--loss", "--code", "--seed"),
    "quantize": (
        "--out", "--weight-bits", "--activation-bits", "--first-bits", "--last-bits", "--calibrate", "--images", "--equalise",
        "--correct-bias", "--finetune", "--epochs", "--repeats", "--mixup", "--data", "--weights", "--record", "--code",
        "--seed", "--quiet",
    ),
    "similarity": ("--split", "--images", "--form", "--layers", "--data-dir", "--out", "--weights", "--code", "--record"),
    "evaluate": ("--data", "--split", "--teacher", "--weights", "--code"),
    "report": ("--out", "--data", "--title"),
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
    "--help", "synthesize --help", "synthesize bns --help", "record moments --help", "distill online --help",
    "list methods", "quantize --help", "report --help", "train hinton16 --bogus 1", "synthesize teacher --bogus 1",
]  # fmt: skip


@pytest.mark.parametrize("line", QUICK)
def test_help_takes_under_a_second_of_cpu_and_leaves_torch_alone(line):
    code = f"import sys; from datafree.cli.main import run; run({line.split()!r}); sys.exit('torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
