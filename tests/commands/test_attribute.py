"""CelebA's attribute reaches every command that loads CelebA by its name, and is refused where it can do nothing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from datafree._core.files import read_json

FILES = [f"{index:06d}.jpg" for index in range(1, 41)]


@pytest.fixture
def faces(here, monkeypatch):
    """Dark and bright images; `Bright` tells them apart, the default attribute is the other half."""
    place = here / "data" / "celeba"
    (place / "img_align_celeba").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows, parts = [], []
    for index, name in enumerate(FILES):
        bright = index % 2
        pixels = rng.integers(0, 60, (24, 20, 3)) + 180 * bright
        Image.fromarray(pixels.astype(np.uint8)).save(place / "img_align_celeba" / name, quality=95)
        rows.append(f"{name} {1 if index % 4 < 2 else -1} {1 if bright else -1}")
        parts.append(f"{name} {0 if index < 24 else 2}")
    (place / "list_attr_celeba.txt").write_text("\n".join([str(len(FILES)), "Attractive Bright", *rows]) + "\n")
    (place / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    monkeypatch.setenv("DATAFREE_DATA", str(here / "data"))
    (here / "net.py").write_text(
        "from torch import nn\n"
        "def build(spec): return nn.Sequential(nn.Conv2d(3, 4, 5, 4), nn.BatchNorm2d(4), nn.ReLU(),\n"
        "    nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 2))\n"
    )
    return here


@pytest.mark.parametrize("quantized", ["calibrated", pytest.param("fine-tuned", marks=pytest.mark.slow)])
def test_every_command_takes_the_attribute_that_is_named(command, faces, quantized):
    train = "train net.py:build --data celeba --attribute Bright --epochs 30 --batch 8 --learning-rate 1e-2 --size 16"
    assert command(f"{train} --out teacher2 --quiet").code == 0
    assert read_json(faces / "teacher2" / "run.json")["result"]["evaluation"]["accuracy"] == 100
    data = "--data celeba --attribute Bright"
    how = "--calibrate celeba --images 16" if quantized == "calibrated" else "--finetune celeba --epochs 1"
    for line in (
        f"evaluate teacher2 --code net.py:build {data}",
        f"quantize teacher2 --code net.py:build {how} {data} --out int8 --quiet",
        f"condense random {data} --teacher teacher2 --code net.py:build --per-class 1 --out few --quiet",
        f"distill teacher2 net.py:build --code net.py:build {data} --epochs 1 --out student2 --quiet",
        f"record teacher2 --code net.py:build {data} --preset small --quiet",
        f"report teacher2 int8 {data} --out page.html",
        "similarity teacher2 celeba celeba:train --code net.py:build --attribute Bright --images 8 --quiet",
    ):
        done = command(line)
        assert done.code == 0, (line, done.err)
        assert "not Attractive" not in done.out
    assert read_json(faces / "int8" / "run.json")["result"]["evaluation"]["accuracy"] >= 90


@pytest.mark.parametrize("line", [
    "evaluate teacher --data digits --attribute Male", "train hinton4 --data digits --attribute Male --out made",
    "quantize teacher --calibrate noise --attribute Male --out made", "similarity teacher digits --attribute Male",
    "quantize teacher --calibrate digits --finetune digits --attribute Male --out made",
    "distill teacher --set set --attribute Male --out made", "report teacher --attribute Male --out p.html",
    "record teacher --data digits --attribute Male", "condense --data digits --per-class 1 --attribute Male --out made",
])  # fmt: skip
def test_an_attribute_of_no_data_is_refused(refused, line):
    assert "--attribute: got Male" in refused(line)
