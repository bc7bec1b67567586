"""The paper's Tables 2 and 4: per-class means and random samples of what each objective reconstructed, as PNG.

    python papers/lopes2017/grids.py --work runs/lopes2017/cpu

Only synthetic images are drawn, and none of CelebA: no real image, and no face, goes into a commit.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from PIL import Image
from rows import BUDGETS
from run import HERE, Chain

from datafree._core.files import write_bytes
from datafree.evaluation.report import grid_of, grid_png
from datafree.models.pixel_bytes import to_pixels
from datafree.records import presets
from datafree.records.record import record
from datafree.releases.load import load_model
from datafree.synthesis import methods
from datafree.synthesis.synthetic_set import SyntheticSet


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
    pixels = methods.from_name("distribution").bind(teacher, known).chunk(0, 0, 4096).pixels
    seen = teacher.predict(pixels).argmax(1)
    return grid_png(grid_of("best", pixels, seen, len(chain.spec.classes), spec=chain.spec, samples=2))


def montage(folder: Path, out: Path) -> None:
    """The README's picture: a class mean and one sample of every objective, for both networks of MNIST."""
    columns = {"hinton": "HINTON-1200", "lenet5": "LeNet-5"}
    rows = {
        "top": "top layer", "all": "all layers", "spectral-all": "spectral, all",
        "spectral-pairs": "spectral, pairs", "best": "distribution (ours)",
    }  # fmt: skip
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(11, 5.2), squeeze=False)
    for across, (network, title) in enumerate(columns.items()):
        for down, (row, label) in enumerate(rows.items()):
            own = axes[down][across]
            picture = Image.open(folder / f"mnist-{network}-{row}.png").convert("RGBA")
            own.imshow(picture.crop((0, 0, picture.width, picture.height * 2 // 3)), interpolation="nearest")
            own.set_xticks([])
            own.set_yticks([])
            own.set_frame_on(False)
            if across == 0:
                own.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=11)
            if down == 0:
                own.set_title(f"from {title}, MNIST", fontsize=12)
    figure.tight_layout(h_pad=0.3, w_pad=0.6)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, facecolor="white", metadata={"Software": None})


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
    montage(folder, HERE.parents[1] / "docs" / "images" / "reconstructions.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
