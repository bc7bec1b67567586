"""Results that no paper has: the smallest budget, the rows, and the committed claims."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from papers import claims
from papers.ours import rows, run

FOLDER = Path(__file__).resolve().parents[2] / "papers"


@pytest.mark.slow
def test_the_smoke_budget_runs_every_row_and_a_second_run_nothing(tmp_path):
    out = tmp_path / "claims.json"
    command = [sys.executable, str(FOLDER / "ours" / "run.py"), "--budget", "smoke", "--jobs", "1"]
    command += ["--work", str(tmp_path / "work"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" seed 0: ") == len(rows.SMOKE.names())
    entries = claims.load(out)
    assert [entry["id"] for entry in entries] == [f"digits/resnet8/{name}" for name in rows.SMOKE.names()]
    assert claims.check(entries) == []
    measured = {entry["id"].split("/", 2)[2]: entry["metrics"] for entry in entries}
    assert measured["teacher"]["accuracy"]["ours"]["mean"] > 90
    assert measured["half/kd"]["accuracy"]["ours"]["mean"] > 50
    assert set(measured["half/data-free"]) >= {"agreement", "divergence", "diversity", "synthesis_cpu_seconds"}
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and " seed 0: " not in again.stdout


@pytest.mark.parametrize("pair", rows.BUDGETS["cpu"].pairs, ids=lambda pair: pair.id)
def test_rows_without_data_and_on_real_images_differ_in_nothing_but_the_images(pair):
    for name, row in pair.rows.items():
        if name in rows.ABLATIONS or "/" not in name:
            continue
        if row.keep is not None:  # stands beside the student of half width
            half = pair.rows[f"{rows.BASE}, teacher start/data-free"]
            assert replace(row, student=half.student, keep=None) == half
            continue
        student, kind = name.rsplit("/", 1)
        control = pair.rows[f"{student}/kd"]
        assert (row.student, row.start, row.steps, row.learning) == (
            control.student, control.start, control.steps, control.learning,
        )  # fmt: skip
        assert control.images is None
        assert kind == "kd" or row.images is not None


def test_an_ablation_changes_one_thing():
    recipe = rows.CIFAR10.settings(f"{rows.BASE}/data-free")
    for name in rows.ABLATIONS:
        settings = rows.CIFAR10.settings(name)
        changed = {key for key in settings if settings[key] != recipe[key]}
        assert changed in ({"method"}, {"learning"})


def test_the_budgets_of_images_and_steps_are_kept():
    for pair in rows.BUDGETS["cpu"].pairs:
        for name, row in pair.rows.items():
            if row.images is None:
                continue
            most_images, most_steps = (80_000, 16_000) if "long" in name else (20_480, 4_000)
            schedule = row.schedule(row.images)
            steps = schedule.epochs * (row.images // schedule.batch)
            assert row.images <= most_images and steps <= most_steps


def test_the_committed_claims_have_every_row():
    expected = {f"{pair.id}/{name}" for pair in rows.BUDGETS["cpu"].pairs for name in pair.names()}
    expected |= {f"{pair.id}/{name}" for pair in rows.BUDGETS["gpu"].pairs for name in pair.rows}
    assert {entry["id"] for entry in claims.load(FOLDER / "ours")} == expected


def test_cpu_time_is_compared_with_kd_of_the_same_seed():
    cells = {0: {"student_cpu_seconds": 20.0}, 1: {"student_cpu_seconds": 30.0}, 2: {"student_cpu_seconds": None}}
    kd = {0: {"student_cpu_seconds": 10.0}, 2: {"student_cpu_seconds": 10.0}}
    compared = run.with_relative_cpu(cells, kd)
    assert {seed: cell["relative_cpu"] for seed, cell in compared.items()} == {0: 2.0, 1: None, 2: None}
