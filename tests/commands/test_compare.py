"""datafree compare: the table, one cell at a time, classes and networks of the user's own, and what is wrong."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from datafree._core.files import locked
from datafree.cli.main import run as run_command

TINY = "--images 32 --steps 10 --batch 16 --students hinton8 --seeds 1 --quiet"
OPTIONS = "--images 32 --steps 10 --batch 16 --seeds 1 --no-controls --quiet"
METHOD = """
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

import datafree as df
from datafree.synthesis.methods import Batch, chunk_labels


class Stripes(df.Settings):
    method: Literal["stripes"] = "stripes"
    summary: ClassVar[str] = "random images"
    in_range: ClassVar[bool] = True

    def bind(self, teacher, record):
        return Bound(self, teacher)


@dataclass(frozen=True)
class Bound:
    settings: Stripes
    teacher: df.Network

    def chunk(self, index, seed, size):
        rng = torch.Generator().manual_seed(index)
        return Batch(torch.rand((size, *self.teacher.spec.shape), generator=rng), chunk_labels(index, size, 10))


class Broken(Stripes):
    method: Literal["broken"] = "broken"

    def bind(self, teacher, record):
        raise ValueError("not today")
"""
SLOW = """
import time
from typing import Literal

from stripes import Stripes

import datafree as df


class Slow(Stripes):
    method: Literal["slow"] = "slow"

    def bind(self, teacher, record):
        end = time.process_time() + 0.6
        while time.process_time() < end:
            pass
        return super().bind(teacher, record)


class Needy(Stripes):
    method: Literal["needy"] = "needy"

    def bind(self, teacher, record):
        raise df.UserError("no images yet, expected some; give `images=99`")
"""
STUDENT = """
from torch import nn

