"""claims.json: one entry per experiment, in every paper; files of earlier versions; tables; contradictions."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from papers import chains, claims, tables

FOLDER = Path(__file__).resolve().parents[2] / "papers"
PAPERS = sorted(path.parent.name for path in FOLDER.glob("*/claims.json"))
FIELDS = {"seconds": 3.0, "device": "", "versions": {}, "commit": None, "budget": "cpu", "deviation": ""}


def experiment(identity, **values):
    """An experiment of one seed with these metrics."""
    return claims.experiment(
        identity, {name: claims.metric("%", {0: value}) for name, value in values.items()}, **FIELDS
    )


def test_every_paper_has_claims():
    assert sorted(path.parent.name for path in FOLDER.glob("*/run.py")) == PAPERS
    assert set(PAPERS) >= {"binici2021", "binici2022", "binici2024", "haroush2020", "lopes2017"}


@pytest.mark.parametrize("paper", PAPERS)
def test_committed_claims_are_one_entry_per_experiment_with_keys_in_snake_case(paper):
    content = json.loads((FOLDER / paper / "claims.json").read_text(encoding="utf-8"))
    assert list(content) == ["claims"]
    assert claims.load(FOLDER / paper) == content["claims"]  # nothing to convert
    for entry in content["claims"]:
        keys = {*entry, *entry["metrics"], *(key for metric in entry["metrics"].values() for key in metric)}
        assert [key for key in keys if not re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", key)] == []
    assert claims.check(content["claims"]) == []


@pytest.mark.parametrize("paper", PAPERS)
def test_the_pages_show_the_committed_claims(paper):
    entries = claims.load(FOLDER / paper)
    assert tables.render(entries) in (FOLDER / paper / "README.md").read_text(encoding="utf-8")
    for page, _, columns, rows in tables.PAGES.get(paper, ()):
        assert tables.compare(entries, columns, rows) in (FOLDER.parent / page).read_text(encoding="utf-8")


def test_every_line_of_the_comparisons_has_a_result():
    for paper, pages in tables.PAGES.items():
        metrics = {entry["id"]: entry["metrics"] for entry in claims.load(FOLDER / paper)}
        for _, _, columns, rows in pages:
            for key in rows:
                row, metric = (key, "accuracy") if isinstance(key, str) else key
                assert any(metric in metrics.get(f"{pair}/{row}", {}) for pair in columns), (paper, key)


def flat(row, value, **changes):
    """An entry of claims.json as earlier versions wrote it."""
    ours = {"mean": value, "sd": 0.5, "n": 2, "seeds": [0, 1], "values": [value, value + 1]}
    entry = {"id": f"m/t/{row}", "place": "ours", "unit": "%", "paper": None, "ours": ours, "status": "no paper figure"}
    return {**entry, **FIELDS, **changes}


def test_claims_of_an_earlier_version_are_read_as_one_entry_per_experiment(tmp_path):
    learning = ", the student that learns"
    path = tmp_path / "claims.json"
    old = [
        flat("w8a8/mean", 1.0), flat("kd", 80.0, place="Table 1", paper=90.0, status="worse", deviation="why"),
        flat("bank, any", 97.0), flat("bank, any/lost", 2.0), flat(f"bank, any{learning}", 96.0),
        flat(f"bank, any/lost{learning}", 3.0), flat("bank, any/speed", 4.0), flat("bank, any/bytes", 5.0),
        flat("int8-exported/argmax", 99.0), flat("similarity/bns-inception, shown as in training", 6.0),
        flat("top", 50.0, ours=None, **{"forecast AUC": 0.5, "record to student, seconds": {"mean": 1, "max": 2}}),
    ]  # fmt: skip
    path.write_text(json.dumps({"claims": old}), encoding="utf-8")
    entries = {entry["id"]: entry for entry in claims.load(path)}
    means = {
        identity: {name: metric["ours"] and metric["ours"]["mean"] for name, metric in entry["metrics"].items()}
        for identity, entry in entries.items()
    }
    assert means == {
        "m/t/w8a8/mean": {"accuracy": 1.0},
        "m/t/kd": {"accuracy": 80.0},
        "m/t/bank, any": {
            "accuracy": 97.0, "drop_from_best": 2.0, "unaveraged_accuracy": 96.0, "unaveraged_drop_from_best": 3.0,
            "images_per_cpu_second": 4.0, "replayed_bytes": 5.0,
        },
        "m/t/int8": {"exported_argmax": 99.0},
        "m/t/similarity": {"bns_inception_augmented": 6.0},
        "m/t/top": {"accuracy": None},
    }  # fmt: skip
    assert entries["m/t/kd"]["metrics"]["accuracy"] == {
        "unit": "%", "ours": {"mean": 80.0, "sd": 0.5, "by_seed": {"0": 80.0, "1": 81.0}},
        "paper": {"place": "Table 1", "value": 90.0}, "status": "worse",
    }  # fmt: skip
    assert entries["m/t/kd"]["deviation"] == "why"
    assert entries["m/t/top"]["forecast_auc"] == 0.5
    assert entries["m/t/top"]["record_to_student_seconds"] == {"mean": 1, "max": 2}
    assert entries["m/t/int8"]["metrics"]["exported_argmax"]["title"] == "int8-exported/argmax"


def test_an_earlier_claim_with_more_seeds_than_values_is_refused(tmp_path):
    entry = flat("kd", 1.0)
    entry["ours"]["seeds"] = [0]
    (tmp_path / "claims.json").write_text(json.dumps({"claims": [entry]}), encoding="utf-8")
    with pytest.raises(ValueError, match="m/t/kd: 1 seeds but 2 values"):
        claims.load(tmp_path)


def test_the_stability_of_an_online_run_is_a_table_of_its_own():
    values = {
        "accuracy": 98.5,
        "drop_from_best": 0.25,
        "unaveraged_drop_from_best": 0.5,
        "images_per_cpu_second": 3456.7,
    }
    page = tables.render([experiment("mnist/x/bank", **values), experiment("mnist/x/kd", accuracy=7.0)])
    assert "| bank | - | 98.50 | 1 | 3 | no paper figure |" in page
    assert "| bank |  |  | 0.25 |  |  |  | 3,457 |  |" in page
    assert "| bank, the student that learns |  |  | 0.50 |" in page
    assert page.count("| kd |") == 1


def test_a_row_without_metrics_is_listed_as_not_run():
    assert "| int8 | - | - | 0 | 3 | not run |" in tables.render([experiment("mnist/x/int8")])


@pytest.mark.parametrize(
    ("metric", "fields", "problem"),
    [
        ({"status": "reproduced"}, {}, "m/t/r, accuracy: status 'reproduced', but the numbers say 'worse'"),
        ({}, {"deviation": ""}, "m/t/r: worse than the paper and no reason given"),
        (
            {"ours": {"mean": 80.0, "sd": 0.0, "by_seed": {"0": 80.0, "1": 82.0}}},
            {},
            "m/t/r, accuracy: mean 80.0 and sd 0.0, but the seeds have mean 81.0 and sd 1.414",
        ),
    ],
)
def test_a_claim_that_contradicts_itself_is_reported(metric, fields, problem):
    accuracy = claims.metric("%", {0: 80.0}, paper=("Table 0", 90.0))
    good = claims.experiment("m/t/r", {"accuracy": accuracy}, **{**FIELDS, "deviation": "why"})
    assert claims.check([good]) == []
    assert claims.check([good | {"metrics": {"accuracy": accuracy | metric}} | fields]) == [problem]
    assert claims.check([good, good])[0] == "m/t/r: listed 2 times"
    assert claims.check([{"id": "m/t/r", "metrics": {}}])[0].startswith("m/t/r: no budget, commit")


def test_merging_keeps_the_seeds_that_have_no_cell_here():
    earlier = claims.experiment(
        "d/t/row", {"accuracy": claims.metric("%", {0: 10.0, 1: 20.0}), "agreement": claims.metric("%", {0: 1.0, 1: 1.0})},
        **FIELDS | {"commit": "old"},
    )  # fmt: skip
    here = claims.experiment(
        "d/t/row", {"accuracy": claims.metric("%", {1: 30.0, 2: 50.0})}, **FIELDS | {"seconds": 6.0}
    )
    not_run = claims.experiment("d/t/other", {"accuracy": claims.metric("%", {})}, **FIELDS)
    merged, other = chains.merged([earlier], [here, not_run])
    assert merged["metrics"] == {"accuracy": claims.metric("%", {0: 10.0, 1: 30.0, 2: 50.0})}  # agreement lacks seed 2
    assert (merged["seconds"], merged["commit"], other) == (5.0, None, not_run)
    assert (
        chains.merged([here], [experiment("d/t/row", accuracy=1.0)])[0]["metrics"]["accuracy"]["ours"]["mean"] == 27.0
    )
    unmeasured = {**here, "metrics": {"accuracy": claims.metric("%", {})}, "seconds": None}
    speeds = claims.experiment("d/t/int8", {"speedup": claims.metric("times", {0: 2.0, 1: 3.0})}, **FIELDS)
    for metrics in ({}, {"speedup": claims.metric("times", {})}):  # no cell here: a row without accuracy keeps its own
        assert chains.merged([speeds], [claims.experiment("d/t/int8", metrics, **FIELDS)]) == [speeds]
    assert chains.merged([earlier], [unmeasured]) == [earlier]
    assert claims.check([merged]) == []
