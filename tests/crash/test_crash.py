"""A small part of `make crash`; the seed is printed, and `make crash ARGS="--seed N"` repeats the kind of run."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/fd").is_dir(), reason="asks Linux"),
    pytest.mark.usefixtures("synced"),
]
sys.path.insert(0, str(Path(__file__).parent))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("name", [pytest.param("pack", marks=pytest.mark.slow), "record"])
def test_no_disturbance_leaves_a_wrong_file_or_stops_the_same_command(tmp_path, capfd, name):
    import runner
    from verbs import prepare

    seed = int(os.environ.get("DATAFREE_TEST_SEED", "0"))
    print(f"seed {seed}")
    prepare(tmp_path / "base")
    rng = random.Random(seed)
    faults = runner.examine(tmp_path, [name], rng, points=2, failing=1, random_kills=1, at_once=1, cuts=1)
    assert not faults, (seed, faults, capfd.readouterr().out)


def test_a_power_cut_keeps_what_was_synced_and_may_lose_the_rest(tmp_path):
    from power import after_a_cut

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "old").write_bytes(b"old")
    log = [
        ("create", "t"),
        ("file", 1, "t"),
        ("write", 1, b"new"),
        ("fsync", 1),
        ("rename", "t", "old"),
        ("syncdir", "."),
    ]
    seen: dict[int, set] = {}
    for number in range(len(log) + 1):
        for seed in range(40):
            root = tmp_path / f"{number}-{seed}"
            after_a_cut(tmp_path / "base", root, log[:number], random.Random(seed))
            seen.setdefault(number, set()).add((root / "old").read_bytes())
    assert [seen[number] for number in range(7)] == [{b"old"}] * 5 + [{b"old", b"new"}] + [{b"new"}]
    unsynced = [own for own in log if own[0] != "fsync"]
    after_a_cut(tmp_path / "base", tmp_path / "x", unsynced[:4], random.Random(0))
    wrong = set()
    for seed in range(60):
        after_a_cut(tmp_path / "base", tmp_path / f"u{seed}", unsynced, random.Random(seed))
        wrong.add((tmp_path / f"u{seed}" / "old").read_bytes())
    assert {b"new", b"", b"\0\0\0"} <= wrong  # a writer without fsync would be found
