"""python -m tests.fuzz: spoilt files of every kind must be refused in one line, or mean what they meant."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from .run import fuzz
from .subjects import SUBJECTS


def main() -> int:
    """1 where a mutant failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="of the mutants; a new one unless given")
    parser.add_argument("--mutants", type=int, default=2000, help="how many spoilt files")
    parser.add_argument("--first", type=int, default=0, help="the number of the first, to repeat one")
    parser.add_argument("--kinds", nargs="*", default=None, metavar="KIND", help=", ".join(SUBJECTS))
    parser.add_argument("--out", type=Path, default=None, help="a new folder for samples and failures")
    own = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if own.seed is None else own.seed
    out = own.out or Path(tempfile.mkdtemp(prefix="fuzz-"))
    torch.set_num_threads(1)
    print(f"seed {seed}, {own.mutants:,} mutants of {len(own.kinds or SUBJECTS)} kinds, in {out}", flush=True)
    began = time.monotonic()
    report = fuzz(out, seed=seed, mutants=own.mutants, kinds=own.kinds, first=own.first, say=partial(print, flush=True))
    kinds = "" if own.kinds is None else " --kinds " + " ".join(f"'{kind}'" for kind in own.kinds)
    if report.failures:
        again = f"python -m tests.fuzz --seed {seed} --first NUMBER --mutants 1{kinds}"
        print(f"{len(report.failures)} failures; repeat one: {again}")
    print(f"{report.counted()}; {time.monotonic() - began:.0f} s")
    return 1 if report.failures else 0


sys.exit(main())
