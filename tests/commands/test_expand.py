"""`expand` and `distill --condensed` from the command line: used rightly, stopped, and wrongly."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch

from datafree.cli.main import run
from datafree.data.condensed.condensed_set import Condensed
from datafree.synthesis.methods import meta_generator
from datafree.synthesis.synthetic_set import SyntheticSet

from .conftest import NORMED_CODE
from .test_stop import stop

EXPAND = "expand teacher few --images 40 --chunk 8 --steps 2 --workers 2 --threads 1 --out {} --quiet"


@pytest.fixture(scope="session")
def made(made_plain, tmp_path_factory) -> Path:
    """As `made`, and one digit a class, sets of other classes, and one that lacks some."""
    folder = tmp_path_factory.mktemp("few") / "made"
    shutil.copytree(made_plain, folder)
    patch = pytest.MonkeyPatch()
    with patch.context() as inside:
        inside.chdir(folder)
        line = "condense random --data digits --per-class 1 --teacher teacher --out few --quiet"
        assert run(shlex.split(line)) == 0
        whole = Condensed.open("few")
        larger = whole.spec.model_copy(update={"shape": (1, 9, 8)})
        Condensed(torch.zeros(10, 1, 9, 8), whole.labels, larger, {}).save("larger")
        Condensed(whole.pixels[:8], whole.labels[:8], whole.spec, {}).save("eight")
        Condensed(whole.pixels * 1.5 - 0.2, whole.labels, whole.spec, {}).save("outside")
    return folder


def test_a_few_images_become_many_and_a_student_learns_from_both(command, here):
    done = command(EXPAND.format("many"))
    assert done.code == 0 and done.out.startswith("40 images in many; the teacher predicts the target class for ")
    made = SyntheticSet.open(here / "many")
    assert len(made) == 40 and made.about["method"]["method"] == "expand"
    assert made.load()[1].tolist() == [*range(10)] * 4
    log = json.loads((here / "many" / "run.json").read_text())
    assert (log["verb"], log["settings"]["alignment"], set(log["inputs"])) == (
        "expand",
        "mmd",
        {"teacher", "record", "condensed", "teacher_fingerprint", "record_digest"},
    )
    line = "distill teacher --set many --condensed few --share 0.25 --epochs 2 --data digits --out mixed --quiet"
    assert command(line).code == 0
    log = json.loads((here / "mixed" / "run.json").read_text())
    assert (log["settings"]["share"], log["settings"]["epoch_images"], log["result"]["images"]) == (0.25, 40, 40)
    assert set(log["inputs"]) == {"teacher", "condensed", "images", "digits (test)", "class names of digits (test)"}


def test_condensed_images_alone_teach_for_as_many_steps_as_asked(command, here):
    line = (
        "distill teacher --condensed few/condensed.safetensors --epoch-images 300 --batch 30 --epochs 2 --out a --quiet"
    )
    assert command(line).code == 0
    log = json.loads((here / "a" / "run.json").read_text())
    assert (log["settings"]["share"], log["result"]["images"], log["settings"]["images"]) == (1.0, 300, None)


def test_a_class_without_an_image_is_made_and_named(command, here):
    done = command("expand teacher eight --images 20 --chunk 10 --steps 2 --out a --quiet")
    assert done.code == 0
    assert done.out.endswith("  no image of 8, 9 in eight: those classes were made unguided\n")
    assert SyntheticSet.open(here / "a").load()[1].tolist() == [*range(10)] * 2


def test_a_generator_makes_the_images_and_takes_no_option_of_pixels(command, here, monkeypatch):
    short = partial(meta_generator.MetaGenerator, discard=1, width=8, steps=2)  # the default trains one for long
    monkeypatch.setattr(meta_generator, "MetaGenerator", short)
    (here / "normed.py").write_text(NORMED_CODE)
    assert command("train normed.py:build --data digits --epochs 1 --out net --quiet").code == 0
    line = (
        "expand means net few --code normed.py:build --generator --guidance 2 --images 16 --chunk 16 --out made --quiet"
    )
    done = command(line)
    assert done.code == 0 and "  while they were made, images were " in done.out
    log = json.loads((here / "made" / "run.json").read_text())
    assert (log["settings"]["generator"], log["settings"]["guidance"], log["settings"]["alignment"]) == (
        True,
        2.0,
        "means",
    )
    own = SyntheticSet.open(here / "made").about["method"]["generator"]
    assert (own["method"], own["discard"], own["width"], own["steps"]) == ("meta-generator", 1, 8, 2)
    done = command("expand teacher few --generator --steps 3 --out other --quiet")
    assert (done.code, done.err) == (
        2, "datafree: --steps: got it with --generator, which has no such option; leave one of the two out\n",
    )  # fmt: skip
    done = command("expand other few --generator --images 16 --out unmade --quiet")
    assert done.code == 2 and "leave --generator out" in done.err and "inception" not in done.err


@pytest.mark.usefixtures("here")
def test_learnt_images_outside_the_range_are_clamped(command):
    assert command("expand teacher outside --images 10 --chunk 10 --steps 1 --out a --quiet").code == 0
    assert command("distill teacher --condensed outside --epoch-images 20 --epochs 1 --out b --quiet").code == 0


def test_workers_a_larger_count_and_a_second_run_change_no_byte(command, here):
    for line in (EXPAND.format("a"), "expand teacher few --images 16 --chunk 8 --steps 2 --workers 1 --out b --quiet",
                 EXPAND.format("b"), EXPAND.format("b"), "rerun a/run.json --out c"):  # fmt: skip
        assert command(line).code == 0
    shards = [SyntheticSet.open(here / name).about["shards"] for name in "abc"]
    assert shards[0] == shards[1] == shards[2]


@pytest.mark.slow  # the other kinds of runs are stopped in `make test`, and `make crash` stops this one at every point
def test_a_stopped_expansion_goes_on_to_the_same_bytes(command, here):
    line = "expand teacher few --images 400 --chunk 8 --steps 20 --workers 2 --threads 1 --out {} --quiet"
    code, err, seconds = stop(line.format("a"), here / "a" / "unit-000002.safetensors", signal.SIGINT)
    assert (code, seconds < 10) == (130, True)
    assert err == f"datafree: stopped; the part that is complete is kept. Go on with: datafree {line.format('a')}\n"
    assert not (here / "a" / "run.json").exists()
    assert command(line.format("a")).code == 0 and command(line.format("b")).code == 0
    shards = [SyntheticSet.open(here / name).about["shards"] for name in "ab"]
    assert shards[0] == shards[1]


@pytest.mark.slow  # the other kinds of runs are stopped in `make test`, and `make crash` stops this one at every point
def test_a_stopped_student_goes_on_to_the_same_bytes(command, here):
    line = "distill teacher --condensed few --set set --epochs 120 --threads 1 --out {} --quiet"
    assert stop(line.format("a"), here / "a" / "training.safetensors", signal.SIGTERM)[0] == 143
    assert command(line.format("a")).code == 0 and command(line.format("b")).code == 0
    assert (here / "a" / "model.safetensors").read_bytes() == (here / "b" / "model.safetensors").read_bytes()


WRONG = [
    ("expand teacher nosuch --out o", "no condensed set nosuch; run datafree condense or import-condensed first"),
    ("expand teacher set --out o", "no condensed set set/condensed.safetensors"),
    ("expand teacher set/unit-000000.safetensors --out o", "is of kind 'shard'; expected 'condensed'"),
    ("expand nosuch few --out o", "no release folder 'nosuch', and no network of that name in the zoo"),
    ("expand teacher larger --out o", "the condensed set has images (1, 9, 8) of 10 classes, hinton16 expects (1, 8, 8)"),
    ("expand teacher few --alignment mdm --out o", "no kind of alignment 'mdm'; nearest: 'mmd'"),
    ("expand teacher few --images 0 --out o", "--images: got 0, expected at least 1"),
    ("expand teacher few --chunk 0 --out o", "--chunk: got 0, expected at least 1"),
    ("expand teacher few --workers 0 --out o", "--workers: got 0, expected at least 1"),
    ("expand teacher few --guidance -1 --out o", "--guidance: got -1"),
    ("expand teacher few --class-weight 0 --guidance 0 --balance 0 --statistics 0 --out o",
     "all weights of the losses are 0, expected at least one above 0; give --class-weight 1, or leave"),
    ("expand teacher few --bend 9 --out o", "--bend: got 9, expected at most 4"),
    ("expand teacher few --exposure 2 --out o", "--exposure: got 2, expected at most 1"),
    ("expand teacher few --start nose --out o", "--start: got 'nose', expected 'noise' or 'anchors'"),
    ("expand teacher few --covariance-weight 1 --out o", "--covariance-weight belongs to datafree expand coral"),
    ("expand teacher few --images 48 --chunk 16 --out set", "set was made by datafree synthesize, not datafree expand: "),
    ("expand teacher few --images 32 --chunk 16 --out set", "images: got 32, but the set in set already has 48"),
    ("expand teacher few --out teacher", "folder 'teacher' holds 'release'; expected 'synthetic-set'"),
    ("expand teacher few --out few", "folder 'few' holds 'condensed'; expected 'synthetic-set'"),
    ("expand teacher", "needs CONDENSED, which was not given"),
    ("distill teacher --condensed nosuch --out o", "no condensed set nosuch"),
    ("distill teacher --condensed larger --out o", "the condensed set has images (1, 9, 8) of 10 classes"),
    ("distill teacher --condensed few --set nosuch --out o", "no synthetic set in nosuch"),
    ("distill other --condensed few --set set --out o", "the set in set was made from another teacher"),
    ("distill teacher --condensed few --share 0 --set set --out o", "--share: got 0, expected above 0 and at most 1"),
    ("distill teacher --condensed few --share 1.5 --out o", "--share: got 1.5, expected above 0 and at most 1"),
    ("distill teacher --condensed few --epoch-images 0 --out o", "--epoch-images: got 0"),
    ("distill teacher --condensed few --online distribution --out o", "--condensed and --online distribution: got both"),
    ("distill teacher --condensed few --out few", "--out few is what this run reads, and would be lost"),
    ("distill teacher --out o", "expected --set SET, --condensed SET or --data NAME"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "text"), WRONG, ids=lambda value: value[:50])
def test_a_mistake_is_one_line_and_nothing_is_touched(refused, line, text):
    assert text in refused(line)
