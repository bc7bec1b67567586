"""The papers' stored results: a cell counts only with the settings that it would be measured with."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.forked import forked

from papers import cells, claims

ROOT = Path(__file__).resolve().parents[2]

PAPERS = sorted(path.parent.name for path in (ROOT / "papers").glob("*/run.py"))


def test_a_cell_is_read_with_its_settings_and_no_others(tmp_path):
    pair, folder, lines = SimpleNamespace(id="digits/small"), tmp_path / "digits" / "small" / "seed-3", []
    chain = SimpleNamespace(pair=pair, seed=3, folder=folder, device="cpu", row=lambda name: {"accuracy": len(name)})
    cells.measure(chain, "few-10/alone", {"steps": 1}, lines.append)
    assert lines == ["digits/small/few-10/alone seed 3: 12.00 % in 0 s"]
    assert [path.name for path in folder.iterdir()] == ["few-10_alone.json"]
    assert cells.read_cell(folder, "few-10/alone", {"steps": 2}) is None
    by_seed = cells.cells_by_seed(folder.parent, "few-10/alone", (3, 4), {"steps": 1})
    assert by_seed == {3: cells.read_cell(folder, "few-10/alone", {"steps": 1})}
    assert by_seed[3]["accuracy"] == 12


def test_a_cell_of_an_earlier_version_is_read_under_the_present_keys(tmp_path):
    settings = {"epoch images": 64, "online": {"steer": 0.5, "replayed": 0.125}}
    results = {"CPU seconds": 2.0, "images in them": 10, "memory bytes": 7, "robustness": {"average": {"lost": 0.5}}}
    (tmp_path / "bank.json").write_text(json.dumps({**results, "settings": settings}), encoding="utf-8")
    present = {"epoch_images": 64, "online": {"latent_step": 0.5, "replay_fraction": 0.125}}
    assert cells.read_cell(tmp_path, "bank", present) == {
        "cpu_seconds": 2.0, "images_in_cpu_seconds": 10, "memory_bytes": 7, "stability": {"average": {"lost": 0.5}},
        "settings": present,
    }  # fmt: skip


def test_an_experiment_has_the_mean_seconds_of_its_cells_and_none_without_cells():
    by_seed = {0: {"seconds": 1.0, "device": "a"}, 1: {"seconds": 2.5, "device": "b"}}
    rest = {"versions": None, "commit": None, "budget": "cpu"}
    assert cells.provenance(by_seed, "cpu") == {"seconds": 1.8, "device": "a", **rest}
    assert cells.provenance({}, "cpu") == {"seconds": None, "device": None, **rest}


@pytest.mark.parametrize(
    "paper", [pytest.param(name, marks=[pytest.mark.slow] * (name != "binici2022")) for name in PAPERS]
)
def test_a_cell_of_other_settings_is_no_claim(tmp_path, monkeypatch, paper):
    work, out = tmp_path / "work", tmp_path / "claims.json"
    monkeypatch.chdir(ROOT)
    program = f"import runpy; runpy.run_module('papers.{paper}.run', run_name='__main__', alter_sys=True)"
    options = ["--budget", "smoke", "--collect", "--jobs", "1", "--work", str(work), "--out", str(out)]
    ended, _, err = forked(program, options)
    assert ended == 0, err
    without_cells = claims.load(out)
    assert without_cells
    for entry in without_cells:
        assert {metric["status"] for metric in entry["metrics"].values()} <= {"not run"}
        data, teacher, row = entry["id"].split("/", 2)
        cell = cells.cell_path(work / data / teacher / "seed-0", row)
        cell.parent.mkdir(parents=True, exist_ok=True)
        cell.write_text(json.dumps({"accuracy": 1.0, "seconds": 1.0, "settings": {"another": 1}}), encoding="utf-8")
    assert forked(program, options)[0] == 0
    assert claims.load(out) == without_cells


BY_PATH = """
import os, runpy, sys
os.chdir(sys.argv[sys.argv.index("--work") + 1])
root = os.path.dirname(os.path.dirname(os.path.dirname(sys.argv[1])))
sys.path[:] = [os.path.dirname(sys.argv[1]), *(place for place in sys.path if place and os.path.abspath(place) != root)]
for name in [name for name in sys.modules if name.partition(".")[0] == "papers"]:
    del sys.modules[name]
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""As `python FILE ...` in the folder for the work, where the repository's root is not on the path."""


def test_a_paper_also_runs_by_the_path_of_its_file(tmp_path):
    script = ROOT / "papers" / "binici2022" / "run.py"
    ended, out, err = forked(
        BY_PATH, [str(script), "--budget", "smoke", "--collect", "--jobs", "1", "--work", str(tmp_path)]
    )
    assert ended == 0, err
    assert "| teacher | - | - | 0 | - | not run |" in out
