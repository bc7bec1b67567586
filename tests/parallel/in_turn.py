"""What two processes do one after another in the folder they are given: importing torch costs more than all of it.

What they agree on, an online run, two commands, a set made from Python, and a student in the folder `alone`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import agreeing
import playing
import torch

import datafree as df
from datafree.cli.main import run

COMMANDS = ("synthesize gaussian t --images 8 --chunk 4 --out s", "train hinton8 --data few.npz --epochs 1 --out u")

torch.set_num_threads(1)
here, alone, line_of_distill = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
(here / f"pid-{os.environ['RANK']}-of-{os.environ['WORLD_SIZE']}").write_text(str(os.getpid()))
os.chdir(here)
agreeing.main(here / "agreeing")
playing.main(here / "playing")
for line in COMMANDS:
    assert run([*line.split(), "--quiet", "--json", "--log", "all.txt"]) == 0
assert len(df.synthesize(df.load_model("t"), None, "gaussian", "shared", images=50, chunk=10, workers=1)) == 50
os.chdir(alone)
assert run(line_of_distill.split()) == 0
sys.stdout.flush()
