"""The reproduction runs at its smallest budget, and what is committed as claims is whole and consistent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "papers"
sys.path[:0] = [str(FOLDER), str(FOLDER / "lopes2017")]

import claims
import rows


@pytest.mark.slow
def test_the_smoke_budget_runs_every_row(tmp_path):
    out = tmp_path / "claims.json"
    command = [sys.executable, str(FOLDER / "lopes2017" / "run.py"), "--budget", "smoke", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work"), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = claims.load(out)
    assert [own["id"].split("/")[2] for own in made] == list(rows.ROWS)
    assert all(0 <= own["ours"]["mean"] <= 100 and own["ours"]["n"] == 1 for own in made)
    assert claims.check(made) == []


def test_the_cpu_budget_has_every_row_of_the_paper_on_three_seeds():
    plan = rows.BUDGETS["cpu"]
    ids = {f"{pair.id}/{row}" for pair in plan.pairs for row in pair.rows}
    assert rows.PAPER.keys() <= ids
    assert len(plan.seeds) == 3


def test_best_and_real_data_take_the_same_steps():
    for pair in rows.BUDGETS["cpu"].pairs:
        images = {"mnist": 60_000, "fashion-mnist": 60_000, "celeba": 8_000}[pair.data]
        assert pair.epoch_images == images


def test_the_committed_claims_are_whole_and_the_readme_shows_them():
    made = claims.load(FOLDER / "lopes2017")
    assert rows.PAPER.keys() <= {own["id"] for own in made}
    assert claims.check(made) == []
    assert claims.render(made) in (FOLDER / "lopes2017" / "README.md").read_text(encoding="utf-8")


def test_the_committed_claims_quote_the_papers_figures():
    quoted = {own["id"]: own["paper"] for own in claims.load(FOLDER / "lopes2017") if own["paper"] is not None}
    assert quoted == {identity: figure for identity, (_, figure) in rows.PAPER.items()}


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"status": "reproduced"}, "m/t/r: status 'reproduced', the numbers say 'worse'"),
        ({"deviation": ""}, "m/t/r: worse than the paper and no reason given"),
        ({"ours": {"mean": 80.0, "sd": 0.0, "n": 2, "seeds": [0]}}, "m/t/r: n 2 but seeds [0]"),
    ],
)
def test_a_claim_that_contradicts_itself_is_caught(changes, wrong):
    rest = {"seconds": 1, "device": "", "versions": {}, "commit": None, "budget": "cpu", "deviation": "why"}
    good = claims.claim("m/t/r", "Table 0", "%", 90.0, {0: 80.0}, **rest)
    assert claims.check([good]) == []
    assert claims.check([good | changes]) == [wrong]
    assert claims.check([good, good])[0] == "m/t/r: twice"


def test_claims_are_json_of_one_schema():
    made = json.loads((FOLDER / "lopes2017" / "claims.json").read_text(encoding="utf-8"))
    assert list(made) == ["claims"]
