"""Expansion of condensed data at the smallest budget, and the committed claims."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "papers"
sys.path[:0] = [str(FOLDER)]

import claims
import pytest

spec = importlib.util.spec_from_file_location("rows_of_binici2024", FOLDER / "binici2024" / "rows.py")
assert spec is not None and spec.loader is not None
rows = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = rows
spec.loader.exec_module(rows)


@pytest.mark.slow
def test_the_smoke_budget_runs_every_row_and_a_second_run_nothing(tmp_path):
    out = tmp_path / "claims.json"
    command = [sys.executable, str(FOLDER / "binici2024" / "run.py"), "--budget", "smoke", "--jobs", "1"]
    command += ["--work", str(tmp_path / "work"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" seed 0: ") == len(rows.ROWS)
    made = claims.load(out)
    assert [own["id"] for own in made] == [f"digits/hinton32/{row}" for row in rows.ROWS]
    assert claims.check(made) == []
    found = {own["id"].split("/", 2)[2]: own["ours"]["mean"] for own in made}
    assert found["teacher"] > 85 and found["kd"] > 50
    sets = {path.name for path in (tmp_path / "work" / "digits" / "hinton32" / "seed-0").glob("set-*")}
    assert len(sets) == 6  # one plain for all, anchors and guided of two kinds, guided of k-means centres
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and " seed 0: " not in again.stdout


def test_alone_naive_and_guided_differ_in_what_is_beside_the_few_and_in_nothing_else():
    shown = {way: rows.SHOWN.get(way) for way in rows.WAYS}
    assert shown["alone"] == shown["naive"] == shown["guided"] == shown["anchors"] == rows.PLAIN
    assert shown["augmented"] is shown["naive-augmented"] is shown["guided-augmented"] is None
    assert rows.WAYS["guided"] == rows.WAYS["guided-augmented"] == {}
    assert rows.WAYS["naive"] == rows.WAYS["naive-augmented"]
    assert (rows.WAYS["naive"]["start"], rows.WAYS["naive"]["guidance"]) == ("noise", 0.0)


def test_the_cpu_budget_is_two_data_sets_on_three_seeds():
    plan = rows.BUDGETS["cpu"]
    assert [pair.id for pair in plan.pairs] == ["mnist/lenet5", "fashion-mnist/lenet5"]
    assert plan.seeds == (0, 1, 2)


def test_the_committed_claims_are_consistent_and_the_readme_shows_them():
    made = claims.load(FOLDER / "binici2024")
    ids = {
        name: {f"{pair.id}/{row}" for pair in rows.BUDGETS[name].pairs for row in pair.rows} for name in ("cpu", "gpu")
    }
    assert ids["cpu"] | ids["gpu"] == {own["id"] for own in made}
    assert all(own["ours"]["n"] == 3 for own in made if own["id"] in ids["cpu"])
    assert claims.check(made) == []
    assert claims.render(made) in (FOLDER / "binici2024" / "README.md").read_text(encoding="utf-8")
    for page, _, table in claims.PAGES["binici2024"]:
        assert claims.compare(made, *table) in (FOLDER.parent / page).read_text(encoding="utf-8")
