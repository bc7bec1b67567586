"""Everything that needs a GPU, in one command and under 8 minutes on one H200.

    python benchmarks/gpu.py                 # tests of every verb on CUDA against the CPU, then the CIFAR-10 recipe
    python benchmarks/gpu.py --out FOLDER    # where claims.json is written; cells stay in runs/ours/gpu

The recipe is the gpu budget of papers/ours: rows that are "not run" in its claims.json until this command has run. Data and
weights under --data-dir or DATAFREE_DATA. A second call continues what the first did not finish.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 470
"""Seconds in all."""


def run(words: list[str], left: float) -> bool:
    """Runs a command of this repository for at most `left` seconds; returns whether it succeeded."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    print("$", " ".join(words), flush=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, timeout=left, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"stopped after {left:.0f} seconds; the same command continues", flush=True)
        return False
    return done.returncode == 0


def main() -> int:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", default=os.environ.get("DATAFREE_DATA"), help="folder of data and weights; default: DATAFREE_DATA"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "ours", help="folder for claims.json; default: runs/ours"
    )
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            "gpu: got a machine without a CUDA device, expected one; run this on a machine with a GPU", file=sys.stderr
        )
        return 2
    if args.data_dir is None:
        print("data-dir: got none, expected the folder of the data sets; give --data-dir", file=sys.stderr)
        return 2
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    is_tested = run(["pytest", "-m", "gpu", "tests/gpu"], 150)
    paper = ["papers.ours.run", "--budget", "gpu", "--device", "cuda", "--jobs", "1", "--data-dir", args.data_dir]
    is_measured = run([*paper, "--out", str(args.out / "claims.json")], LIMIT - (time.monotonic() - began))
    print(f"{time.monotonic() - began:.0f} seconds on {torch.cuda.get_device_name()}")
    return 0 if is_tested and is_measured else 1


if __name__ == "__main__":
    sys.exit(main())
