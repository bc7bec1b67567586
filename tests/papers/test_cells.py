"""What the papers' chains keep: a cell counts only with the settings that it would be measured with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "papers"
sys.path[:0] = [str(FOLDER)]

import cells
import claims

FIRST = {
    "binici2021": "digits/hinton16/teacher",
    "binici2022": "digits/hinton16/teacher",
    "binici2024": "digits/hinton32/teacher",
    "haroush2020": "digits/small/fp32",
    "lopes2017": "digits/hinton/teacher",
}
"""Paper -> a row of its smoke budget whose cell needs no more than an accuracy."""


def test_a_kept_cell_is_read_with_its_settings_and_no_others(tmp_path):
    pair, folder, said = SimpleNamespace(id="digits/small"), tmp_path / "digits" / "small" / "seed-3", []
    chain = SimpleNamespace(pair=pair, seed=3, folder=folder, device="cpu", row=lambda name: {"accuracy": len(name)})
    cells.keep(chain, "few-10/alone", {"steps": 1}, said.append)
    assert said == ["digits/small/few-10/alone seed 3: 12.00 % in 0 s"]
    assert [path.name for path in folder.iterdir()] == ["few-10_alone.json"]
    assert cells.read(folder, "few-10/alone", {"steps": 2}) is None
    found = cells.by_seed(folder.parent, "few-10/alone", (3, 4), {"steps": 1})
    assert found == {3: cells.read(folder, "few-10/alone", {"steps": 1})}
    assert found[3]["accuracy"] == 12


def test_claims_have_the_mean_seconds_of_their_cells_and_none_without():
    found = {0: {"seconds": 1.0, "device": "a"}, 1: {"seconds": 2.5, "device": "b"}}
    rest = {"versions": None, "commit": None, "budget": "cpu"}
    assert cells.common(found, "cpu") == {"seconds": 1.8, "device": "a", **rest}
    assert cells.common({}, "cpu") == {"seconds": None, "device": None, **rest}


def test_every_paper_is_here():
    assert {path.parent.name for path in FOLDER.glob("*/run.py")} == set(FIRST)


@pytest.mark.parametrize(
    "paper", [pytest.param(name, marks=[pytest.mark.slow] * (name != "binici2022")) for name in sorted(FIRST)]
)
def test_a_cell_of_other_settings_is_no_claim(tmp_path, paper):
    pair, _, row = FIRST[paper].rpartition("/")
    cell, out = tmp_path / "work" / pair / "seed-0" / f"{row}.json", tmp_path / "claims.json"
    cell.parent.mkdir(parents=True)
    cell.write_text(json.dumps({"accuracy": 1.0, "seconds": 1.0, "settings": {"another": 1}}), encoding="utf-8")
    command = [sys.executable, str(FOLDER / paper / "run.py"), "--budget", "smoke", "--collect", "--jobs", "1"]
    subprocess.run([*command, "--work", str(cell.parents[3]), "--out", str(out)], check=True, capture_output=True)
    found = {own["id"]: own["status"] for own in claims.load(out)}
    assert found[FIRST[paper]] == "not run"


def test_what_happens_on_a_games_way_is_a_table_of_its_own():
    known = {"seconds": 3.0, "device": "", "versions": {}, "commit": "", "budget": "cpu", "deviation": ""}
    found = {
        "bank": 98.5,
        "bank/lost": 0.25,
        "bank/lost, the student that learns": 0.5,
        "bank/speed": 3456.7,
        "a/lost": 7.0,
    }
    page = claims.render(
        [claims.claim(f"mnist/x/{row}", "ours", "", None, {0: value}, **known) for row, value in found.items()]
    )
    assert "| bank | - | 98.50 | 1 | 3 | no paper figure |" in page
    assert (
        "| bank |  |  | 0.25 |  |  |  | 3,457 |  |" in page and "| bank, the student that learns |  |  | 0.50 |" in page
    )
    assert "| a/lost | - | 7.00 | 1 | 3 | no paper figure |" in page  # no game has that name
