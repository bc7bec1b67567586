"""What the table says of time and images: of a stored set by its own log, of fresh images all, of resumed runs nothing."""

from __future__ import annotations

import json

import pytest
import torch

from datafree.distillation.sources import FreshImages, MixedImages, StoredImages
from datafree.evaluation.report.rows import release_row
from datafree.evaluation.report.sets import set_grid
from datafree.runs.run_reader import FinishedRun, Scores


def finished(**log: object) -> FinishedRun:
    return FinishedRun.model_validate({"verb": "distill", "seconds": 2.0, **log})


def row(release, log: FinishedRun, sets: dict | None = None):
    return release_row(release, log, False, Scores(), sets)


STORED = {"settings": {"learns_from": "a synthetic set of top"}, "inputs": {"set": "0" * 64}}


def test_a_stored_sets_time_comes_from_its_own_log_or_is_unknown(release):
    log = finished(**STORED, result={"images": 48, "distinct": 48})
    made = finished(verb="synthesize", seconds=75.4)
    assert row(release, log, {"0" * 64: made}).note.endswith("images made in 1 min 15 s")
    resumed = finished(verb="synthesize", seconds=0.01, resumed=True)
    for sets in (None, {}, {"1" * 64: made}, {"0" * 64: resumed}, {"0" * 64: FinishedRun()}):
        note = row(release, log, sets).note
        assert note.endswith("time to make its images unknown") and " 0" not in note


def test_the_time_of_a_run_that_went_on_is_not_measured(release):
    assert row(release, finished()).seconds == 2
    assert row(release, finished(resumed=True)).seconds is None


@pytest.mark.parametrize(("log", "images"), [
    ({"result": {"images": 100, "distinct": 700}}, 700),
    ({"settings": {"learns_from": "fresh images of top"}, "result": {"images": 100, "curve": {"loss": [1, 1, 1]}}}, 300),
    ({"settings": {"learns_from": "fresh images of top"}, "result": {"images": 100}}, None),
    ({"settings": {"learns_from": "a generator's images"}, "result": {"images": 9, "online": {"images": 90}}}, 90),
    ({"settings": {"learns_from": "10 condensed images"}, "result": {"images": 10_000}}, None),
    ({"settings": {"learns_from": "a synthetic set of top"}, "result": {"images": 48}}, 48),
    ({"verb": "train", "result": {"images": 1297}}, 1297),
])  # fmt: skip
def test_all_different_images_are_counted(release, log, images):
    assert row(release, finished(**log)).images == images


def test_a_source_counts_what_differs(teacher):
    pixels = torch.zeros(6, *teacher.spec.shape)
    pixels[:, :, 0, 0] = 1
    stored = StoredImages(teacher.spec, pixels, torch.zeros(6, 10))
    fresh = FreshImages(teacher.spec, None, 50)  # type: ignore[arg-type]
    assert (stored.distinct(3), fresh.distinct(3), stored.distinct(0)) == (6, 150, 0)
    assert MixedImages(teacher, pixels[:2], stored, 1000).distinct(3) == 8
    assert MixedImages(teacher, pixels[:2], None, 1000).distinct(3) == 2


def test_logs_of_the_commands_say_so(tmp_path, monkeypatch, release):
    from datafree.cli.main import run

    monkeypatch.chdir(tmp_path)
    line = ["synthesize", str(release), "--method", "top", "--steps", "1", "--unit", "8", "--out", "set", "--quiet"]
    assert run([*line, "--images", "8"]) == 0
    assert "made in" in set_grid(tmp_path / "set", FinishedRun.of("set")).note
    assert run([*line, "--images", "16"]) == 0  # the first 8 took time that the second log does not know
    assert "time to make its images unknown" in set_grid(tmp_path / "set", FinishedRun.of("set")).note
    assert run(["distill", str(release), "hinton4", "--online", "gaussian", "--epochs", "3", "--epoch-images", "20",
                "--out", "s", "--quiet"]) == 0  # fmt: skip
    assert json.loads((tmp_path / "s" / "run.json").read_text())["result"]["distinct"] == 60


@pytest.mark.parametrize("verb", ["pack", "record"])
def test_the_time_of_packing_is_not_that_of_the_network(release, verb):
    assert row(release, finished(verb=verb)).seconds is None
