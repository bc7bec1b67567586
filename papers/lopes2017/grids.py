"""The paper's Tables 2 and 4: per-class means and random samples of what each objective reconstructed, as PNG.

    python -m papers.lopes2017.grids --work runs/lopes2017/cpu

Only synthetic images are drawn, and none of CelebA, so that no real image and no face is committed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if not __package__:  # started by its path: the imports below need the repository's root
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import matplotlib.pyplot as plt
import torch
from PIL import Image

from datafree._core.files import write_bytes
from datafree.evaluation.report import grid_of, grid_png
from datafree.models.pixel_bytes import to_pixels
from datafree.records import presets
from datafree.records.record import record
from datafree.releases.load import load_model
from datafree.synthesis import methods
from datafree.synthesis.synthetic_set import SyntheticSet
from papers.lopes2017.rows import BUDGETS
from papers.lopes2017.run import HERE, Chain


def stored_grid(chain: Chain, row: str) -> bytes:
    """The grid of a set in the work folder of run.py."""
    synthetic = SyntheticSet.open(chain.folder / f"set-{row}")
    images, _, logits = synthetic.load()
    pixels = to_pixels(images, synthetic.spec)
    return grid_png(grid_of(row, pixels, logits.argmax(1), len(chain.spec.classes), spec=chain.spec, samples=2))


def drawn_grid(chain: Chain) -> bytes:
    """The grid of images drawn from the record `best`."""
    teacher = load_model(str(chain.folder / "teacher"))
    teacher_record = record(teacher, chain.train, presets.best(teacher))
    pixels = methods.from_name("distribution").bind(teacher, teacher_record).chunk(0, 0, 4096).pixels
    classes = teacher.predict(pixels).argmax(1)
    return grid_png(grid_of("best", pixels, classes, len(chain.spec.classes), spec=chain.spec, samples=2))


def montage(folder: Path, out: Path) -> None:
    """The README's picture: class means and samples of every objective, for both networks on MNIST."""
    columns = {"hinton": "HINTON-1200", "lenet5": "LeNet-5"}
    rows = {
        "top": "top layer", "all": "all layers", "spectral-all": "spectral, all",
        "spectral-pairs": "spectral, pairs", "best": "distribution (ours)",
    }  # fmt: skip
    figure, axes = plt.subplots(len(rows), len(columns), figsize=(11, 5.2), squeeze=False)
    for across, (network, title) in enumerate(columns.items()):
        for down, (row, label) in enumerate(rows.items()):
            cell = axes[down][across]
            picture = Image.open(folder / f"mnist-{network}-{row}.png").convert("RGBA")
            cell.imshow(picture.crop((0, 0, picture.width, picture.height * 2 // 3)), interpolation="nearest")
            cell.set_xticks([])
            cell.set_yticks([])
            cell.set_frame_on(False)
            if across == 0:
                cell.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=11)
            if down == 0:
                cell.set_title(f"from {title}, MNIST", fontsize=12)
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
