"""The paper's Tables 2 and 4: per-class means and random samples of what each objective reconstructed, as PNG.

    python papers/lopes2017/grids.py --work runs/lopes2017/cpu

Only synthetic images are drawn, and none of CelebA: no real image, and no face, goes into a commit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from rows import BUDGETS
from run import HERE, Chain

from datafree import presets, synthesis
from datafree.files import write_bytes
from datafree.models import load_model
from datafree.records import record
from datafree.report import grid_of, grid_png
from datafree.syntheticset import SyntheticSet, to_pixels


def stored_grid(chain: Chain, row: str) -> bytes:
    """Of a set that run.py left in its work folder."""
    found = SyntheticSet.open(chain.folder / f"set-{row}")
    pixels, _, logits = found.load()
    shown = to_pixels(pixels, found.spec)
    return grid_png(grid_of(row, shown, logits.argmax(1), len(chain.spec.classes), spec=chain.spec, samples=2))


def drawn_grid(chain: Chain) -> bytes:
    """Of images that `best` draws."""
    teacher = load_model(str(chain.folder / "teacher"))
    known = record(teacher, chain.train, presets.best(teacher))
    pixels = synthesis.named("distribution").on(teacher, known).unit(0, 0, 4096).pixels
    seen = teacher.predict(pixels).argmax(1)
    return grid_png(grid_of("best", pixels, seen, len(chain.spec.classes), spec=chain.spec, samples=2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs") / "lopes2017" / "cpu")
    parser.add_argument("--data-dir", default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = HERE / "images"
    folder.mkdir(exist_ok=True)
    for pair in BUDGETS["cpu"].pairs:
        if pair.data == "celeba":
            continue
        chain = Chain(pair, 0, args.work, args.data_dir, "cpu")
        name = pair.id.replace("/", "-")
        for row in pair.rows:
            if (chain.folder / f"set-{row}").exists():
                write_bytes(folder / f"{name}-{row}.png", stored_grid(chain, row))
        write_bytes(folder / f"{name}-best.png", drawn_grid(chain))
        print(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
