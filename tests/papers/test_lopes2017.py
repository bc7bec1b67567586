"""The reproduction runs at its smallest budget, and the committed claims have every row of the paper."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from papers import claims
from papers.lopes2017 import rows

FOLDER = Path(__file__).resolve().parents[2] / "papers"


@pytest.mark.slow
def test_the_smoke_budget_runs_every_row(tmp_path):
    out = tmp_path / "claims.json"
    command = [sys.executable, str(FOLDER / "lopes2017" / "run.py"), "--budget", "smoke", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work"), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    entries = claims.load(out)
    assert [entry["id"].split("/")[2] for entry in entries] == list(rows.ROWS)
    for entry in entries:
        accuracy = entry["metrics"]["accuracy"]["ours"]
        assert 0 <= accuracy["mean"] <= 100 and list(accuracy["by_seed"]) == ["0"]
        assert ("record_bytes" in entry) == (entry["id"].split("/")[2] not in ("teacher", "student", "kd"))
    assert claims.check(entries) == []


def test_the_cpu_budget_has_every_row_of_the_paper_on_three_seeds():
    plan = rows.BUDGETS["cpu"]
    ids = {f"{pair.id}/{row}" for pair in plan.pairs for row in pair.rows}
    assert rows.PAPER.keys() <= ids
    assert len(plan.seeds) == 3


def test_best_and_real_data_take_the_same_steps():
    for pair in rows.BUDGETS["cpu"].pairs:
        images = {"mnist": 60_000, "fashion-mnist": 60_000, "celeba": 8_000}[pair.data]
        assert pair.epoch_images == images


def test_the_committed_claims_quote_the_papers_figures():
    accuracies = {entry["id"]: entry["metrics"]["accuracy"] for entry in claims.load(FOLDER / "lopes2017")}
    quoted = {identity: accuracy["paper"] for identity, accuracy in accuracies.items() if accuracy["paper"] is not None}
    assert quoted == {identity: {"place": place, "value": value} for identity, (place, value) in rows.PAPER.items()}
