"""The synthetic samples and quantized networks at the smallest budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from papers import claims

FOLDER = Path(__file__).resolve().parents[2] / "papers"

ROWS = {
    "fp32", "w8a8/none", "w8a8/gaussian", "w8a8/inception", "w8a8/bns", "w8a8/bns-inception", "w8a8/real",
    "w4a4-corrected/bns", "w4a4/bns-inception", "w4a4/real", "int8", "similarity",
}  # fmt: skip


@pytest.mark.slow
def test_the_smoke_budget_runs_every_row(tmp_path):
    out = tmp_path / "claims.json"
    command = [sys.executable, str(FOLDER / "haroush2020" / "run.py"), "--budget", "smoke", "--jobs", "1"]
    done = subprocess.run(
        [*command, "--work", str(tmp_path / "work"), "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    metrics = {entry["id"].split("/", 2)[2]: entry["metrics"] for entry in claims.load(out)}
    assert metrics.keys() >= ROWS
    means = {row: {name: metric["ours"]["mean"] for name, metric in metrics[row].items()} for row in ROWS}
    assert means["w8a8/bns"]["accuracy"] > means["fp32"]["accuracy"] - 3
    assert means["w8a8/real"]["accuracy"] > means["fp32"]["accuracy"] - 3
    assert means["similarity"]["train"] < means["similarity"]["noise"]
    assert {"test", "bns"} < means["similarity"].keys() and {"speedup", "size"} < means["int8"].keys()
    assert means["int8"]["exported_argmax"] >= 99
    assert claims.check(claims.load(out)) == []