def build(spec):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.pixels, len(spec.classes)))
"""


@pytest.fixture(autouse=True)
def _files(here, release):
    shutil.copytree(release, here / "good")
    (here / "stripes.py").write_text(METHOD)
    (here / "slow.py").write_text(SLOW)
    (here / "own_student.py").write_text(STUDENT)


def rows(here, out: str) -> list[dict]:
    stored = json.loads((here / out / "comparison.json").read_text())
    return [
        {key: row[key] for key in ("method", "student", "n", "accuracy", "agreement", "steps")}
        for row in stored["rows"]
    ]


def test_lines_of_print_cells_run_alone_and_give_the_same_table(command, here):
    line = f"compare good --data digits --methods stripes.py:Stripes,online {TINY} --out"
    assert command(f"{line} whole").code == 0
    printed = command(f"{line} parts --print-cells")
    lines = printed.out.splitlines()
    assert [shlex.split(text)[-1] for text in lines] == [
        f"{method}/hinton8/0" for method in ("stripes", "online", "real", "noise")
    ]
    assert not (here / "parts").exists() and printed.code == 0
    for text in reversed(lines):
        assert run_command(shlex.split(text)[1:]) == 0
    assert command(f"{line} parts --print-cells").out == ""
    done = command(f"{line} parts")
    assert done.code == 0 and "stripes" in done.out
    assert rows(here, "parts") == rows(here, "whole")


def test_printed_cells_start_datafree_as_it_was_started(command, here, monkeypatch):
    line = f"compare good --data digits --methods stripes.py:Stripes --no-controls {TINY} --out parts --print-cells"
    monkeypatch.setattr(sys, "argv", ["/usr/bin/datafree"])
    assert shlex.split(command(line).out)[:2] == ["datafree", "compare"]
    monkeypatch.setattr(sys, "argv", [str(here / "datafree" / "__main__.py")])
    assert shlex.split(command(line).out)[:4] == [sys.executable, "-m", "datafree", "compare"]


def test_the_help_states_the_learning_rate_of_a_comparison(command):
    assert "every student has Muon" in " ".join(command("compare --help").out.replace("│", " ").split())


def test_a_method_and_a_student_of_the_users_own_take_part(command, here):
    done = command(
        "compare good --data digits --methods stripes.py:Stripes --students own_student.py:build,half "
        f"{OPTIONS} --out out"
    )
    assert done.code == 0, done.err
    assert [(row["method"], row["student"], row["n"]) for row in rows(here, "out")] == [
        ("stripes", "own_student:build", 1), ("stripes", "hinton16", 1)
    ]  # fmt: skip
    changed = STUDENT.replace("nn.Flatten()", "nn.Flatten(), nn.Identity()")
    (here / "own_student.py").write_text(changed.replace("spec.pixels", "1 * spec.pixels"))
    line = (
        f"compare good --data digits --methods stripes.py:Stripes --students own_student.py:build {OPTIONS} --out out"
    )
    assert "with other content of" in command(line).line
    page = (here / "out" / "comparison.html").read_text()
    assert str(here) not in page + (here / "out" / "run.json").read_text()


def test_a_failed_cell_is_listed_and_the_exit_code_says_so(command, here):
    line = f"compare good --data digits --methods stripes.py:Broken,stripes.py:Stripes --no-controls {TINY} --out out"
    done = command(line)
    assert done.code == 1
    assert "failed: broken/hinton8/0: the code in stripes.py, line 34, fails with ValueError: not today" in done.out
    assert [(row["method"], row["n"]) for row in rows(here, "out")] == [("stripes", 1), ("broken", 0)]
    done = command(f"{line} --json")
    assert done.code == 1 and json.loads(done.out)["result"]["unfinished"][0]["cell"] == "broken/hinton8/0"


def test_a_finished_comparison_is_repeated_with_the_same_words(command, here):
    line = f"compare good --data digits --methods stripes.py:Stripes {TINY} --out out"
    first, log = command(line), (here / "out" / "run.json").read_bytes()
    assert command(line).out == first.out and (here / "out" / "run.json").read_bytes() == log
    assert "differences may be chance" in first.out


def test_a_cell_that_another_run_measures_is_left_to_it(here):
    line = f"compare good --data digits --methods stripes.py:Stripes --no-controls {TINY} --out out"
    place = here / "out" / "cells" / "stripes" / "hinton8" / "seed-0"
    place.mkdir(parents=True)
    (here / "out" / ".datafree.json").write_text('{"kind": "comparison"}')
    with ThreadPoolExecutor(1) as pool:  # a lock of this thread would be shared
        with locked(place):
            assert pool.submit(run_command, shlex.split(line)).result() == 1
        assert pool.submit(run_command, shlex.split(line)).result() == 0
    assert [row["n"] for row in rows(here, "out")] == [1]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("good --out out", "no data named, expected --data; give digits, mnist, a folder or an .npz file"),
        ("good --data digits --methods bnz --out out", "no method 'bnz'; nearest: 'bns'"),
        ("good --data digits --methods bns, --out out", "--methods: got 'bns,', expected names with commas between"),
        ("good --data digits --seeds 0 --out out", "--seeds: got 0, expected at least 1; give a larger number"),
        (
            "good --data digits --budget 1x --out out",
            "--budget: got '1x', expected at least a second, such as 90s, 10m or 2h",
        ),
        ("good --data digits --budget 1m --steps 3 --out out", "--budget: got it with --steps, expected one of them"),
        (
            "good --data digits --cell x --out out",
            "--cell: got 'x', expected METHOD/STUDENT/SEED of one of the 12 cells",
        ),
        ("good --data digits --cell x --print-cells --out out", "--cell: got it with --print-cells"),
        ("good --data digits --images 5 --out out", "--images: got 5, expected at least 128"),
        ("good --data digits --no-controls --limit 9 --out out", "--limit: got 9 without the control `real`"),
        ("good --data digits --out set", "folder 'set' holds 'synthetic-set'; expected 'comparison'"),
        ("good --data digits --epochs 3 --out out", "no flag '--epochs'"),
        (
            "teacher --data digits --out out",
            "TEACHER: got 20.80 % on 500 test images of digits, near chance (10.0 %), expected",
        ),
    ],
)
def test_what_is_wrong_is_one_line(command, here, flags, text):
    before = {path.name for path in here.iterdir()}
    done = command(f"compare {flags} --quiet")
    assert text in done.line
    assert {path.name for path in here.iterdir()} - {"__pycache__"} == before - {"__pycache__"}


def test_other_settings_are_refused_in_flags_and_replaced_on_request(command):
    line = f"compare good --data digits --methods stripes.py:Stripes --no-controls {TINY} --out out"
    assert command(line).code == 0
    changed = line.replace("--steps 10", "--steps 20")
    text = "seed-0 was made with --steps 10, not 20: give --replace to make it again, or name another --out"
    assert text in command(changed).line
    assert text in command(f"{changed} --print-cells").line
    assert command(f"{changed} --replace").code == 0


def test_the_reason_of_a_failed_cell_has_flags(command):
    done = command(
        f"compare good --data digits --methods slow.py:Needy,stripes.py:Stripes --no-controls {TINY} --out out"
    )
    assert done.code == 1 and "failed: needy/hinton8/0: no images yet, expected some; give --images 99" in done.out
    line = command(f"compare good --data digits --methods slow.py:Needy --no-controls {TINY} --out none").line
    assert line == "no images yet, expected some; give --images 99 (needy/hinton8/0; no cell could be measured)"
    timed = TINY.replace("--steps 10", "--budget 1s")
    line = command(f"compare good --data digits --methods slow.py:Slow --no-controls {timed} --out timed").line
    assert line.startswith("--budget: got 1 s, expected at least")


def test_inspect_shows_the_table_of_a_comparison(command, here):
    line = f"compare good --data digits --methods stripes.py:Stripes,stripes.py:Broken {TINY} --out out"
    assert command(line).code == 1
    shown = command("inspect out")
    assert shown.code == 0
    first, teacher, *rest = shown.out.splitlines()
    assert first == "out: comparison of students of hinton32, 3 of 4 cells measured"
    assert teacher.endswith(" % on 500 test images of digits")
    accuracy = json.loads((here / "out" / "comparison.json").read_text())["rows"][0]["accuracy"]["mean"]
    assert f"  hinton8 by stripes: {accuracy:.2f} %, 1 seed, the best data-free method" in rest
    assert "  hinton8 by broken: no result" in rest
    assert any(text.startswith("  failed: broken/hinton8/0: the code in stripes.py") for text in rest)
    assert json.loads(command("inspect out --json").out)["result"]["kind"] == "comparison"
    assert (
        "out is a comparison, which holds no network, expected a release" in command("evaluate out --data digits").line
    )
    (here / "out" / "comparison.json").write_text('{"format": 1}')
    assert (
        "out/comparison.json: teacher: field required; give the same `datafree compare`" in command("inspect out").line
    )
    (here / "out" / "comparison.json").unlink()
    assert "out holds a comparison with 3 measured cells and no table yet: give the same" in command("inspect out").line
