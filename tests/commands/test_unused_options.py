"""An option that was given has its effect, or is refused in one line."""

from __future__ import annotations

import json

import pytest

TRAINED = "--epochs 1 --iterations 1 --student-steps 1 --batch 16 --latent 4 --quiet"


@pytest.mark.parametrize(
    "line",
    [
        f"distill online teacher hinton8 --data digits --limit 30 --out s {TRAINED}",
        "distill fresh gaussian teacher hinton8 --data digits --limit 30 --out s --epochs 1 --epoch-images 32 --quiet",
        "distill teacher hinton8 --set set --data digits --limit 30 --out s --epochs 1 --quiet",
    ],
)
def test_the_limit_is_for_the_test_images_of_data_that_only_measures(command, here, refused, line):
    assert refused(line.replace("--limit 30", "--limit 0")).startswith("--limit: got 0, expected at least 1")
    done = command(line)
    assert done.code == 0, done.err
    evaluation = json.loads((here / "s" / "run.json").read_text())["result"]["evaluation"]
    assert evaluation["images"] == 30


def test_the_limit_is_for_the_training_images_where_the_student_learns_from_the_data(command, here):
    assert command("distill teacher hinton8 --data digits --limit 60 --out s --epochs 1 --quiet").code == 0
    log = json.loads((here / "s" / "run.json").read_text())
    assert log["result"]["evaluation"]["images"] > 300
