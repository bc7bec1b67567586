"""A few spoilt files of every kind; `make fuzz` opens more."""

from __future__ import annotations

import os

from tests.fuzz.run import fuzz
from tests.fuzz.subjects import SUBJECTS

SLOW = ("game", "quantized", "fine-tuning", "report", "similarity", "inspect", "pt2")
CHEAP = [name for name in SUBJECTS if not any(word in name for word in SLOW)]


def test_spoilt_files_of_every_kind_are_refused_in_one_line_or_mean_what_they_meant(tmp_path):
    seed = int(os.environ.get("DATAFREE_TEST_SEED", "0"))
    print(f"seed {seed}")
    report = fuzz(tmp_path, seed=seed, mutants=len(CHEAP), kinds=CHEAP)
    assert report.failures == [], f"seed {seed}"
    assert sum(report.counts.values()) == len(CHEAP) and report.counts["refused"] > len(CHEAP) // 3
