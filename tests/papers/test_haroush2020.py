"""The samples and their quantized networks at the smallest budget, and the committed claims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "papers"
sys.path[:0] = [str(FOLDER)]

import claims
import pytest

ROWS = {
    "fp32", "w8a8/none", "w8a8/gaussian", "w8a8/inception", "w8a8/bns", "w8a8/bns-inception", "w8a8/real",
    "w4a4-corrected/bns", "w4a4/bns-inception", "w4a4/real", "int8-speedup", "int8-size", "int8-exported/argmax",
    "similarity/train", "similarity/test", "similarity/noise", "similarity/bns",
}  # fmt: skip


@pytest.mark.slow
def test_the_smoke_budget_runs_every_row(tmp_path):
    out = tmp_path / "claims.json"
    command = [sys.executable, str(FOLDER / "haroush2020" / "run.py"), "--budget", "smoke", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work"), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    made = {own["id"].split("/", 2)[2]: own["ours"]["mean"] for own in claims.load(out)}
    assert made.keys() >= ROWS
    assert made["w8a8/bns"] > made["fp32"] - 3 and made["w8a8/real"] > made["fp32"] - 3
    assert made["similarity/train"] < made["similarity/noise"]
    assert made["int8-exported/argmax"] >= 99
    assert claims.check(claims.load(out)) == []


def test_the_committed_claims_are_consistent_and_the_pages_show_them():
    made = claims.load(FOLDER / "haroush2020")
    assert claims.check(made) == []
    assert claims.render(made) in (FOLDER / "haroush2020" / "README.md").read_text(encoding="utf-8")
    for page, _, table in claims.PAGES["haroush2020"]:
        assert claims.compare(made, *table) in (FOLDER.parent / page).read_text(encoding="utf-8")
