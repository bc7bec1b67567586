"""datafree prune: what it prints and writes, and what it refuses in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from datafree._core.files import read_json


@pytest.mark.usefixtures("here")
def test_the_command_says_what_each_step_costs(release, command):
    done = command(f"prune {release} --keep 0.5 --data digits --limit 64 --epochs 1 --out p --quiet")
    assert done.code == 0, done.err
    assert "accuracy before pruning" in done.out and "before the repair" in done.out and "reduced:" in done.out
    assert "already complete" in command(f"prune {release} --keep 0.5 --data digits --limit 64 --epochs 1 --out p").out
    assert command(f"prune {release} --keep 0.4 --data digits --limit 64 --epochs 1 --out p").code == 2
    result = read_json(Path("p/run.json"))["result"]
    assert result["pruning"][0]["accuracy"] <= 100 and result["evaluation"]["images"] == 500
    assert command("inspect p").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--keep 2 --data digits", "--keep: got 2, expected above 0 and below 1"),
        ("--keep 0.0001 --data digits --limit 64 --epochs 1", "--keep: got 0.0001, expected at least "),
        ("--keep 0.5", "nothing to learn from, expected --set SET or --data NAME"),
        ("--data digits", "--keep"),
        ("--keep 0.5 --rounds 0 --data digits", "--rounds"),
        ("--keep 0.5 --set nowhere", "nowhere"),
    ],
)
@pytest.mark.usefixtures("here")
def test_one_line_says_what_is_wrong(release, command, words, message):
    done = command(f"prune {release} {words} --out p --quiet")
    assert done.code == 2 and message in done.err and len(done.err.splitlines()) == 1
    assert not Path("p").exists()
