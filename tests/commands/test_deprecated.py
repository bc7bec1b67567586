"""Earlier spellings of a command line and what they are now; each prints one line, and means what it meant."""

from __future__ import annotations

import json
import shlex

import pytest

from datafree._core.errors import UserError
from datafree.cli import app
from datafree.cli.deprecated import RENAMED, rewritten

TABLE = [
    ("synthesize t --method bns --out s", "synthesize bns t --out s", 1),
    ("synthesize t --out s --method=top --steps 3", "synthesize top t --out s --steps 3", 1),
    ("synthesize --method bns t --out s", "synthesize bns t --out s", 1),
    ("synthesize bns --method top --out s", "synthesize top ./bns --out s", 1),
    ("synthesize t --unit 16 --out s", "synthesize t --chunk 16 --out s", 1),
    ("synthesize t --unit=16 --caution 0.5 --out s", "synthesize t --chunk=16 --warp-acceptance 0.5 --out s", 2),
    ("synthesize t --shift 0.1 --out s", "synthesize t --translate 0.1 --out s", 1),
    ("synthesize t --method matched --classes 2 --smooth 1 --out s",
     "synthesize matched t --classes-per-batch 2 --total-variation 1 --out s", 3),
    ("synthesize t --method bns-inception --classes 2 --out s", "synthesize bns-inception t --class-weight 2 --out s", 2),
    ("synthesize bns t --smooth 1 --out s", "synthesize bns t --smooth 1 --out s", 0),
    ("condense --data d --method kmeans --per-class 1 --out c", "condense kmeans --data d --per-class 1 --out c", 1),
    ("condense --data d --rate 0.1 --mirror --per-class 1 --out c",
     "condense --data d --learning-rate 0.1 --flip --per-class 1 --out c", 2),
    ("expand t c --alignment coral --covariance 2 --out s", "expand coral t c --covariance-weight 2 --out s", 2),
    ("expand t c --classes 2 --out s", "expand t c --class-weight 2 --out s", 1),
    ("record t --kind moments --taps fc1 --scale 2", "record moments t --taps fc1 --activation-scale 2", 2),
    ("record t --preset small", "record t --preset small", 0),
    ("distill t --images s --out o", "distill t --set s --out o", 1),
    ("distill t s --online generator --out o", "distill online t s --out o", 1),
    ("distill t --online=generator --steer 0 --replayed 0.5 --sharpness 2 --kind l1 --out o",
     "distill online t --latent-step 0 --replay-fraction 0.5 --disagreement-temperature 2 "
     "--disagreement-kind l1 --out o", 5),
    ("distill t --online generator --generator-rate 1 --student-rate 2 --vae-rate 3 --decay 0.9 --out o",
     "distill online t --generator-learning-rate 1 --student-learning-rate 2 --vae-learning-rate 3 --memory-decay 0.9 "
     "--out o", 5),
    ("distill online t --decay=0.9 --out o", "distill online t --memory-decay=0.9 --out o", 1),
    ("distill online t --decay constant --out o", "distill online t --decay constant --out o", 0),
    ("distill t --set s --decay constant --out o", "distill t --set s --decay constant --out o", 0),
    ("distill t --online bns --learning-rate 0.1 --out o", "distill fresh bns t --method-learning-rate 0.1 --out o", 2),
    ("distill fresh bns t --learning-rate 0.1 --out o", "distill fresh bns t --learning-rate 0.1 --out o", 0),
    ("quantize t --weights 4 --activations=4 --first 8 --last 8 --out q",
     "quantize t --weight-bits 4 --activation-bits=4 --first-bits 8 --last-bits 8 --out q", 4),
    ("quantize t --weights=4 --out q", "quantize t --weight-bits=4 --out q", 1),
    ("quantize t --weights w.safetensors --out q", "quantize t --weights w.safetensors --out q", 0),
    ("quantize t --checkpoint w.safetensors --out q", "quantize t --weights w.safetensors --out q", 1),
    ("train m --data d --lr 0.1 --batch-size 8 -o t", "train m --data d --learning-rate 0.1 --batch 8 --out t", 0),
    ("synthesize t -n 10 -o s", "synthesize t --images 10 --out s", 0),
    ("train m --data d --out t -- --lr", "train m --data d --out t -- --lr", 0),
    ("inspect t", "inspect t", 0),
]  # fmt: skip


@pytest.mark.parametrize(("earlier", "now", "notes"), TABLE)
def test_an_earlier_spelling_is_rewritten(earlier, now, notes):
    words, lines = rewritten(shlex.split(earlier))
    assert shlex.join(words) == now
    assert len(lines) == notes
    assert rewritten(words) == (words, [])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("synthesize t --method bnz --out s", "no synthesis method 'bnz'; nearest: 'bns'"),
        ("record t --kind momentz", "no kind of statistic 'momentz'; nearest: 'moments'"),
        ("record t --kind moments --preset safe", "--kind and --preset: got both"),
        ("distill t --online nosuch --out o", "no synthesis method 'nosuch'"),
        ("distill t --online bns --images s --out o", "--images and --online: got both"),
        ("distill t --online bns --condensed s --out o", "--condensed and --online bns: got both"),
    ],
)
def test_an_earlier_spelling_that_means_nothing_is_refused(line, text):
    with pytest.raises(UserError) as caught:
        rewritten(shlex.split(line))
    assert text in str(caught.value)


def test_every_flag_that_replaces_another_exists():
    for key, flags in RENAMED.items():
        words = [key] + [(*key, name) for name in app()[key[0]] if len(key) == 1 and not name.startswith("-")]
        words += [("distill", "fresh", "bns")] if key[:2] == ("distill", "fresh") else []
        apps = [app().parse_commands(list(own))[1][-1] for own in words]
        there = {flag for own in apps for argument in own.assemble_argument_collection() for flag in argument.names}
        assert set(flags.values()) <= there, (key, set(flags.values()) - there)


def test_an_earlier_command_runs_and_says_how_it_is_written_now(command, here):
    done = command("synthesize teacher --method gaussian --images 8 --unit 8 --out noise --quiet")
    assert done.code == 0
    assert done.err.splitlines() == [
        "datafree: note: --method gaussian is now written: datafree synthesize gaussian ...",
        "datafree: note: --unit is now called --chunk",
    ]
    log = json.loads((here / "noise.run.json").read_text())
    assert log["argv"] == [
        "synthesize",
        "gaussian",
        "teacher",
        "--images",
        "8",
        "--chunk",
        "8",
        "--out",
        "noise",
        "--quiet",
    ]


def test_an_earlier_log_is_rerun_and_a_folder_of_a_methods_name_stays_a_folder(command, here):
    (here / "teacher").rename(here / "bns")
    log = {
        "verb": "synthesize", "format": 2, "inputs": {}, "settings": {"model": "bns"},
        "argv": ["synthesize", "bns", "--method", "gaussian", "--images", "8", "--unit", "8", "--out", "a", "--quiet"],
    }  # fmt: skip
    (here / "run.json").write_text(json.dumps(log))
    done = command("rerun run.json --trust")
    assert done.code == 0 and (here / "a" / "set.json").is_file(), done.err
    log["argv"] = ["synthesize", "bns", "--images", "8", "--unit", "8", "--out", "b", "--quiet"]
    (here / "run.json").write_text(json.dumps(log))
    assert command("rerun run.json --trust").code == 0
    assert json.loads((here / "b" / "set.json").read_text())["method"]["method"] == "distribution"
