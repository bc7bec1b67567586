"""`datafree report`: a report made again with other runs, measured on another split."""

from __future__ import annotations

import json

import numpy as np

import datafree as df


def test_a_report_of_other_runs_names_replace_which_makes_it(command, here):
    assert command("report teacher --out page.html").code == 0
    refused = command("report teacher student --out page.html")
    assert refused.code == 2
    assert refused.line.endswith(": give --replace to overwrite it, or name another --out")
    assert command("report teacher student --out page.html --replace").code == 0
    assert ">student<" in (here / "page.html").read_text()
    assert "already complete" in command("report teacher student --out page.html").out


def test_a_file_that_is_no_report_is_not_replaced(command, here):
    (here / "page.html").write_text("<!doctype html>\nmine")
    assert "no page of datafree's" in command("report teacher --out page.html --replace").line
    assert (here / "page.html").read_text() == "<!doctype html>\nmine"


def test_a_report_measures_the_split_that_is_named(command, here):
    digits = df.load_data("digits", "test").subset(100)
    np.savez(here / "held.npz", images=(digits.pixels(range(100)) * 255).byte().numpy(), labels=digits.labels.numpy())
    assert command("report teacher --data held.npz --out fifth.html").code == 0
    assert command("report teacher --data held.npz --split all --out page.html").code == 0
    assert "Accuracy on 20 test images of an .npz file" in (here / "fifth.html").read_text()
    assert "Accuracy on 100 images of an .npz file" in (here / "page.html").read_text()
    logs = [json.loads((here / f"{name}.html.run.json").read_text()) for name in ("fifth", "page")]
    assert [log["settings"].get("split") for log in logs] == [None, "all"]
    (row,) = logs[1]["result"]["networks"]
    measured = df.evaluate(df.load_model("teacher"), df.load_data("held.npz", "all"))
    assert row["accuracy"] == measured.accuracy
    line = command("report teacher --data held.npz --out page.html").line
    assert "page.html was made with --split all, not test: give --replace" in line


def test_a_split_without_data_is_refused(command, here):
    line = command("report teacher --split all --out page.html").line
    assert "--split: got all without --data, expected the data that it is a split of; name it with --data" in line
    assert not (here / "page.html").exists()
