"""Networks in ONNX files on the command line: pack, quantize, evaluate, --code and rerun."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
import torch
from torch import nn

from datafree._core.files import sha256_file
from datafree._core.optional_packages import quiet
from datafree.releases.release import Release

pytest.importorskip("onnxruntime")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnx2torch", "torchvision")),
    reason="onnx2torch and torchvision are not installed",
)
INT8 = "quantize net.onnx --calibrate bns --images 16 --out int8 --quiet"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2)]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 10)).eval()
    path = tmp_path_factory.mktemp("file") / "net.onnx"
    with quiet():
        torch.onnx.export(
            module, (torch.rand(2, 1, 8, 8),), str(path), dynamo=False, opset_version=17, input_names=["pixels"],
            training=torch.onnx.TrainingMode.PRESERVE, dynamic_axes={"pixels": {0: "batch"}},
        )  # fmt: skip
    return path


@pytest.fixture
def here(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(file, "net.onnx")
    return tmp_path


def test_a_release_is_made_of_a_file_alone_and_used_with_it(command, here):
    packed = command("pack net.onnx --mean 0.5 --std 0.25 --out p")
    assert packed.code == 0, packed.err
    assert "the release does not hold the network's operators: hand over net.onnx with it, for --code" in packed.out
    release = Release.open(here / "p")
    assert release.spec.shape == (1, 8, 8) and release.spec.mean == (0.5,) and len(release.spec.classes) == 10
    log = json.loads((here / "p.run.json").read_text())
    assert log["inputs"] == {"net.onnx": sha256_file(here / "net.onnx")}
    assert json.loads((here / "p" / "run.json").read_text())["settings"]["model"].startswith(".onnx file ")
    assert "--code FILE.onnx, the ONNX file of its publisher" in command("inspect p").out
    used = command("evaluate p --code net.onnx --data digits --limit 50 --out e")
    assert used.code == 0, used.err
    assert json.loads((here / "e.run.json").read_text())["inputs"]["net.onnx"] == sha256_file(here / "net.onnx")
    refused = command("evaluate p --data digits")
    assert refused.line == (
        "p is a network of an ONNX file ('custom:net.onnx'); name it with --code FILE.onnx, the file that its publisher "
        "provides with this folder"
    )


def test_classes_and_shape_are_stated_too(command, here):
    names = " ".join(f"class{index}" for index in range(10))
    assert command(f"pack net.onnx --shape 1 8 8 --classes {names} --out p").code == 0
    assert Release.open(here / "p").spec.classes[3] == "class3"
    assert command("pack net.onnx --classes 9 --out q").line.startswith(
        "--classes: got 9, and net.onnx returns 10 logits"
    )
    assert "got a shape of (3, 8, 8)" in command("pack net.onnx --shape 3 8 8 --out q").line
    assert command("pack net.onnx --weights w.pth --out q").line == (
        "--weights: got w.pth with net.onnx, which has its own; leave them out"
    )
    assert command("pack resnet8 --shape 3 32 32 --classes 10 --out q").line.startswith(
        "pack needs --weights, which was not given."
    )
    assert not (here / "q").exists()


@pytest.mark.usefixtures("exported_anew")
def test_a_file_is_quantized_and_the_run_is_repeated_without_trust(command, here):
    pytest.importorskip("torchao")
    made = command(INT8)
    assert made.code == 0, made.err
    assert "net.onnx: takes 1 x 8 x 8 pixels from 0 to 1, not normalised" in made.out
    again = command("rerun int8 --out again")
    assert again.code == 0 and "note:" not in again.out, again.err
    for name in ("config.json", "model.onnx"):
        assert (here / "int8" / name).read_bytes() == (here / "again" / name).read_bytes()
    assert command("evaluate int8/model.onnx --data digits").line == (
        "int8/model.onnx is one file of a quantized network, expected its folder; give int8"
    )


def test_files_that_are_not_there_and_places_for_new_networks_are_refused(command, here):
    assert (
        command("evaluate gone.onnx --data digits").line == "no file gone.onnx, expected an ONNX file; check the path"
    )
    assert command("pack gone.onnx --out q").line == "no file gone.onnx, expected an ONNX file; check the path"
    assert command("train net.onnx --data digits --out q").line.startswith(
        "net.onnx is a trained network, expected an architecture for new weights"
    )
    (here / "net.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert command("pack net.onnx --out q").line.startswith("net.onnx is a Git LFS pointer, expected the file itself")


def test_a_record_is_made_of_a_file(command, here):
    assert command("record net.onnx --data digits --preset safe --out r --quiet").code == 0
    assert Release.open(here / "r").spec.shape == (1, 8, 8)
    assert command("synthesize bns r --code net.onnx --images 8 --steps 2 --out set --quiet").code == 0
